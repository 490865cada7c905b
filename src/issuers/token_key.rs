//! Keys that access tokens are signed with: ECDSA on P-256.

use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};

use super::IssuerError;
use crate::domain::jwk::P256PublicKey;
use crate::domain::secret::SecretText;

/// Makes a key. Returns its ID, which is the thumbprint of the public key, and the private key in PEM (PKCS#8).
///
/// # Errors
/// When the library fails.
pub fn make() -> Result<(String, SecretText), IssuerError> {
    let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let public = P256PublicKey::from_point(pair.der_bytes());
    let public = public.ok_or_else(|| IssuerError::Invalid("the library made no key on P-256".into()))?;
    Ok((public.thumbprint(), SecretText::new(pair.serialize_pem())))
}
