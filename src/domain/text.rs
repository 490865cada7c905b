//! Texts for messages.

use std::fmt::{self, Write};

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

/// How much of a text of others is logged, in characters.
const MAX_FOREIGN: usize = 200;

/// A text of others, such as the message of a library, of a peer or of the API server: for the log only, never for a status, an event
/// or an answer. It may hold anything, so it is cut off, and characters that could forge lines or hide others are escaped.
#[must_use]
pub fn foreign(text: impl fmt::Display) -> String {
    let mut cut = Cut { text: String::new(), left: MAX_FOREIGN };
    // It fails when nothing more fits.
    let is_whole = write!(cut, "{text}").is_ok();
    if is_whole { cut.text } else { cut.text + " [...]" }
}

struct Cut {
    text: String,
    left: usize,
}

impl Write for Cut {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            self.left = self.left.checked_sub(1).ok_or(fmt::Error)?;
            // Line separators, and marks that change the direction of writing.
            let is_hidden =
                matches!(character, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
            if character.is_control() || is_hidden {
                self.text.extend(character.escape_default());
            } else {
                self.text.push(character);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_of_others_is_one_short_line() {
        assert_eq!(foreign("plain: ä \"x\""), "plain: ä \"x\"");
        assert_eq!(foreign("a\nb\u{1b}[31m\u{202e}"), "a\\nb\\u{1b}[31m\\u{202e}");
        let long = foreign("x".repeat(100_000));
        assert_eq!(long, "x".repeat(MAX_FOREIGN) + " [...]");
    }
}
