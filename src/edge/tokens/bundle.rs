//! The trust bundle of a trust domain as SPIFFE federation has it: a JWK Set with an authority in each key (SPIFFE Trust Domain and
//! Bundle, section 4). Pure.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::{Value, json};
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::public_key::PublicKey;

/// How often others may ask for it, in seconds.
const REFRESH: u32 = 300;
/// Length of a coordinate, by curve: P-256, P-384 and P-521 (RFC 7518 section 6.2.1).
const CURVES: [(&str, usize); 3] = [("P-256", 32), ("P-384", 48), ("P-521", 66)];

/// The bundle with these authorities, in PEM. `None` when one of them has a key that a JWK cannot have. Its sequence number grows with
/// every change.
pub fn document(authorities: &str, sequence: u64) -> Option<Value> {
    let keys = CertificateDer::pem_slice_iter(authorities.as_bytes()).map(|authority| key(&authority.ok()?));
    let keys: Vec<Value> = keys.collect::<Option<_>>()?;
    Some(json!({"spiffe_sequence": sequence, "spiffe_refresh_hint": REFRESH, "keys": keys}))
}

fn key(authority: &CertificateDer<'_>) -> Option<Value> {
    let (_, certificate) = X509Certificate::from_der(authority).ok()?;
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let key = certificate.public_key();
    let mut jwk = match key.parsed() {
        Ok(PublicKey::EC(point)) => {
            let coordinates = point.data().strip_prefix(&[4])?;
            let (x, y) = coordinates.split_at(coordinates.len() / 2);
            let (curve, _) = CURVES.iter().find(|(_, length)| x.len() == *length && y.len() == *length)?;
            json!({"kty": "EC", "crv": curve, "x": encode(x), "y": encode(y)})
        }
        Ok(PublicKey::RSA(rsa)) => {
            let significant = |number: &[u8]| encode(&number[number.iter().take_while(|byte| **byte == 0).count()..]);
            json!({"kty": "RSA", "n": significant(rsa.modulus), "e": significant(rsa.exponent)})
        }
        // Ed25519 (RFC 8410) is none of the keys that the parser knows.
        _ if key.algorithm.algorithm.to_id_string() == "1.3.101.112" => {
            json!({"kty": "OKP", "crv": "Ed25519", "x": encode(&key.subject_public_key.data)})
        }
        _ => return None,
    };
    jwk["use"] = "x509-svid".into();
    jwk["x5c"] = json!([STANDARD.encode(authority)]);
    Some(jwk)
}

#[cfg(test)]
mod tests {
    use rcgen::{
        CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256,
    };

    use super::*;

    #[test]
    fn every_authority_is_a_key() {
        let algorithms = [&PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384, &PKCS_ED25519, &PKCS_RSA_SHA256];
        let certificates = algorithms.map(|algorithm| {
            let key = KeyPair::generate_for(algorithm).unwrap();
            CertificateParams::new([]).unwrap().self_signed(&key).unwrap()
        });
        let pem: String = certificates.iter().map(rcgen::Certificate::pem).collect();
        let bundle = document(&pem, 7).unwrap();
        assert_eq!((&bundle["spiffe_sequence"], &bundle["spiffe_refresh_hint"]), (&json!(7), &json!(300)));
        let keys = bundle["keys"].as_array().unwrap();
        let kinds: Vec<&str> = keys.iter().map(|key| key["kty"].as_str().unwrap()).collect();
        assert_eq!(kinds, ["EC", "EC", "OKP", "RSA"]);
        assert_eq!(keys[1]["crv"], "P-384");
        for (key, certificate) in keys.iter().zip(&certificates) {
            assert_eq!((&key["use"], key["x5c"].as_array().unwrap().len()), (&json!("x509-svid"), 1));
            assert_eq!(STANDARD.decode(key["x5c"][0].as_str().unwrap()).unwrap(), certificate.der().as_ref());
        }
        assert_eq!(keys[3]["e"], "AQAB");
        assert_eq!(document("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", 1), None);
    }
}
