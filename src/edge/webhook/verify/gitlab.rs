//! GitLab: `X-Gitlab-Token` is a password. Nothing is signed, so anybody who has seen one delivery can send others;
//! an endpoint for GitLab therefore needs a source policy. The identity is of the body, for want of anything better.

use super::check::{SignatureCheck, Verified};
use super::error::VerifyError;
use super::hash::identity;
use super::header;
use super::verifier::Verifier;

/// Verifies a request.
pub(super) fn verify(check: &SignatureCheck<'_>) -> Result<Verified, VerifyError> {
    let token = check.header("x-gitlab-token")?;
    let delivery_id = header::optional_id(check.request.headers, "x-gitlab-event-uuid")?;
    let signer = check.signer(|key| match &key.verifier {
        Verifier::Token(key) => key.matches(token),
        _ => false,
    })?;
    Ok(Verified {
        key_id: signer.id.clone(),
        delivery_id,
        signed_at: None,
        identity: identity("gitlab", &[check.request.body]),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::webhook::verify::scheme::Scheme;
    use crate::edge::webhook::verify::testing::{Request, key};

    const TOKEN: &str = "glwt-0123456789abcdef";

    fn verify(request: &Request) -> Result<Verified, VerifyError> {
        request.verify(&Scheme::Gitlab, &[key(&Scheme::Gitlab, "another-0123456789"), key(&Scheme::Gitlab, TOKEN)], 0)
    }

    #[test]
    fn the_token_is_the_whole_token() {
        let with = |token| verify(&Request::post("{}").header("x-gitlab-token", token)).map(|_| ());
        assert_eq!(with(TOKEN), Ok(()));
        for wrong in ["glwt-0123456789abcdeF", "glwt-0123456789abcde", "glwt-0123456789abcdef0", "0"] {
            assert_eq!(with(wrong), Err(VerifyError::WrongSignature), "{wrong}");
        }
    }

    #[test]
    fn the_token_comes_once() {
        assert_eq!(verify(&Request::post("{}")), Err(VerifyError::MissingHeader));
        let twice = Request::post("{}").header("x-gitlab-token", TOKEN).header("x-gitlab-token", TOKEN);
        assert_eq!(verify(&twice), Err(VerifyError::MalformedHeader));
    }

    #[test]
    fn the_event_has_an_id_and_the_body_is_the_identity() {
        let request = Request::post("{}").header("x-gitlab-token", TOKEN).header("x-gitlab-event-uuid", "e-1");
        let verified = verify(&request).unwrap();
        assert_eq!(verified.delivery_id.as_deref(), Some("e-1"));
        let other = verify(&Request::post("{ }").header("x-gitlab-token", TOKEN)).unwrap();
        assert_ne!(verified.identity, other.identity);
    }
}
