//! A key in the form that verifies signatures, read from one entry of the key Secret.

use std::fmt;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac::{Algorithm, Context, Key as HmacKey};
use aws_lc_rs::rsa::PublicEncryptingKey;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ED25519, ParsedPublicKey, RSA_PSS_2048_8192_SHA512};
use rustls_pki_types::SubjectPublicKeyInfoDer;
use rustls_pki_types::pem::PemObject;
use zeroize::Zeroizing;

use super::error::InvalidKey;
use super::hash::sha256;
use crate::api::SignatureAlgorithm;
use crate::edge::jose::KeySet;
use crate::edge::{encoding, work};

/// Maximum number of signatures by public keys in one request: unlike a MAC, each is verified for every key.
pub(super) const MAX_PUBLIC_KEY_SIGNATURES: usize = 4;
/// Minimum length of a secret, in bytes: a shorter one can be guessed.
const MIN_SECRET: usize = 16;

/// A key that verifies signatures. It cannot be printed.
pub enum Verifier {
    /// Key of a MAC.
    Mac(MacKey),
    /// A public key for Ed25519.
    Ed25519(ParsedPublicKey),
    /// A public key for ECDSA with P-256 and SHA-256.
    EcdsaP256(ParsedPublicKey),
    /// A public key for RSA-PSS with SHA-512.
    RsaPss(ParsedPublicKey),
    /// A password.
    Token(Token),
    /// Public keys of an issuer of JWTs.
    Jwks(KeySet),
}

impl Verifier {
    /// Reads a key of Standard Webhooks.
    ///
    /// # Errors
    /// Says what to write instead, and never repeats the key.
    pub(super) fn standard_webhooks(text: &[u8]) -> Result<Self, InvalidKey> {
        standard_webhooks(line(text))
    }

    /// Reads the shared secret of a MAC.
    ///
    /// # Errors
    /// Says what to write instead, and never repeats the key.
    pub(super) fn mac(text: &[u8]) -> Result<Self, InvalidKey> {
        MacKey::new(line(text)).map(Self::Mac)
    }

    /// Reads a password.
    ///
    /// # Errors
    /// Says what to write instead, and never repeats the key.
    pub(super) fn token(text: &[u8]) -> Result<Self, InvalidKey> {
        Token::new(line(text)).map(Self::Token)
    }

    /// Reads a public key in PEM.
    ///
    /// # Errors
    /// Says what to write instead, and never repeats the key.
    pub(super) fn public_key(algorithm: SignatureAlgorithm, text: &[u8]) -> Result<Self, InvalidKey> {
        public_key(algorithm, text)
    }

    /// What it takes at most to try this key on a request with a body of this length, in bytes that are hashed in the same time.
    #[must_use]
    pub fn work(&self, length: usize) -> usize {
        match self {
            Self::Mac(_) => length,
            Self::Token(_) => 0,
            Self::Ed25519(_) | Self::EcdsaP256(_) => MAX_PUBLIC_KEY_SIGNATURES * (length + work::ELLIPTIC),
            Self::RsaPss(_) => length + work::rsa(work::MAX_RSA_KEY),
            Self::Jwks(keys) => length + keys.work(),
        }
    }

    /// Reads the public keys of an issuer of JWTs.
    ///
    /// # Errors
    /// Says what to write instead, and never repeats the key.
    pub fn jwks(text: &[u8]) -> Result<Self, InvalidKey> {
        Ok(Self::Jwks(KeySet::parse(text)?))
    }
}

/// Without the line break that editors put at the end.
fn line(text: &[u8]) -> &[u8] {
    text.strip_suffix(b"\n").unwrap_or(text)
}

impl fmt::Debug for Verifier {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Verifier(redacted)")
    }
}

/// Key of a MAC. It is wiped from memory when it is dropped.
pub struct MacKey(Zeroizing<Vec<u8>>);

impl MacKey {
    fn new(bytes: &[u8]) -> Result<Self, InvalidKey> {
        if bytes.len() < MIN_SECRET {
            return Err(InvalidKey::new(format!(
                "the key is too short to be safe; write at least {MIN_SECRET} bytes, at best 32 random ones"
            )));
        }
        Ok(Self(Zeroizing::new(bytes.to_vec())))
    }

    /// Without the minimum length, for published examples.
    #[cfg(test)]
    pub(super) fn for_tests(bytes: &[u8]) -> Self {
        Self(Zeroizing::new(bytes.to_vec()))
    }

    /// Whether one of these is the MAC of the concatenated parts. All are compared, each in constant time.
    pub(super) fn verifies(&self, algorithm: Algorithm, parts: &[&[u8]], macs: &[Vec<u8>]) -> bool {
        let mut context = Context::with_key(&HmacKey::new(algorithm, &self.0));
        for part in parts {
            context.update(part);
        }
        let tag = context.sign();
        macs.iter().fold(false, |found, mac| found | verify_slices_are_equal(tag.as_ref(), mac).is_ok())
    }
}

/// A password. Only its hash is stored and compared, so that the time taken does not reveal even its length.
pub struct Token([u8; 32]);

impl Token {
    fn new(bytes: &[u8]) -> Result<Self, InvalidKey> {
        if bytes.len() < MIN_SECRET || !bytes.iter().all(u8::is_ascii_graphic) {
            return Err(InvalidKey::new(format!(
                "the token cannot be used; write at least {MIN_SECRET} visible ASCII characters, at best 32 random ones"
            )));
        }
        Ok(Self(sha256(&[bytes])))
    }

    /// Whether this is the password.
    pub(super) fn matches(&self, token: &str) -> bool {
        verify_slices_are_equal(&self.0, &sha256(&[token.as_bytes()])).is_ok()
    }
}

fn standard_webhooks(line: &[u8]) -> Result<Verifier, InvalidKey> {
    const EXPECTED: &str =
        "write whsec_ and the base64 of 24 to 64 random bytes, or whpk_ and the base64 of the Ed25519 public key";
    let text = std::str::from_utf8(line)
        .map_err(|_| InvalidKey::new(format!("not a key of Standard Webhooks; {EXPECTED}")))?;
    let decode = |base64| {
        encoding::base64(base64).map(Zeroizing::new).ok_or_else(|| InvalidKey::new(format!("not base64; {EXPECTED}")))
    };
    if let Some(secret) = text.strip_prefix("whsec_") {
        let bytes = decode(secret)?;
        if !(24..=64).contains(&bytes.len()) {
            return Err(InvalidKey::new(format!("the key has the wrong length; {EXPECTED}")));
        }
        Ok(Verifier::Mac(MacKey(bytes)))
    } else if let Some(public) = text.strip_prefix("whpk_") {
        let bytes = decode(public)?;
        let length = (bytes.len() == 32).then_some(&bytes);
        let key = length.and_then(|bytes| ParsedPublicKey::new(&ED25519, bytes.as_slice()).ok());
        key.map(Verifier::Ed25519).ok_or_else(|| InvalidKey::new(format!("not an Ed25519 public key; {EXPECTED}")))
    } else if text.starts_with("whsk_") {
        Err(InvalidKey::new(format!("that is the sender's private key, which nobody else may have; {EXPECTED}")))
    } else {
        Err(InvalidKey::new(format!("not a key of Standard Webhooks; {EXPECTED}")))
    }
}

fn public_key(algorithm: SignatureAlgorithm, pem: &[u8]) -> Result<Verifier, InvalidKey> {
    const EXPECTED: &str = "write one public key in PEM, beginning with -----BEGIN PUBLIC KEY-----";
    let mut found = SubjectPublicKeyInfoDer::pem_slice_iter(pem);
    let (Some(Ok(der)), None) = (found.next(), found.next()) else {
        return Err(InvalidKey::new(format!("not a public key; {EXPECTED}")));
    };
    let parse = |algorithm, what| {
        ParsedPublicKey::new(algorithm, der.as_ref())
            .map_err(|_| InvalidKey::new(format!("not a public key for {what}; {EXPECTED}")))
    };
    match algorithm {
        SignatureAlgorithm::Ed25519 => parse(&ED25519, "Ed25519").map(Verifier::Ed25519),
        SignatureAlgorithm::EcdsaP256Sha256 => {
            parse(&ECDSA_P256_SHA256_FIXED, "ECDSA with P-256").map(Verifier::EcdsaP256)
        }
        SignatureAlgorithm::RsaPssSha512 => {
            PublicEncryptingKey::from_der(&der)
                .map_err(|_| InvalidKey::new(format!("not an RSA key of 2048 to 8192 bits; {EXPECTED}")))?;
            parse(&RSA_PSS_2048_8192_SHA512, "RSA-PSS").map(Verifier::RsaPss)
        }
        SignatureAlgorithm::HmacSha256 => Err(InvalidKey::new("HMAC has no public key")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{HttpMessageSignatures, Verification};
    use crate::edge::webhook::verify::scheme::Scheme;

    fn signatures(algorithm: SignatureAlgorithm) -> Scheme {
        let spec = HttpMessageSignatures { algorithm, components: vec![], tag: None };
        Scheme::new(&Verification { http_message_signatures: Some(spec), ..Verification::default() }).unwrap()
    }

    fn refused(scheme: &Scheme, text: &str) -> String {
        let why = scheme.parse_key(text.as_bytes()).unwrap_err().to_string();
        assert!(text.is_empty() || !why.contains(text.trim_end()), "{why}");
        assert!(why.contains("write"), "{why}");
        why
    }

    #[test]
    fn a_secret_is_long_enough_and_loses_one_line_break() {
        for scheme in [Scheme::Github, Scheme::Stripe, signatures(SignatureAlgorithm::HmacSha256)] {
            assert!(refused(&scheme, "0123456789abcde\n").contains("16 bytes"));
            refused(&scheme, "");
            let Ok(Verifier::Mac(key)) = scheme.parse_key(b"0123456789abcde\n\n") else { panic!() };
            assert_eq!(*key.0, b"0123456789abcde\n");
        }
        assert!(Scheme::Slack.parse_key(&[255; 16]).is_ok());
    }

    #[test]
    fn a_token_fits_into_a_header() {
        assert!(Scheme::Gitlab.parse_key(b"0123456789abcdef\n").is_ok());
        for wrong in ["0123456789abcde", "0123456789 abcdef", "0123456789abcdef\n\n", "0123456789abcd\u{e4}f"] {
            refused(&Scheme::Gitlab, wrong);
        }
    }

    #[test]
    fn keys_of_standard_webhooks_are_as_the_standard_has_them() {
        let of = |bytes: &[u8]| encoding::to_base64(bytes);
        let parse = |text: &str| Scheme::StandardWebhooks.parse_key(text.as_bytes());
        for length in [24, 64] {
            assert!(matches!(parse(&format!("whsec_{}\n", of(&vec![7; length]))), Ok(Verifier::Mac(_))));
        }
        let base_point = [&[0x58][..], &[0x66; 31]].concat();
        assert!(matches!(parse(&format!("whpk_{}", of(&base_point))), Ok(Verifier::Ed25519(_))));
        for wrong in [
            &format!("whsec_{}", of(&[7; 23])),
            &format!("whsec_{}", of(&[7; 65])),
            &format!("whpk_{}", of(&base_point[1..])),
            &format!("whsec_{} ", of(&[7; 32])),
            &of(&[7; 32]),
            "whsec_*",
        ] {
            refused(&Scheme::StandardWebhooks, wrong);
        }
        assert!(refused(&Scheme::StandardWebhooks, &format!("whsk_{}", of(&[7; 64]))).contains("private"));
    }

    #[test]
    fn a_public_key_is_one_of_the_right_algorithm() {
        let pem = |key: &rcgen::KeyPair| key.public_key_pem();
        let p256 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let p384 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
        let ed25519 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let by_ecdsa = signatures(SignatureAlgorithm::EcdsaP256Sha256);
        let by_ed25519 = signatures(SignatureAlgorithm::Ed25519);
        let by_rsa = signatures(SignatureAlgorithm::RsaPssSha512);
        assert!(matches!(by_ecdsa.parse_key(pem(&p256).as_bytes()), Ok(Verifier::EcdsaP256(_))));
        assert!(matches!(by_ed25519.parse_key(pem(&ed25519).as_bytes()), Ok(Verifier::Ed25519(_))));
        refused(&by_ecdsa, &pem(&p384));
        refused(&by_ecdsa, &pem(&ed25519));
        refused(&by_ed25519, &pem(&p256));
        refused(&by_rsa, &pem(&p256));
        refused(&by_ecdsa, &format!("{}{}", pem(&p256), pem(&p256)));
        refused(&by_ecdsa, &p256.serialize_pem());
        refused(&by_ecdsa, "0123456789abcdef");
    }

    #[test]
    fn an_rsa_key_of_1024_bits_is_refused() {
        let short = "-----BEGIN PUBLIC KEY-----\nMIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDkazrJnsZaxvPSkt7Kvx+Ncm1j\n425tr4/kRF+TpdR/lTcIUDFcAOPcQXM30P8ROegnVthXoPKUvzVbm5LnYdde7PPf\nveSf5r9iCOHgresEOBe8ApiPfgnCrWKMGyV9aDeN5dv42lj1oKpXHmt6K5uPegsW\nCRWhKZK2ijePin5pzwIDAQAB\n-----END PUBLIC KEY-----\n";
        assert!(refused(&signatures(SignatureAlgorithm::RsaPssSha512), short).contains("2048"));
    }

    #[test]
    fn nothing_of_it_is_printed() {
        let material = Scheme::Github.parse_key(b"0123456789abcdef").unwrap();
        assert_eq!(format!("{material:?}"), "Verifier(redacted)");
    }
}
