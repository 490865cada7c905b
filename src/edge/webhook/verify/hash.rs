//! Hashes that the schemes share.

use aws_lc_rs::digest::{self, SHA256};

/// What makes a delivery the same when it comes again, told apart by scheme.
pub(super) fn identity(scheme: &str, signed: &[&[u8]]) -> [u8; 32] {
    sha256([scheme.as_bytes(), b"\0"].iter().chain(signed))
}

/// SHA-256 of all parts, one after the other.
pub(super) fn sha256<'a>(parts: impl IntoIterator<Item = &'a &'a [u8]>) -> [u8; 32] {
    let mut context = digest::Context::new(&SHA256);
    for part in parts {
        context.update(part);
    }
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}
