//! The issuer `ca`: an intermediate that the platform team provides in a Secret.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::ByteString;

use super::IssuerError;
use super::authority::SigningAuthority;
use super::pem;
use crate::domain::secret::SecretText;

/// Reads an authority from the data of a Secret, and adds more roots to its trust bundle.
///
/// # Errors
/// The entry of the Secret that is missing or invalid, with the cause.
pub fn load(
    data: &BTreeMap<String, ByteString>,
    additional_roots: &[String],
    now: Timestamp,
) -> Result<SigningAuthority, IssuerError> {
    let entry = |key: &str| {
        data.get(key).map(|value| value.0.as_slice()).ok_or_else(|| {
            IssuerError::Invalid(format!("the entry {key} is missing; the Secret needs tls.crt, tls.key and ca.crt"))
        })
    };
    let chain = pem::certificates(entry("tls.crt")?, "tls.crt")?;
    let key = String::from_utf8(entry("tls.key")?.to_vec())
        .map_err(|_| IssuerError::Invalid("tls.key: not PEM text".into()))?;
    let mut roots = pem::certificates(entry("ca.crt")?, "ca.crt")?;
    for (index, text) in additional_roots.iter().enumerate() {
        let what = format!("spec.bundle.additionalRoots[{index}]");
        for root in pem::certificates(text.as_bytes(), &what)? {
            if !root.is_authority {
                return Err(IssuerError::Invalid(format!("{what}: not the certificate of an authority")));
            }
            if roots.iter().all(|known| known.der != root.der) {
                roots.push(root);
            }
        }
    }
    SigningAuthority::new(chain, &SecretText::new(key), roots, now)
}
