//! Texts for messages.

use std::fmt;

/// A number with its noun in the singular or plural: `1 key`, `2 keys`.
#[must_use]
pub fn counted(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// How many things a list names.
const NAMED: usize = 5;

/// The first things of a list, and how many more there are.
#[must_use]
pub fn listed<T: fmt::Display>(things: &[T]) -> String {
    let first: Vec<String> = things.iter().take(NAMED).map(ToString::to_string).collect();
    let more = things.len().saturating_sub(NAMED);
    let and_more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{and_more}", first.join(", "))
}

/// How many characters of a foreign text are shown.
const EXCERPT: usize = 200;

/// The beginning of a text that somebody else wrote, in one line.
#[must_use]
pub fn excerpt(text: &str) -> String {
    let mut shown: String =
        text.chars().take(EXCERPT).map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
    if text.chars().nth(EXCERPT).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_excerpt_is_one_short_line() {
        assert_eq!(excerpt("ü: no\nsuch\ttopic"), "ü: no such topic");
        assert_eq!(excerpt(&"ü".repeat(EXCERPT)), "ü".repeat(EXCERPT));
        assert_eq!(excerpt(&"ü".repeat(EXCERPT + 1)), "ü".repeat(EXCERPT) + "…");
    }
}
