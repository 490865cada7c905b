//! A credential: what a service authenticates with.

use crate::domain::secret::SecretText;

/// A certificate chain with its key, as stored.
#[derive(Clone)]
pub struct Credential {
    pub chain_pem: String,
    pub key: SecretText,
}
