//! A JWT in `Authorization: Bearer`, with the digest of the body among its claims.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use serde::Deserialize;

use super::bearer::{BearerToken, ExpectedClaims};
use super::check::{SignatureCheck, Verified};
use super::error::VerifyError;
use super::hash::{identity, sha256};
use super::{header, timestamp};
use crate::api::JwtVerification;
use crate::edge::encoding::base64url;

/// The claims that an endpoint expects.
pub(super) fn expected(spec: &JwtVerification) -> ExpectedClaims {
    let JwtVerification { issuer, audience, subject } = spec.clone();
    ExpectedClaims { issuer, audience, subjects: subject.map(|subject| vec![subject]) }
}

/// The claims that bind a token to one delivery.
#[derive(Deserialize)]
struct Claims {
    iss: String,
    jti: String,
    body_sha256: String,
}

/// Verifies a request.
pub(super) fn verify(check: &SignatureCheck<'_>, expected: &ExpectedClaims) -> Result<Verified, VerifyError> {
    let SignatureCheck { request, keys, window, now } = *check;
    let token = BearerToken::verify(request.headers, keys, window, now)?;
    let Claims { iss, jti, body_sha256 } = token.claims()?;
    if !token.matches(expected) || header::id(&jti).is_err() {
        return Err(VerifyError::WrongClaims);
    }
    let signed_at = timestamp::within(token.issued_at, window, now)?;
    let digest = base64url(&body_sha256).ok_or(VerifyError::WrongClaims)?;
    verify_slices_are_equal(&digest, &sha256(&[request.body])).map_err(|_| VerifyError::WrongDigest)?;
    Ok(Verified {
        key_id: token.key.id.clone(),
        identity: identity("jwt", &[iss.as_bytes(), b"\0", jti.as_bytes()]),
        delivery_id: Some(jti),
        signed_at: Some(signed_at),
    })
}

#[cfg(test)]
mod tests;
