//! What the schemes share: a delivery with all that it is judged by, and its identity.

use aws_lc_rs::digest::{self, SHA256};
use aws_lc_rs::hmac::Algorithm;
use jiff::Timestamp;

use super::{Delivery, Material, Refusal, Window, header, timestamp};
use crate::edge::keys::{Key, signer};

/// A delivery and all that it is judged by.
pub(super) struct Attempt<'a> {
    pub delivery: &'a Delivery<'a>,
    pub keys: &'a [Key],
    pub window: &'a Window,
    pub now: Timestamp,
}

impl<'a> Attempt<'a> {
    /// The keys that are accepted now.
    pub(super) fn live_keys(&self) -> impl Iterator<Item = &'a Key> {
        self.keys.iter().filter(|key| key.is_live(self.now))
    }

    /// The live key that has signed.
    pub(super) fn signer(&self, has_signed: impl Fn(&Key) -> bool) -> Result<&'a Key, Refusal> {
        signer(self.keys, self.now, has_signed)
    }

    /// The live key with which one of these MACs was made over the parts, one after the other.
    pub(super) fn mac_signer(&self, hash: Algorithm, parts: &[&[u8]], macs: &[Vec<u8>]) -> Result<&'a Key, Refusal> {
        self.signer(|key| match &key.material {
            Material::Mac(key) => key.has_made(hash, parts, macs),
            _ => false,
        })
    }

    /// The only value of a header that must be there.
    pub(super) fn header(&self, name: &str) -> Result<&'a str, Refusal> {
        header::required(self.delivery.headers, name)
    }

    /// Reads a timestamp and refuses it outside of the window.
    pub(super) fn timestamp(&self, text: &str) -> Result<Timestamp, Refusal> {
        timestamp::within(timestamp::parse(text)?, self.window, self.now)
    }
}

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
