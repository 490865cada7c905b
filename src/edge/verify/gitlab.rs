//! GitLab: `X-Gitlab-Token` is a password. Nothing is signed, so whoever has seen one delivery can send any other; that is
//! why an endpoint for GitLab has a source pin. The identity is of the body, since there is nothing better.

use super::{Attempt, Material, Refusal, Verified, header, identity};

/// Verifies a delivery.
pub(super) fn verify(attempt: &Attempt<'_>) -> Result<Verified, Refusal> {
    let token = attempt.header("x-gitlab-token")?;
    let delivery_id = header::optional_id(attempt.delivery.headers, "x-gitlab-event-uuid")?;
    let signer = attempt.signer(|key| match &key.material {
        Material::Token(key) => key.is(token),
        _ => false,
    })?;
    Ok(Verified {
        key_id: signer.id.clone(),
        delivery_id,
        signed_at: None,
        identity: identity("gitlab", &[attempt.delivery.body]),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::verify::Scheme;
    use crate::edge::verify::testing::{Request, key};

    const TOKEN: &str = "glwt-0123456789abcdef";

    fn verify(request: &Request) -> Result<Verified, Refusal> {
        request.verify(&Scheme::Gitlab, &[key(&Scheme::Gitlab, "another-0123456789"), key(&Scheme::Gitlab, TOKEN)], 0)
    }

    #[test]
    fn the_token_is_the_whole_token() {
        let with = |token| verify(&Request::post("{}").header("x-gitlab-token", token)).map(|_| ());
        assert_eq!(with(TOKEN), Ok(()));
        for wrong in ["glwt-0123456789abcdeF", "glwt-0123456789abcde", "glwt-0123456789abcdef0", "0"] {
            assert_eq!(with(wrong), Err(Refusal::WrongSignature), "{wrong}");
        }
    }

    #[test]
    fn the_token_comes_once() {
        assert_eq!(verify(&Request::post("{}")), Err(Refusal::MissingHeader));
        let twice = Request::post("{}").header("x-gitlab-token", TOKEN).header("x-gitlab-token", TOKEN);
        assert_eq!(verify(&twice), Err(Refusal::MalformedHeader));
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
