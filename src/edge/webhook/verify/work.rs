//! What verifications take, in bytes that SHA-256 hashes in the same time: roughly, and rather too much.

/// Maximum number of signatures by public keys in one request: unlike a MAC, each is verified for every key.
pub(super) const MAX_PUBLIC_KEY: usize = 4;

/// A verification with Ed25519 or ECDSA.
pub(super) const ELLIPTIC: usize = 64 << 10;

/// The longest RSA key that is accepted, in bytes.
pub(super) const MAX_RSA_KEY: usize = 1024;

/// A verification with an RSA key of so many bytes.
pub(super) fn rsa(key: usize) -> usize {
    key * key / 2
}
