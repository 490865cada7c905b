//! Whether one key of a document can be used, on its own: a key that cannot takes no other down.

use std::slice;

use super::{inbound, outbound};
use crate::contract::route::{KeyDocument, Spec};
use crate::edge::webhook::assertion::{MAX_SHARED_KEYS, SharedKeys};
use crate::edge::webhook::caller_token::{CallerTokenPolicy, MAX_KEY_SETS};
use crate::edge::webhook::keys::{self, InvalidKeys};
use crate::edge::webhook::signing::SigningKey;
use crate::edge::webhook::verify::Scheme;

/// What a key is for.
pub enum KeyUse {
    /// The edge verifies or signs the deliveries of this webhook with it.
    Deliveries(Spec),
    /// It verifies the tokens of callers.
    CallerTokens,
    /// The target shares it.
    Assertions,
}

impl KeyUse {
    /// How many keys may be used.
    #[must_use]
    pub fn max(&self) -> usize {
        match self {
            Self::Deliveries(Spec::Endpoint(_)) => inbound::MAX_KEYS,
            Self::Deliveries(Spec::Destination(_)) => outbound::MAX_KEYS,
            Self::CallerTokens => MAX_KEY_SETS,
            Self::Assertions => MAX_SHARED_KEYS,
        }
    }

    /// Checks a key.
    ///
    /// # Errors
    /// Names the key, and says what to write instead.
    pub fn check(&self, key: &KeyDocument) -> Result<(), InvalidKeys> {
        match self {
            // A spec that cannot be compiled is no fault of the key.
            Self::Deliveries(Spec::Endpoint(spec)) => match Scheme::new(&spec.verification) {
                Ok(scheme) => keys::compile(slice::from_ref(key), |text| scheme.parse_key(text)).map(drop),
                Err(_) => Ok(()),
            },
            Self::Deliveries(Spec::Destination(_)) => SigningKey::parse(key).map(drop),
            Self::CallerTokens => CallerTokenPolicy::check(key),
            Self::Assertions => SharedKeys::check(key),
        }
    }
}
