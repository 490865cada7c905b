//! A JWT that says who calls, beside the signature of the delivery. It binds no body, and may be sent again while it is valid.

use http::HeaderMap;
use jiff::Timestamp;

use crate::api::JwtPin;
use crate::edge::keys::Key;
use crate::edge::outcome::Why;
use crate::edge::verify::Window;
use crate::edge::verify::bearer::{Expected, Token};

/// Who a token must prove to be calling.
pub struct TokenPin {
    expected: Expected,
    keys: Vec<Key>,
    window: Window,
}

impl TokenPin {
    /// A pin with the keys of the issuer, and how far their clock may be from ours.
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
