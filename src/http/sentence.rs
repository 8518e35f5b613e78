//! Sentences as HTTP/1.1 reason phrases, which actix wants to be `'static`: kept for ever, in a bounded table.

use std::collections::HashSet;
use std::sync::LazyLock;

use parking_lot::Mutex;

/// Sentences that are kept. Beyond it an answer has its status's own phrase; the header has the sentence always.
const SENTENCES_MAX: usize = 4096;
/// Longer ones are for people who read bodies.
const SENTENCE_BYTES_MAX: usize = 160;

static SENTENCES: LazyLock<Mutex<HashSet<&'static str>>> = LazyLock::new(Mutex::default);

/// Of them, those that name a place in a body: a client makes a new one with every body that it breaks elsewhere.
const WITH_PLACES_MAX: usize = SENTENCES_MAX / 4;

/// A sentence that says what happens, and to how many.
pub(super) fn interned(sentence: &str) -> Option<&'static str> {
    kept(sentence, SENTENCES_MAX)
}

/// One that says where, too.
pub(super) fn interned_with_place(sentence: &str) -> Option<&'static str> {
    kept(sentence, WITH_PLACES_MAX)
}

fn kept(sentence: &str, sentences_max: usize) -> Option<&'static str> {
    let printable = sentence.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
    if !printable || sentence.len() > SENTENCE_BYTES_MAX {
        return None;
    }
    let mut sentences = SENTENCES.lock();
    if let Some(kept) = sentences.get(sentence) {
        return Some(kept);
    }
    if sentences.len() >= sentences_max {
        return None;
    }
    let kept: &'static str = Box::leak(sentence.to_owned().into_boxed_str());
    sentences.insert(kept);
    Some(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_bounded_and_takes_no_line_breaks() {
        assert_eq!(interned("a\r\nb"), None);
        assert_eq!(interned(&"x".repeat(161)), None);
        let places =
            (0..SENTENCES_MAX).filter(|number| interned_with_place(&format!("place {number}")).is_some()).count();
        assert!(places <= WITH_PLACES_MAX);
        assert_eq!(interned_with_place("place 4000"), None);
        assert_eq!(interned("sentence 1"), Some("sentence 1"), "places leave room for others");
        let kept = (0..SENTENCES_MAX * 2).filter(|number| interned(&format!("sentence {number}")).is_some()).count();
        assert!(kept <= SENTENCES_MAX);
        assert_eq!(interned("sentence 1"), Some("sentence 1"));
    }
}
