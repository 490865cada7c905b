//! Texts for messages.

/// A number with its noun in the singular or plural: `1 key`, `2 keys`.
#[must_use]
pub fn counted(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}
