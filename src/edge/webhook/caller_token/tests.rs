//! Tokens that authenticate an allowed caller, and all others.

use http::HeaderValue;
use http::header::AUTHORIZATION;
use jiff::SignedDuration;
use serde_json::{Value, json};

use super::*;
use crate::domain::secret::SecretText;
use crate::edge::jose::testing::{Issuer, claiming, encode};
use crate::edge::webhook::verify::testing::at;

const NOW: i64 = 1_700_000_000;
const WINDOW: Window = Window { past: SignedDuration::from_mins(5), future: SignedDuration::from_mins(1) };
const HEADER: &str = r#"{"alg":"EdDSA","kid":"k1"}"#;

fn issuer() -> Issuer {
    Issuer::new(3)
}

fn key(id: &str, issuer: &Issuer) -> Key {
    let verifier = Verifier::jwks(issuer.jwks().as_bytes()).unwrap();
    Key { id: id.into(), not_before: None, not_after: None, verifier }
}

fn policy(keys: Vec<Key>) -> CallerTokenPolicy {
    let spec = json!({
        "issuer": "https://issuer.example",
        "audience": "hooks",
        "subjects": ["shop", "repo:org/shop:ref:refs/heads/main"],
        "secretRef": {"name": "issuer"},
    });
    CallerTokenPolicy::new(&serde_json::from_value(spec).unwrap(), keys, WINDOW)
}

fn claims() -> Value {
    json!({"iss": "https://issuer.example", "aud": "hooks", "sub": "shop", "iat": NOW - 60, "exp": NOW + 300})
}

fn with(name: &str, value: impl Into<Value>) -> Value {
    claiming(claims(), name, value.into())
}

/// The result for these values of the header.
fn says(policy: &CallerTokenPolicy, values: &[&str]) -> Result<String, Reason> {
    let headers = values.iter().map(|value| (AUTHORIZATION, HeaderValue::from_str(value).unwrap())).collect();
    policy.authenticate(&headers, at(NOW))
}

fn of_token(token: &str) -> Result<String, Reason> {
    says(&policy(vec![key("one", &issuer())]), &[&format!("Bearer {token}")])
}

fn of_claims(claims: &Value) -> Result<String, Reason> {
    of_token(&issuer().token(HEADER, &claims.to_string()))
}

fn of_header(header: &Value) -> Result<String, Reason> {
    of_token(&issuer().token(&header.to_string(), &claims().to_string()))
}

#[test]
fn a_token_says_who_calls() {
    assert_eq!(of_claims(&claims()).as_deref(), Ok("jwt:https://issuer.example#shop"));
    for good in [
        with("sub", "repo:org/shop:ref:refs/heads/main"),
        with("aud", json!(["other", "hooks"])),
        with("iat", NOW - 3299),
        with("nbf", NOW + 60),
        with("iat", NOW + 60),
        with("exp", NOW + 1),
        with("jti", 7),
    ] {
        assert!(of_claims(&good).is_ok(), "{good}");
    }
}

#[test]
fn a_token_of_somebody_else_is_of_the_wrong_source() {
    for wrong in [
        with("iss", "https://other.example"),
        with("iss", "https://issuer.example/"),
        with("aud", "other"),
        with("aud", json!(["other"])),
        with("aud", json!([])),
        with("sub", "Shop"),
        with("sub", "shop#x"),
        with("sub", ""),
        with("sub", Value::Null),
    ] {
        assert_eq!(of_claims(&wrong), Err(Reason::WrongSource), "{wrong}");
    }
    let nobody =
        json!({"issuer": "https://issuer.example", "audience": "hooks", "subjects": [], "secretRef": {"name": "a"}});
    let nobody = CallerTokenPolicy::new(&serde_json::from_value(nobody).unwrap(), vec![key("one", &issuer())], WINDOW);
    let token = issuer().token(HEADER, &with("sub", Value::Null).to_string());
    assert_eq!(says(&nobody, &[&format!("Bearer {token}")]), Err(Reason::WrongSource));
}

#[test]
fn a_token_is_valid_now_and_not_for_long() {
    let lasting = |iat: i64, exp: i64| of_claims(&claiming(with("iat", iat), "exp", exp.into())).map(|_| ());
    assert_eq!(lasting(NOW - 3599, NOW + 1), Ok(()));
    assert_eq!(lasting(NOW - 3600, NOW), Err(Reason::TooOld));
    assert_eq!(lasting(NOW - 10, NOW - 1), Err(Reason::TooOld));
    assert_eq!(lasting(NOW + 61, NOW + 120), Err(Reason::TooNew));
    assert_eq!(of_claims(&with("nbf", NOW + 61)), Err(Reason::TooNew));
    assert_eq!(of_claims(&with("nbf", i64::MAX)), Err(Reason::TooNew));
    for too_long in [(NOW, NOW + 3601), (NOW - 1, NOW - 1), (NOW, NOW - 1), (i64::MIN, NOW), (NOW, i64::MAX)] {
        assert_eq!(lasting(too_long.0, too_long.1), Err(Reason::WrongClaims), "{too_long:?}");
    }
    for unreadable in [
        with("iat", Value::Null),
        with("exp", Value::Null),
        with("iss", Value::Null),
        with("aud", Value::Null),
        with("exp", (NOW + 300).to_string()),
        with("sub", 1),
    ] {
        assert_eq!(of_claims(&unreadable), Err(Reason::WrongClaims), "{unreadable}");
    }
    let twice = claims().to_string().replace(r#""sub":"shop""#, r#""sub":"shop","sub":"shop""#);
    assert_eq!(of_token(&issuer().token(HEADER, &twice)), Err(Reason::WrongClaims));
}

#[test]
fn a_token_chooses_neither_algorithm_nor_key() {
    for algorithm in ["none", "HS256", "ES384", "eddsa"] {
        assert_eq!(of_header(&json!({"alg": algorithm})), Err(Reason::WrongAlgorithm), "{algorithm}");
    }
    for algorithm in ["ES256", "RS256", "PS256"] {
        assert_eq!(of_header(&json!({"alg": algorithm})), Err(Reason::WrongSignature), "{algorithm}");
    }
    assert_eq!(of_header(&json!({"alg": "EdDSA", "kid": "k2"})), Err(Reason::WrongSignature));
    assert_eq!(of_header(&json!({"alg": "EdDSA", "crit": []})), Err(Reason::MalformedHeader));
    assert_eq!(of_header(&json!({})), Err(Reason::MalformedHeader));
    let signed = format!("{}.{}", encode(r#"{"alg":"HS256"}"#), encode(claims().to_string()));
    for secret in [issuer().public_key(), issuer().jwks()] {
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, secret.as_bytes());
        let mac = encode(aws_lc_rs::hmac::sign(&key, signed.as_bytes()));
        assert_eq!(of_token(&format!("{signed}.{mac}")), Err(Reason::WrongAlgorithm));
    }
}

#[test]
fn a_live_key_of_the_issuer_has_signed() {
    let token = issuer().token(HEADER, &claims().to_string());
    let of_keys = |keys: Vec<Key>| says(&policy(keys), &[&format!("Bearer {token}")]).map(|_| ());
    let bounded = |not_before: i64, not_after: i64| Key {
        not_before: Some(at(not_before)),
        not_after: Some(at(not_after)),
        ..key("bounded", &issuer())
    };
    let other = || key("other", &Issuer::new(4));
    assert_eq!(of_keys(vec![other(), bounded(NOW, NOW + 1)]), Ok(()));
    assert_eq!(of_keys(vec![other()]), Err(Reason::WrongSignature));
    for gone in [(NOW - 1, NOW), (NOW + 1, NOW + 2)] {
        assert_eq!(of_keys(vec![bounded(gone.0, gone.1)]), Err(Reason::NoKey), "{gone:?}");
        assert_eq!(of_keys(vec![other(), bounded(gone.0, gone.1)]), Err(Reason::WrongSignature), "{gone:?}");
    }
}

#[test]
fn a_token_is_there_once_and_whole() {
    let token = format!("Bearer {}", issuer().token(HEADER, &claims().to_string()));
    let policy = policy(vec![key("one", &issuer())]);
    assert!(says(&policy, &[&token]).is_ok());
    assert_eq!(says(&policy, &[]), Err(Reason::MissingHeader));
    assert_eq!(says(&policy, &[&token, &token]), Err(Reason::MalformedHeader));
    assert_eq!(says(&policy, &[&token.replace("Bearer", "Basic")]), Err(Reason::MalformedHeader));
    for end in 0..token.len() {
        assert!(says(&policy, &[&token[..end]]).is_err(), "{}", &token[..end]);
        let mut altered = token.clone().into_bytes();
        altered[end] = if altered[end] == b'A' { b'B' } else { b'A' };
        assert!(says(&policy, &[std::str::from_utf8(&altered).unwrap()]).is_err(), "{end}");
    }
}

#[test]
fn a_token_is_asked_for_even_without_keys_to_verify_it() {
    let source = json!({"jwt": {"issuer": "i", "audience": "a", "subjects": ["s"], "secretRef": {"name": "issuer"}}});
    let source: WebhookSource = serde_json::from_value(source).unwrap();
    let document = |id: usize, material: String| {
        let material = SecretText::new(material);
        KeyDocument { id: id.to_string(), material, not_before: None, not_after: None }
    };
    let keys = |count: usize| (0..count).map(|id| document(id, issuer().jwks())).collect::<Vec<_>>();
    let refused =
        |keys: &[KeyDocument]| CallerTokenPolicy::compile(Some(&source), keys, WINDOW).err().unwrap().to_string();
    assert!(CallerTokenPolicy::compile(None, &[], WINDOW).is_ok_and(|policy| policy.is_none()));
    assert!(
        CallerTokenPolicy::compile(Some(&source), &keys(MAX_KEY_SETS), WINDOW).is_ok_and(|policy| policy.is_some())
    );
    assert!(CallerTokenPolicy::compile(Some(&source), &[], WINDOW).is_ok_and(|policy| policy.is_some()));
    assert!(refused(&keys(MAX_KEY_SETS + 1)).contains("at most 16"));
    let secret = refused(&[document(7, "0123456789abcdef".into())]);
    assert!(secret.starts_with("the key 7: not a JWK Set; write"), "{secret}");
}
