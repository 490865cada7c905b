//! What verifications take, in bytes that SHA-256 hashes in the same time: roughly, and rather too much.

/// A verification with Ed25519 or ECDSA.
pub const ELLIPTIC: usize = 64 << 10;

/// The longest RSA key that is accepted, in bytes.
pub const MAX_RSA_KEY: usize = 1024;

/// A verification with an RSA key of so many bytes.
#[must_use]
pub fn rsa(key: usize) -> usize {
    key * key / 2
}
