//! What all schemes verify with: the request, the keys, the window and the time.

use aws_lc_rs::hmac::Algorithm;
use jiff::Timestamp;

use super::error::VerifyError;
use super::keys::{Key, signer};
use super::request::SignedRequest;
use super::timestamp::Window;
use super::verifier::Verifier;
use super::{header, timestamp};

/// A request with everything that it is verified with.
pub(super) struct SignatureCheck<'a> {
    pub request: &'a SignedRequest<'a>,
    pub keys: &'a [Key],
    pub window: &'a Window,
    pub now: Timestamp,
}

impl<'a> SignatureCheck<'a> {
    /// The keys that are valid now.
    pub(super) fn live_keys(&self) -> impl Iterator<Item = &'a Key> {
        self.keys.iter().filter(|key| key.is_live(self.now))
    }

    /// The live key that has signed.
    pub(super) fn signer(&self, has_signed: impl Fn(&Key) -> bool) -> Result<&'a Key, VerifyError> {
        signer(self.keys, self.now, has_signed)
    }

    /// The live key of which one of these MACs is, over the concatenated parts.
    pub(super) fn mac_signer(
        &self,
        hash: Algorithm,
        parts: &[&[u8]],
        macs: &[Vec<u8>],
    ) -> Result<&'a Key, VerifyError> {
        self.signer(|key| match &key.verifier {
            Verifier::Mac(key) => key.verifies(hash, parts, macs),
            _ => false,
        })
    }

    /// The only value of a required header.
    pub(super) fn header(&self, name: &str) -> Result<&'a str, VerifyError> {
        header::required(self.request.headers, name)
    }

    /// Reads a timestamp, and refuses it outside of the window.
    pub(super) fn timestamp(&self, text: &str) -> Result<Timestamp, VerifyError> {
        timestamp::within(timestamp::parse(text)?, self.window, self.now)
    }
}

/// A delivery that a live key has signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// ID of the key.
    pub key_id: String,
    /// ID of the delivery, whether signed or not: for people, and for the audit log.
    pub delivery_id: Option<String>,
    /// When it was signed, where the scheme signs that.
    pub signed_at: Option<Timestamp>,
    /// By which a replay is recognized: SHA-256 of the signed ID, or of everything that is signed.
    pub identity: [u8; 32],
}
