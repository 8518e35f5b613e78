//! The names that somebody may have meant.

/// Longest name that is compared: the work grows with the square.
const COMPARED_BYTES_MAX: usize = 128;

/// The known names nearest to this one, the nearest first; none that is further away than half of its length.
pub fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>, most: usize) -> Vec<&'a str> {
    if name.len() > COMPARED_BYTES_MAX {
        return Vec::new();
    }
    let mut near: Vec<(usize, &str)> = known
        .map(|known| (distance(name.as_bytes(), known.as_bytes()), known))
        .filter(|(distance, known)| *distance <= name.len() / 2 || known.contains(name))
        .collect();
    near.sort_unstable();
    near.into_iter().take(most).map(|(_, known)| known).collect()
}

/// Levenshtein's, over bytes.
fn distance(a: &[u8], b: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_edits() {
        assert_eq!(distance(b"kitten", b"sitting"), 3);
        assert_eq!(distance(b"", b"abc"), 3);
        assert_eq!(distance(b"same", b"same"), 0);
    }
}
