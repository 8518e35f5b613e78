//! Strangers' text, so that a terminal only shows it.

/// As it can be shown: control characters as pictures of them, and what turns the reading direction as what it is not.
pub fn printable(text: &str) -> String {
    text.chars().map(printable_char).collect()
}

pub fn printable_char(c: char) -> char {
    match c {
        '\0'..='\u{1f}' => char::from_u32(0x2400 + u32::from(c)).unwrap_or('\u{fffd}'),
        '\u{7f}' => '\u{2421}',
        '\u{80}'..='\u{9f}'
        | '\u{61c}'
        | '\u{200b}'
        | '\u{200e}'
        | '\u{200f}'
        | '\u{feff}'
        | '\u{2028}'..='\u{202e}'
        | '\u{2066}'..='\u{2069}' => '\u{fffd}',
        c => c,
    }
}
