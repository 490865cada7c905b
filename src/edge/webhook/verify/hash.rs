//! Hashes that the schemes share.

use aws_lc_rs::digest::{self, SHA256};

/// The identity of a delivery under a scheme; see [`Verified::identity`](super::check::Verified::identity).
pub(super) fn identity(scheme: &str, signed: &[&[u8]]) -> [u8; 32] {
    sha256([scheme.as_bytes(), b"\0"].iter().chain(signed))
}

/// SHA-256 of the concatenated parts.
pub(super) fn sha256<'a>(parts: impl IntoIterator<Item = &'a &'a [u8]>) -> [u8; 32] {
    let mut context = digest::Context::new(&SHA256);
    for part in parts {
        context.update(part);
    }
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}
