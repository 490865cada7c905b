//! A JWT in `Authorization: Bearer`, with the digest of the body among its claims.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::encoding::base64url;
use super::{Attempt, Material, Refusal, Verified, header, identity, sha256, timestamp};
use crate::api::JwtVerification;

/// Longest life of a token, in seconds.
const LONGEST_LIFE: i64 = 3600;

/// What the claims must be.
#[derive(Clone, Debug)]
pub struct Pins {
    issuer: String,
    audience: String,
    subject: Option<String>,
}

impl Pins {
    /// Takes over the settings of an endpoint.
    #[must_use]
    pub fn new(spec: &JwtVerification) -> Self {
        let JwtVerification { issuer, audience, subject } = spec.clone();
        Self { issuer, audience, subject }
    }
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    /// Extensions that must be understood; none is.
    crit: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    aud: Audience,
    sub: Option<String>,
    iat: i64,
    exp: i64,
    nbf: Option<i64>,
    jti: String,
    body_sha256: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

/// Verifies a delivery.
pub(super) fn verify(attempt: &Attempt<'_>, pins: &Pins) -> Result<Verified, Refusal> {
    let token = attempt.header("authorization")?.strip_prefix("Bearer ").ok_or(Refusal::MalformedHeader)?;
    let (signed, signature) = token.rsplit_once('.').ok_or(Refusal::MalformedHeader)?;
    let (header, claims) = signed.split_once('.').ok_or(Refusal::MalformedHeader)?;
    let decode = |text| base64url(text).ok_or(Refusal::MalformedHeader);
    let (header, claims, signature) = (decode(header)?, decode(claims)?, decode(signature)?);
    let header: Header = serde_json::from_slice(&header).map_err(|_| Refusal::MalformedHeader)?;
    if header.crit.is_some() {
        return Err(Refusal::MalformedHeader);
    }
    if !["ES256", "EdDSA", "RS256", "PS256"].contains(&header.alg.as_str()) {
        return Err(Refusal::WrongAlgorithm);
    }
    let signer = attempt.signer(|key| match &key.material {
        Material::Jwks(keys) => keys.have_made(&header.alg, header.kid.as_deref(), signed.as_bytes(), &signature),
        _ => false,
    })?;
    let claims: Claims = serde_json::from_slice(&claims).map_err(|_| Refusal::WrongClaims)?;
    let signed_at = claims.check(attempt, pins)?;
    Ok(Verified {
        key_id: signer.id.clone(),
        identity: identity("jwt", &[claims.iss.as_bytes(), b"\0", claims.jti.as_bytes()]),
        delivery_id: Some(claims.jti),
        signed_at: Some(signed_at),
    })
}

impl Claims {
    /// Checks what a trusted issuer has signed, and gives the time at which it did.
    fn check(&self, attempt: &Attempt<'_>, pins: &Pins) -> Result<jiff::Timestamp, Refusal> {
        let audience = match &self.aud {
            Audience::One(one) => *one == pins.audience,
            Audience::Several(several) => several.contains(&pins.audience),
        };
        let subject = pins.subject.is_none() || self.sub == pins.subject;
        let life = self.exp.checked_sub(self.iat).is_some_and(|life| (1..=LONGEST_LIFE).contains(&life));
        if self.iss != pins.issuer || !audience || !subject || !life || header::id(&self.jti).is_err() {
            return Err(Refusal::WrongClaims);
        }
        let signed_at = timestamp::within(timestamp::from_seconds(self.iat)?, attempt.window, attempt.now)?;
        if attempt.now >= timestamp::from_seconds(self.exp)? {
            return Err(Refusal::TooOld);
        }
        if let Some(begin) = self.nbf
            && timestamp::from_seconds(begin)?.duration_since(attempt.now) > attempt.window.future
        {
            return Err(Refusal::TooNew);
        }
        let digest = base64url(&self.body_sha256).ok_or(Refusal::WrongClaims)?;
        verify_slices_are_equal(&digest, &sha256(&[attempt.delivery.body])).map_err(|_| Refusal::WrongDigest)?;
        Ok(signed_at)
    }
}

#[cfg(test)]
mod tests;
