//! Words for messages.

/// A number with the noun that agrees with it: `1 key`, `2 keys`.
#[must_use]
pub fn counted(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}
