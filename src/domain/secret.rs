//! Secret texts: keys and passwords. They cannot be printed, compared or serialized by accident.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer, Serializer};

/// A private key, a shared secret or a password, as text. It is wiped from memory when it is dropped. It has no `PartialEq`,
/// since the time that `==` takes depends on the content, no `Display`, and no `Serialize`: a field that is stored in a Secret
/// uses [`serialize_exposed`].
#[derive(Clone)]
pub struct SecretText(SecretString);

impl SecretText {
    /// A secret from this text.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text.into())
    }

    /// The text, to store it, sign with it or connect with it.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SecretText(redacted)")
    }
}

impl<'de> Deserialize<'de> for SecretText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::new)
    }
}

/// Serializes a secret as a plain string, for `#[serde(serialize_with)]` on a field that is stored in a Secret.
///
/// # Errors
/// Those of the serializer.
pub fn serialize_exposed<S: Serializer>(secret: &SecretText, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(secret.expose())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_printed() {
        let secret: SecretText = serde_json::from_str("\"hidden\"").unwrap();
        assert_eq!(format!("{secret:?}"), "SecretText(redacted)");
        assert_eq!(secret.expose(), "hidden");
    }
}
