//! What is in a token, and what is refused.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaKeyPair,
};
use serde_json::{Value, json};

use super::*;
use crate::api::Verification;
use crate::edge::jose::testing::{Issuer, claiming as replaced, encode};
use crate::edge::webhook::verify::scheme::Scheme;
use crate::edge::webhook::verify::testing::{Request, at, key, refused_when_altered};

const NOW: i64 = 1_700_000_000;
const BODY: &str = r#"{"a":1}"#;

fn scheme(subject: Option<&str>) -> Scheme {
    let spec = JwtVerification {
        issuer: "https://issuer.example".into(),
        audience: "hooks".into(),
        subject: subject.map(str::to_owned),
    };
    Scheme::new(&Verification { jwt: Some(spec), ..Verification::default() }).unwrap()
}

fn jwks() -> String {
    Issuer::new(3).jwks()
}

fn claims() -> Value {
    json!({
        "iss": "https://issuer.example",
        "aud": "hooks",
        "sub": "shop",
        "iat": NOW,
        "exp": NOW + 300,
        "jti": "j-1",
        "body_sha256": encode(sha256(&[BODY.as_bytes()])),
    })
}

/// A claim set with one claim replaced, or removed by null.
fn with(name: &str, value: Value) -> Value {
    replaced(claims(), name, value)
}

fn carrying(token: &str) -> Request {
    Request::post(BODY).header("authorization", &format!("Bearer {token}"))
}

fn token(header: &str, claims: &str) -> String {
    Issuer::new(3).token(header, claims)
}

fn verify(request: &Request) -> Result<Verified, VerifyError> {
    let scheme = scheme(Some("shop"));
    request.verify(&scheme, &[key(&scheme, jwks())], NOW)
}

fn claiming(claims: &Value) -> Result<Verified, VerifyError> {
    verify(&carrying(&token(r#"{"alg":"EdDSA"}"#, &claims.to_string())))
}

#[test]
fn a_token_of_the_issuer_is_verified() {
    let verified = claiming(&claims()).unwrap();
    assert_eq!(verified.delivery_id.as_deref(), Some("j-1"));
    assert_eq!(verified.signed_at, Some(at(NOW)));
    let again = claiming(&with("exp", (NOW + 200).into())).unwrap();
    assert_eq!(again.identity, verified.identity);
    assert_ne!(claiming(&with("jti", "j-2".into())).unwrap().identity, verified.identity);
}

#[test]
fn whatever_is_altered_is_refused() {
    let example = carrying(&token(r#"{"alg":"EdDSA","kid":"k1"}"#, &claims().to_string()));
    refused_when_altered(&example, &["authorization"], verify);
    assert_eq!(verify(&Request { body: b"{}".into(), ..example }), Err(VerifyError::WrongDigest));
}

#[test]
fn claims_are_those_of_the_endpoint() {
    for good in [with("aud", json!(["other", "hooks"])), with("exp", (NOW + 3600).into()), with("nbf", NOW.into())] {
        assert!(claiming(&good).is_ok(), "{good}");
    }
    for wrong in [
        with("iss", "https://other.example".into()),
        with("aud", "other".into()),
        with("aud", json!(["other"])),
        with("aud", json!([])),
        with("sub", "other".into()),
        with("sub", Value::Null),
        with("iss", Value::Null),
        with("aud", Value::Null),
        with("iat", Value::Null),
        with("exp", Value::Null),
        with("jti", Value::Null),
        with("body_sha256", Value::Null),
        with("jti", "".into()),
        with("jti", "a".repeat(257).into()),
        with("jti", "a b".into()),
        with("jti", 1.into()),
        with("iat", "1700000000".into()),
        with("iat", 1_700_000_000.5.into()),
        with("exp", (NOW + 3601).into()),
        with("exp", NOW.into()),
        with("exp", i64::MIN.into()),
        with("body_sha256", "not base64".into()),
    ] {
        assert_eq!(claiming(&wrong), Err(VerifyError::WrongClaims), "{wrong}");
    }
    assert_eq!(claiming(&with("body_sha256", "".into())), Err(VerifyError::WrongDigest));
    let twice = claims().to_string().replace(r#""jti":"j-1""#, r#""jti":"j-1","jti":"j-2""#);
    assert_eq!(verify(&carrying(&token(r#"{"alg":"EdDSA"}"#, &twice))), Err(VerifyError::WrongClaims));
    let any_subject = scheme(None);
    let other = carrying(&token(r#"{"alg":"EdDSA"}"#, &with("sub", Value::Null).to_string()));
    assert!(other.verify(&any_subject, &[key(&any_subject, jwks())], NOW).is_ok());
}

#[test]
fn a_token_is_fresh() {
    let issued = |iat: i64, exp: i64| {
        let mut claims = with("iat", iat.into());
        claims["exp"] = exp.into();
        claiming(&claims).map(|_| ())
    };
    assert_eq!(issued(NOW - 300, NOW + 1), Ok(()));
    assert_eq!(issued(NOW - 301, NOW + 1), Err(VerifyError::TooOld));
    assert_eq!(issued(NOW + 60, NOW + 120), Ok(()));
    assert_eq!(issued(NOW + 61, NOW + 120), Err(VerifyError::TooNew));
    assert_eq!(issued(NOW - 10, NOW), Err(VerifyError::TooOld));
    assert_eq!(claiming(&with("nbf", (NOW + 61).into())), Err(VerifyError::TooNew));
}

#[test]
fn a_token_chooses_no_algorithm() {
    let claims = claims().to_string();
    let headed = |header: &str| verify(&carrying(&token(header, &claims)));
    for algorithm in ["none", "None", "HS256", "HS512", "ES384", "eddsa", "RS512", ""] {
        let header = json!({"alg": algorithm}).to_string();
        assert_eq!(headed(&header), Err(VerifyError::WrongAlgorithm), "{algorithm}");
    }
    for algorithm in ["ES256", "RS256", "PS256"] {
        let header = json!({"alg": algorithm}).to_string();
        assert_eq!(headed(&header), Err(VerifyError::WrongSignature), "{algorithm}");
    }
    assert_eq!(headed(r#"{"alg":"EdDSA","kid":"k2"}"#), Err(VerifyError::WrongSignature));
    assert_eq!(headed(r#"{"alg":"EdDSA","crit":["b64"],"b64":false}"#), Err(VerifyError::MalformedHeader));
    assert_eq!(headed(r#"{"alg":"EdDSA","alg":"EdDSA"}"#), Err(VerifyError::MalformedHeader));
    assert_eq!(headed("{}"), Err(VerifyError::MalformedHeader));
    let own_key = json!({"alg": "EdDSA", "jwk": {"kty": "OKP"}, "jku": "https://evil.example"}).to_string();
    assert!(headed(&own_key).is_ok(), "what a header says of keys is never followed");
    let unsigned = format!("{}.{}.", encode(r#"{"alg":"EdDSA"}"#), encode(&claims));
    assert_eq!(verify(&carrying(&unsigned)), Err(VerifyError::WrongSignature));
}

#[test]
fn a_token_is_written_in_one_way() {
    let good = token(r#"{"alg":"EdDSA"}"#, &claims().to_string());
    for wrong in [
        format!("Basic {good}"),
        format!("bearer {good}"),
        format!("Bearer  {good}"),
        format!("Bearer {good}="),
        format!("Bearer {good}.{good}"),
        "Bearer a.b".into(),
        "Bearer".into(),
        "Bearer ...".into(),
    ] {
        let request = Request::post(BODY).header("authorization", &wrong);
        assert_eq!(verify(&request), Err(VerifyError::MalformedHeader), "{wrong}");
    }
}

#[test]
fn every_algorithm_is_verified_by_its_own_key_only() {
    let random = SystemRandom::new();
    let rsa = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let p256 = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let (n, e) = (rsa.public_key().modulus(), rsa.public_key().exponent());
    let (n, e) = (encode(n.big_endian_without_leading_zero()), encode(e.big_endian_without_leading_zero()));
    let point = p256.public_key().as_ref();
    let (x, y) = (encode(&point[1..33]), encode(&point[33..]));
    let sets = [
        ("ES256", json!({"kty": "EC", "crv": "P-256", "x": x, "y": y})),
        ("RS256", json!({"kty": "RSA", "alg": "RS256", "n": n, "e": e})),
        ("PS256", json!({"kty": "RSA", "alg": "PS256", "n": n, "e": e})),
    ];
    let scheme = scheme(None);
    for (algorithm, _) in &sets {
        let signed = format!("{}.{}", encode(json!({"alg": algorithm}).to_string()), encode(claims().to_string()));
        let mut signature = vec![0; 256];
        match *algorithm {
            "RS256" => rsa.sign(&RSA_PKCS1_SHA256, &random, signed.as_bytes(), &mut signature).unwrap(),
            "PS256" => rsa.sign(&RSA_PSS_SHA256, &random, signed.as_bytes(), &mut signature).unwrap(),
            _ => signature = p256.sign(&random, signed.as_bytes()).unwrap().as_ref().to_vec(),
        }
        let request = carrying(&format!("{signed}.{}", encode(signature)));
        for (of_key, jwk) in &sets {
            let keys = [key(&scheme, json!({"keys": [jwk]}).to_string())];
            let verified = request.verify(&scheme, &keys, NOW).map(|_| ());
            let expected = if of_key == algorithm { Ok(()) } else { Err(VerifyError::WrongSignature) };
            assert_eq!(verified, expected, "{algorithm} by a key for {of_key}");
        }
    }
}
