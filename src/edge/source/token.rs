//! A JWT that says who calls, beside the signature of the delivery. It binds no body, and may be sent again while it is valid.

use http::HeaderMap;
use jiff::Timestamp;

use crate::api::{JwtPin, WebhookSource};
use crate::contract::route::KeyDocument;
use crate::edge::keys::{self, Key};
use crate::edge::outcome::Why;
use crate::edge::route::Invalid;
use crate::edge::verify::bearer::{Expected, Token};
use crate::edge::verify::{Material, Window};

/// Most sets of keys that a token is tried with: each costs an asymmetric verification.
const MOST_SETS: usize = 16;

/// Who a token must prove to be calling.
pub struct TokenPin {
    expected: Expected,
    keys: Vec<Key>,
    window: Window,
}

impl TokenPin {
    /// Compiles what a source asks for, with the keys of the issuer, and how far their clock may be from ours.
    ///
    /// # Errors
    /// Says what is wrong with the keys.
    pub fn compile(
        source: Option<&WebhookSource>,
        keys: &[KeyDocument],
        window: Window,
    ) -> Result<Option<Self>, Invalid> {
        let Some(pin) = source.and_then(|source| source.jwt.as_ref()) else { return Ok(None) };
        let secret = &pin.secret_ref.name;
        if keys.is_empty() {
            return Err(Invalid::Keys(format!(
                "the Secret {secret} of source.jwt holds nothing to verify tokens with; add the issuer's JWKS under any \
                 ID, and the label credence.dev/webhook-keys: \"true\""
            )));
        }
        if keys.len() > MOST_SETS {
            let why = format!("the Secret {secret} of source.jwt holds too many JWKS; keep at most {MOST_SETS}");
            return Err(Invalid::Keys(why));
        }
        Ok(Some(Self::new(pin, keys::compile(keys, Material::jwks)?, window)))
    }

    /// A pin with the keys of the issuer.
    #[must_use]
    pub fn new(pin: &JwtPin, keys: Vec<Key>, window: Window) -> Self {
        let JwtPin { issuer, audience, subjects, secret_ref: _ } = pin.clone();
        Self { expected: Expected { issuer, audience, subjects: Some(subjects) }, keys, window }
    }

    /// Who calls, as `jwt:<issuer>#<subject>`, which is never the name in a certificate.
    ///
    /// # Errors
    /// Why the token does not prove an expected caller.
    pub fn caller(&self, headers: &HeaderMap, now: Timestamp) -> Result<String, Why> {
        let token = Token::verify(headers, &self.keys, &self.window, now)?;
        match token.subject() {
            Some(subject) if token.is_as(&self.expected) => Ok(format!("jwt:{}#{subject}", self.expected.issuer)),
            _ => Err(Why::WrongSource),
        }
    }
}

#[cfg(test)]
mod tests;
