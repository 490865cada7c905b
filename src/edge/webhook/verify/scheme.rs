//! The verification scheme of an endpoint.

use jiff::Timestamp;

use super::bearer::ExpectedClaims;
use super::check::{SignatureCheck, Verified};
use super::error::{InvalidKey, VerifyError};
use super::keys::Key;
use super::request::SignedRequest;
use super::timestamp::Window;
use super::verifier::Verifier;
use super::{github, gitlab, hmac, http_signatures, jwt, shopify, slack, standard_webhooks, stripe, twilio};
use crate::api::{SignatureAlgorithm, Verification};
use crate::domain::invalid_field::InvalidField;

/// How deliveries are verified.
#[derive(Clone, Debug)]
pub enum Scheme {
    /// Standard Webhooks, `v1` and `v1a`.
    StandardWebhooks,
    /// GitHub's `X-Hub-Signature-256`.
    Github,
    /// GitLab's `X-Gitlab-Token`.
    Gitlab,
    /// Stripe's `Stripe-Signature`.
    Stripe,
    /// Slack's `X-Slack-Signature`.
    Slack,
    /// Shopify's `X-Shopify-Hmac-Sha256`.
    Shopify,
    /// Twilio's `X-Twilio-Signature`.
    Twilio,
    /// HTTP Message Signatures.
    HttpMessageSignatures(http_signatures::Rules),
    /// A MAC over named parts.
    Hmac(hmac::Layout),
    /// A JWT.
    Jwt(ExpectedClaims),
}

impl Scheme {
    /// Compiles a spec.
    ///
    /// # Errors
    /// Names the field that is invalid, and says what to write instead.
    pub fn new(verification: &Verification) -> Result<Self, InvalidField> {
        let Verification {
            standard_webhooks,
            github,
            gitlab,
            stripe,
            slack,
            shopify,
            twilio,
            http_message_signatures,
            hmac: hmac_spec,
            jwt: jwt_spec,
        } = verification;
        let mut found = [
            standard_webhooks.as_ref().map(|_| Ok(Self::StandardWebhooks)),
            github.as_ref().map(|_| Ok(Self::Github)),
            gitlab.as_ref().map(|_| Ok(Self::Gitlab)),
            stripe.as_ref().map(|_| Ok(Self::Stripe)),
            slack.as_ref().map(|_| Ok(Self::Slack)),
            shopify.as_ref().map(|_| Ok(Self::Shopify)),
            twilio.as_ref().map(|_| Ok(Self::Twilio)),
            http_message_signatures
                .as_ref()
                .map(|spec| http_signatures::Rules::new(spec).map(Self::HttpMessageSignatures)),
            hmac_spec.as_ref().map(|spec| hmac::Layout::new(spec).map(Self::Hmac)),
            jwt_spec.as_ref().map(|spec| Ok(Self::Jwt(jwt::expected(spec)))),
        ]
        .into_iter()
        .flatten();
        match (found.next(), found.next()) {
            (Some(scheme), None) => scheme,
            _ => Err(InvalidField::new("verification", "set exactly one scheme")),
        }
    }

    /// Reads a key of this scheme, as an entry of the key Secret holds it.
    ///
    /// # Errors
    /// Says what to write instead, and never repeats the key.
    pub fn parse_key(&self, text: &[u8]) -> Result<Verifier, InvalidKey> {
        match self {
            Self::StandardWebhooks => Verifier::standard_webhooks(text),
            Self::Gitlab => Verifier::token(text),
            Self::Github | Self::Stripe | Self::Slack | Self::Shopify | Self::Twilio | Self::Hmac(_) => {
                Verifier::mac(text)
            }
            Self::HttpMessageSignatures(rules) => match rules.algorithm() {
                SignatureAlgorithm::HmacSha256 => Verifier::mac(text),
                algorithm => Verifier::public_key(algorithm, text),
            },
            Self::Jwt(_) => Verifier::jwks(text),
        }
    }

    /// Verifies a request.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn verify(
        &self,
        keys: &[Key],
        request: &SignedRequest<'_>,
        window: &Window,
        now: Timestamp,
    ) -> Result<Verified, VerifyError> {
        let check = SignatureCheck { request, keys, window, now };
        match self {
            Self::StandardWebhooks => standard_webhooks::verify(&check),
            Self::Github => github::verify(&check),
            Self::Gitlab => gitlab::verify(&check),
            Self::Stripe => stripe::verify(&check),
            Self::Slack => slack::verify(&check),
            Self::Shopify => shopify::verify(&check),
            Self::Twilio => twilio::verify(&check),
            Self::HttpMessageSignatures(rules) => http_signatures::verify(&check, rules),
            Self::Hmac(layout) => hmac::verify(&check, layout),
            Self::Jwt(expected) => jwt::verify(&check, expected),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::NoSettings;

    #[test]
    fn an_endpoint_has_exactly_one_scheme() {
        let one = Verification { slack: Some(NoSettings {}), ..Verification::default() };
        assert!(matches!(Scheme::new(&one), Ok(Scheme::Slack)));
        let two = Verification { stripe: Some(NoSettings {}), ..one };
        for wrong in [Verification::default(), two] {
            assert!(Scheme::new(&wrong).unwrap_err().message.contains("exactly one"));
        }
    }
}
