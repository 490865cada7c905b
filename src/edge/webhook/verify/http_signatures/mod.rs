//! HTTP Message Signatures (RFC 9421). The endpoint says what must be covered and by which algorithm; the caller may cover
//! more, and chooses nothing else.

use aws_lc_rs::hmac::HMAC_SHA256;
use http::HeaderName;

use self::base::{plain_name, signature_base};
use self::reader::{byte_sequences, inner_lists};
use self::structured::{InnerList, Text, Value};
use super::check::{SignatureCheck, Verified};
use super::error::VerifyError;
use super::hash::identity;
use super::verifier::Verifier;
use super::{header, timestamp};
use crate::api::{HttpMessageSignatures, SignatureAlgorithm};
use crate::domain::invalid_field::InvalidField;

mod base;
mod digest;
#[cfg(fuzzing)]
pub mod fuzzing;
mod reader;
mod structured;
#[cfg(test)]
mod tests;

/// What a signature must cover, and by which algorithm.
#[derive(Clone, Debug)]
pub struct Rules {
    algorithm: SignatureAlgorithm,
    components: Vec<String>,
    tag: Option<String>,
}

impl Rules {
    /// Compiles a spec.
    ///
    /// # Errors
    /// Names the field that is invalid, and says what to write instead.
    pub fn new(spec: &HttpMessageSignatures) -> Result<Self, InvalidField> {
        let HttpMessageSignatures { algorithm, components, tag } = spec.clone();
        match components.iter().find(|name| HeaderName::from_lowercase(name.as_bytes()).is_err()) {
            Some(name) => Err(InvalidField::new(
                "components",
                format!("{name} is not the name of a header; write it in lower case"),
            )),
            None => Ok(Self { algorithm, components, tag }),
        }
    }

    /// The only algorithm that is accepted.
    pub(super) fn algorithm(&self) -> SignatureAlgorithm {
        self.algorithm
    }

    /// The signature to verify: the only one or, with a required tag, the only one with that tag.
    fn choose<'a>(&self, inputs: Vec<(&'a str, InnerList<'a>)>) -> Result<Signature<'a>, VerifyError> {
        let mut chosen = None;
        for (label, covered) in inputs {
            let Some(tag) = &self.tag else {
                if chosen.replace((label, covered)).is_some() {
                    return Err(VerifyError::MalformedHeader);
                }
                continue;
            };
            let tagged = covered.parameters.iter().any(|(name, value)| match value {
                Value::Text(text) => *name == "tag" && text.is(tag),
                _ => false,
            });
            if tagged && chosen.replace((label, covered)).is_some() {
                return Err(VerifyError::MalformedHeader);
            }
        }
        let (label, covered) = chosen.ok_or(VerifyError::NotCovered)?;
        Signature::new(label, covered)
    }

    /// Whether everything is covered that must be.
    fn are_covered_by(&self, covered: &InnerList<'_>) -> bool {
        let covers = |wanted: &str| covered.items.iter().any(|item| plain_name(item) == Some(wanted));
        covers("@method")
            && (covers("@target-uri") || covers("@authority") && covers("@path"))
            && covers("content-digest")
            && self.components.iter().all(|name| covers(name))
    }

    fn algorithm_name(&self) -> &'static str {
        match self.algorithm {
            SignatureAlgorithm::HmacSha256 => "hmac-sha256",
            SignatureAlgorithm::Ed25519 => "ed25519",
            SignatureAlgorithm::EcdsaP256Sha256 => "ecdsa-p256-sha256",
            SignatureAlgorithm::RsaPssSha512 => "rsa-pss-sha512",
        }
    }

    /// Whether the signature is of this key, by the algorithm of the endpoint.
    fn verify(&self, material: &Verifier, base: &[u8], signature: &[Vec<u8>]) -> bool {
        match (self.algorithm, material) {
            (SignatureAlgorithm::HmacSha256, Verifier::Mac(key)) => key.verifies(HMAC_SHA256, &[base], signature),
            (SignatureAlgorithm::Ed25519, Verifier::Ed25519(key))
            | (SignatureAlgorithm::EcdsaP256Sha256, Verifier::EcdsaP256(key))
            | (SignatureAlgorithm::RsaPssSha512, Verifier::RsaPss(key)) => {
                signature.iter().any(|signature| key.verify_sig(base, signature).is_ok())
            }
            _ => false,
        }
    }
}

/// One signature, with the parameters that the standard knows.
struct Signature<'a> {
    label: &'a str,
    covered: InnerList<'a>,
    created: i64,
    expires: Option<i64>,
    nonce: Option<Text<'a>>,
    algorithm: Option<Text<'a>>,
    key_id: Option<Text<'a>>,
}

impl<'a> Signature<'a> {
    /// Unknown parameters are refused: they could restrict what the signature means.
    fn new(label: &'a str, covered: InnerList<'a>) -> Result<Self, VerifyError> {
        let (mut created, mut expires, mut nonce, mut algorithm, mut key_id) = (None, None, None, None, None);
        for (name, value) in &covered.parameters {
            match (*name, value) {
                ("created", Value::Integer(time)) => created = Some(*time),
                ("expires", Value::Integer(time)) => expires = Some(*time),
                ("nonce", Value::Text(text)) => nonce = Some(*text),
                ("alg", Value::Text(text)) => algorithm = Some(*text),
                ("keyid", Value::Text(text)) => key_id = Some(*text),
                ("tag", Value::Text(_)) => {}
                _ => return Err(VerifyError::MalformedHeader),
            }
        }
        let created = created.ok_or(VerifyError::NotCovered)?;
        Ok(Self { label, covered, created, expires, nonce, algorithm, key_id })
    }
}

/// Verifies a request.
pub(super) fn verify(check: &SignatureCheck<'_>, rules: &Rules) -> Result<Verified, VerifyError> {
    let inputs = inner_lists(check.header("signature-input")?).ok_or(VerifyError::MalformedHeader)?;
    let signatures = byte_sequences(check.header("signature")?).ok_or(VerifyError::MalformedHeader)?;
    let chosen = rules.choose(inputs)?;
    let mut labelled = signatures.into_iter().filter(|(label, _)| *label == chosen.label);
    let signature = [labelled.next().ok_or(VerifyError::MissingHeader)?.1];
    if chosen.algorithm.is_some_and(|name| !name.is(rules.algorithm_name())) {
        return Err(VerifyError::WrongAlgorithm);
    }
    if !rules.are_covered_by(&chosen.covered) {
        return Err(VerifyError::NotCovered);
    }
    let signed_at = timestamp::within(timestamp::from_seconds(chosen.created)?, check.window, check.now)?;
    if let Some(end) = chosen.expires
        && check.now >= timestamp::from_seconds(end)?
    {
        return Err(VerifyError::TooOld);
    }
    let delivery_id = chosen.nonce.and_then(Text::plain).map(header::id).transpose()?.map(str::to_owned);
    let base = signature_base(check.request, &chosen.covered)?;
    // The key ID is a hint: the caller may know the key by another name than the Secret.
    let named = check.live_keys().any(|key| chosen.key_id.is_some_and(|id| id.is(&key.id)));
    let signer = check.signer(|key| {
        let meant = !named || chosen.key_id.is_some_and(|id| id.is(&key.id));
        meant && rules.verify(&key.verifier, base.as_bytes(), &signature)
    })?;
    digest::check(check.request)?;
    Ok(Verified {
        key_id: signer.id.clone(),
        delivery_id,
        signed_at: Some(signed_at),
        identity: identity("http-message-signatures", &[base.as_bytes()]),
    })
}
