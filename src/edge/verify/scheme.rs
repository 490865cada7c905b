//! The scheme of an endpoint, checked and ready to verify with.

use super::bearer::Expected;
use super::{hmac, http_signatures, jwt};
use crate::api::Verification;

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
    Jwt(Expected),
}

impl Scheme {
    /// Checks what the API server could not.
    ///
    /// # Errors
    /// Says what is wrong and what to write instead.
    pub fn new(verification: &Verification) -> Result<Self, String> {
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
            _ => Err("verification: set exactly one scheme".into()),
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
            assert!(Scheme::new(&wrong).unwrap_err().contains("exactly one"));
        }
    }
}
