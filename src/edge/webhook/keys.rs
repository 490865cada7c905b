//! The keys in a route document, ready to verify with.

use thiserror::Error;

use super::verify::keys::Key;
use super::verify::{InvalidKey, Verifier};
use crate::contract::route::KeyDocument;

/// Why the keys of a webhook cannot be used, with what to do about it. Never what a key is.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum InvalidKeys {
    /// One key cannot be used.
    #[error("the key {id}: {source}")]
    Key {
        /// ID of the key.
        id: String,
        /// What is wrong with it.
        source: InvalidKey,
    },
    /// There are more keys than are looked at for each delivery.
    #[error("there are more than {max} keys; remove those that have ended")]
    TooMany {
        /// How many there may be.
        max: usize,
    },
    /// There are too many keys for `source.jwt`.
    #[error("the Secret {secret} of source.jwt holds too many JWKS; keep at most {max}")]
    TooManyIssuerKeys {
        /// Name of the Secret.
        secret: String,
        /// How many there may be.
        max: usize,
    },
}

/// Reads keys, each by `parse`.
///
/// # Errors
/// Names the key that cannot be used, and says what to write instead.
pub fn compile(
    documents: &[KeyDocument],
    parse: impl Fn(&[u8]) -> Result<Verifier, InvalidKey>,
) -> Result<Vec<Key>, InvalidKeys> {
    let compile = |KeyDocument { id, material, not_before, not_after }: &KeyDocument| {
        let verifier =
            parse(material.expose().as_bytes()).map_err(|source| InvalidKeys::Key { id: id.clone(), source })?;
        Ok(Key { id: id.clone(), not_before: *not_before, not_after: *not_after, verifier })
    };
    documents.iter().map(compile).collect()
}
