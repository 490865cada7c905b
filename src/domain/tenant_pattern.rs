//! Which texts name a tenant. Pure.

use regex::{Regex, RegexBuilder};
use thiserror::Error;

/// The longest name of a tenant, in bytes.
const MAX_LENGTH: usize = 128;
/// How much memory a compiled pattern takes at most, in bytes.
const MAX_SIZE: usize = 256 << 10;
/// What a tenant may be called, unless the trust domain says otherwise.
pub const DEFAULT: &str = "[A-Za-z0-9][A-Za-z0-9._-]*";

/// A pattern cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the pattern is no regular expression, without look-around and back-references, or a very large one")]
pub struct InvalidPattern;

/// Which texts name a tenant.
#[derive(Clone, Debug)]
pub struct TenantPattern(Regex);

impl TenantPattern {
    /// Compiles a regular expression, which the whole name has to match.
    ///
    /// # Errors
    /// [`InvalidPattern`].
    pub fn new(pattern: &str) -> Result<Self, InvalidPattern> {
        // By itself first: a pattern must not end the group that it is put into.
        let compile =
            |pattern: &str| RegexBuilder::new(pattern).size_limit(MAX_SIZE).build().map_err(|_| InvalidPattern);
        compile(pattern)?;
        compile(&format!("^(?:{pattern})$")).map(Self)
    }

    /// Whether a text names a tenant.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        (1..=MAX_LENGTH).contains(&text.len()) && !text.chars().any(char::is_control) && self.0.is_match(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_name_matches() {
        let pattern = TenantPattern::new("a|b[0-9]+").unwrap();
        for (text, expected) in
            [("a", true), ("b12", true), ("ab1", false), ("b1,c", false), ("b1\n", false), ("", false)]
        {
            assert_eq!(pattern.matches(text), expected, "{text:?}");
        }
        assert!(!TenantPattern::new(".*").unwrap().matches(&"a".repeat(129)));
        assert!(!TenantPattern::new("(?s).*").unwrap().matches("a\nb"));
        assert!(TenantPattern::new(DEFAULT).unwrap().matches("acme-1"));
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for wrong in ["(", "a)|(?:.*", "[a", "(?:[a-z]{1000}){1000}"] {
            assert_eq!(TenantPattern::new(wrong).err(), Some(InvalidPattern), "{wrong}");
        }
    }
}
