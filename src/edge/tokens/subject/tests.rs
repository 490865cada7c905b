//! Whose tokens are accepted, and what they must say.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;
use crate::contract::tokens::TenantDocument;
use crate::domain::address_policy::AddressPolicy;
use crate::edge::jose::testing::{self, claiming};

const NOW: i64 = 1_700_000_000;
const WEB: &str = "spiffe://d/ns/shop/sa/web";
const PAY: &str = "spiffe://d/ns/shop/sa/pay";
const URL: &str = "https://tokens.example";
const LOGIN: &str = "https://login.example";

/// A key of the issuer of access tokens, and one of the identity provider.
fn keys() -> (testing::Issuer, testing::Issuer) {
    (testing::Issuer::new(1), testing::Issuer::new(2))
}

fn document() -> SubjectIssuerDocument {
    SubjectIssuerDocument {
        name: "customers".into(),
        issuer: LOGIN.into(),
        algorithms: BTreeSet::from(["EdDSA".to_owned()]),
        subject_claim: "sub".into(),
        tenant: Some(TenantDocument { claim: "org".into(), pattern: "[a-z]+".into() }),
        keys: SubjectKeysDocument::Jwks(keys().1.jwks()),
    }
}

fn nothing_fetched(source: &KeySetUrl) -> Result<Arc<Fetched>, InvalidField> {
    Fetched::new(source, &AddressPolicy::trusted(None)).map(Arc::new)
}

fn service(spiffe_id: &str) -> CallerDocument {
    CallerDocument {
        trust_domain: "demo".into(),
        spiffe_id: spiffe_id.into(),
        callees: BTreeMap::new(),
        users: BTreeMap::from([("customers".to_owned(), BTreeSet::from(["web-shop".to_owned()]))]),
        certificate_bound: false,
    }
}

fn verified(token: &str, caller: &CallerDocument) -> Result<Subject, Reason> {
    let own = KeySet::parse(keys().0.jwks().as_bytes()).unwrap();
    let providers = [SubjectIssuer::compile(&document(), nothing_fetched).unwrap()];
    verify(token, caller, (URL, &own), &providers, Timestamp::from_second(NOW).unwrap())
}

/// What an identity provider says of a user.
fn claims() -> Value {
    json!({"iss": LOGIN, "aud": ["web-shop", "other"], "sub": "4711", "org": "acme", "iat": NOW, "exp": NOW + 3600})
}

fn token(header: &str, claims: &Value) -> String {
    keys().1.token(header, &claims.to_string())
}

fn user(claims: &Value) -> Result<Subject, Reason> {
    verified(&token(r#"{"alg":"EdDSA","typ":"JWT"}"#, claims), &service(WEB))
}

#[test]
fn a_service_acts_for_a_user_of_an_identity_provider() {
    let expected = Subject {
        id: "customers:4711".into(),
        tenant: Some("acme".into()),
        actors: Actor { sub: WEB.into(), act: None },
        expires_at: NOW + 3600,
    };
    assert_eq!(user(&claims()).as_ref(), Ok(&expected));
    assert_eq!(user(&claiming(claims(), "aud", WEB.into())).as_ref(), Ok(&expected));
    for header in [r#"{"alg":"EdDSA"}"#, r#"{"alg":"EdDSA","typ":"application/at+JWT","kid":"k1"}"#] {
        assert_eq!(verified(&token(header, &claims()), &service(WEB)).as_ref(), Ok(&expected), "{header}");
    }
    let may_act = claiming(claims(), "may_act", json!({"sub": WEB}));
    assert_eq!(user(&may_act).as_ref(), Ok(&expected));
}

#[test]
fn a_token_that_proves_nobody_is_refused() {
    let with = |name: &str, value: Value| user(&claiming(claims(), name, value)).unwrap_err();
    for (name, value, expected) in [
        ("iss", json!("https://other.example"), Reason::SubjectUnknownIssuer),
        ("iss", Value::Null, Reason::SubjectWrongClaims),
        ("aud", json!("other"), Reason::SubjectWrongAudience),
        ("aud", json!(PAY), Reason::SubjectWrongAudience),
        ("aud", json!([]), Reason::SubjectWrongAudience),
        ("aud", Value::Null, Reason::SubjectWrongClaims),
        ("sub", Value::Null, Reason::SubjectWrongClaims),
        ("sub", json!(""), Reason::SubjectWrongClaims),
        ("sub", json!(4711), Reason::SubjectWrongClaims),
        ("sub", json!(["4711"]), Reason::SubjectWrongClaims),
        ("sub", json!("4711\nadmin"), Reason::SubjectWrongClaims),
        ("sub", json!("a".repeat(256)), Reason::SubjectWrongClaims),
        ("org", Value::Null, Reason::SubjectWrongClaims),
        ("org", json!(["acme"]), Reason::SubjectWrongClaims),
        ("org", json!("acme,other"), Reason::SubjectWrongClaims),
        ("exp", json!(NOW), Reason::SubjectWrongClaims),
        ("exp", json!(NOW + 86_401), Reason::SubjectWrongClaims),
        ("exp", Value::Null, Reason::SubjectWrongClaims),
        ("iat", Value::Null, Reason::SubjectWrongClaims),
        ("iat", json!(NOW + 61), Reason::SubjectNotYetValid),
        ("nbf", json!(NOW + 61), Reason::SubjectNotYetValid),
        ("may_act", json!({"sub": PAY}), Reason::SubjectWrongClaims),
        ("may_act", json!({}), Reason::SubjectWrongClaims),
        ("events", json!({"http://schemas.openid.net/event/backchannel-logout": {}}), Reason::SubjectWrongClaims),
    ] {
        assert_eq!(with(name, value.clone()), expected, "{name}: {value}");
    }
    let past = claiming(claiming(claims(), "iat", (NOW - 100).into()), "exp", NOW.into());
    assert_eq!(user(&past), Err(Reason::SubjectExpired));
    for (name, again) in [("sub", "admin"), ("org", "other"), ("aud", "web-shop"), ("iss", LOGIN), ("x", "y")] {
        let text = claiming(claims(), "x", "y".into()).to_string();
        let twice = text.replacen('{', &format!(r#"{{"{name}":"{again}","#), 1);
        let refused = verified(&keys().1.token(r#"{"alg":"EdDSA"}"#, &twice), &service(WEB));
        assert_eq!(refused, Err(Reason::SubjectWrongClaims), "{name} twice");
    }
}

#[test]
fn a_signature_is_of_a_key_of_its_issuer() {
    let good = token(r#"{"alg":"EdDSA"}"#, &claims());
    let unsigned = format!("{}.", good.rsplit_once('.').unwrap().0);
    let of_another = keys().0.token(r#"{"alg":"EdDSA"}"#, &claims().to_string());
    let none = token(r#"{"alg":"none"}"#, &claims());
    let shared = token(r#"{"alg":"HS256"}"#, &claims());
    let other_algorithm = token(r#"{"alg":"ES256"}"#, &claims());
    for wrong in [&unsigned, &of_another, &none, &shared, &other_algorithm] {
        assert_eq!(verified(wrong, &service(WEB)), Err(Reason::SubjectWrongSignature), "{wrong}");
    }
    for header in ["txntoken+jwt", "logout+jwt", "secevent+jwt", "dpop+jwt", ""] {
        let typed = token(&json!({"alg": "EdDSA", "typ": header}).to_string(), &claims());
        assert_eq!(verified(&typed, &service(WEB)), Err(Reason::SubjectMalformed), "{header}");
    }
    for malformed in ["", "a", "a.b", "a.b.c", "..", &format!("{good}.{good}")] {
        assert_eq!(verified(malformed, &service(WEB)), Err(Reason::SubjectMalformed), "{malformed}");
    }
    let broken = SubjectIssuerDocument { keys: SubjectKeysDocument::Jwks("s3cret".into()), ..document() };
    let refused = SubjectIssuer::compile(&broken, nothing_fetched).err().unwrap();
    assert!(!refused.to_string().contains("s3cret"));
}

#[test]
fn users_wait_for_keys_that_are_not_fetched_yet() {
    let source = KeySetUrl { url: "https://login.example/keys".into(), ca_bundle: None };
    let fetched = SubjectIssuerDocument { keys: SubjectKeysDocument::Url(source), ..document() };
    let provider = SubjectIssuer::compile(&fetched, nothing_fetched).unwrap();
    let own = KeySet::parse(keys().0.jwks().as_bytes()).unwrap();
    let good = token(r#"{"alg":"EdDSA"}"#, &claims());
    let now = Timestamp::from_second(NOW).unwrap();
    assert_eq!(verify(&good, &service(WEB), (URL, &own), &[provider], now), Err(Reason::SubjectKeysMissing));
}

#[test]
fn a_token_that_names_no_key_is_tried_with_few() {
    let with = |others: u8| {
        let key = |seed: u8| json!({"kty": "OKP", "crv": "Ed25519", "kid": format!("other-{seed}"), "x": testing::Issuer::new(seed).public_key()});
        let mut keys: Vec<Value> = (10..10 + others).map(key).collect();
        keys.push(serde_json::from_str::<Value>(&self::keys().1.jwks()).unwrap()["keys"][0].clone());
        let jwks = SubjectKeysDocument::Jwks(json!({ "keys": keys }).to_string());
        SubjectIssuer::compile(&SubjectIssuerDocument { keys: jwks, ..document() }, nothing_fetched).unwrap()
    };
    let own = KeySet::parse(keys().0.jwks().as_bytes()).unwrap();
    let now = Timestamp::from_second(NOW).unwrap();
    let accepts = |others: u8, header: &str| {
        verify(&token(header, &claims()), &service(WEB), (URL, &own), &[with(others)], now).is_ok()
    };
    assert!(accepts(3, r#"{"alg":"EdDSA"}"#) && !accepts(4, r#"{"alg":"EdDSA"}"#));
    assert!(accepts(31, r#"{"alg":"EdDSA","kid":"k1"}"#));
}

#[test]
fn only_the_services_of_some_namespaces_act_for_users() {
    let nobody = CallerDocument { users: BTreeMap::new(), ..service(WEB) };
    let good = token(r#"{"alg":"EdDSA"}"#, &claims());
    assert_eq!(verified(&good, &nobody), Err(Reason::SubjectUnknownIssuer));
    let other = CallerDocument { users: BTreeMap::from([("customers".to_owned(), BTreeSet::new())]), ..service(PAY) };
    assert_eq!(verified(&good, &other), Err(Reason::SubjectWrongAudience), "a token for another service");
}

#[test]
fn each_service_that_passes_a_user_on_is_named() {
    let before = json!({
        "iss": URL, "aud": PAY, "sub": "customers:4711", "tenant": "acme", "client_id": WEB, "iat": NOW, "exp": NOW + 60,
        "act": {"sub": WEB},
    });
    let own = |header: &str, claims: &Value| verified(&keys().0.token(header, &claims.to_string()), &service(PAY));
    let header = r#"{"alg":"EdDSA","typ":"at+jwt"}"#;
    let subject = own(header, &before).unwrap();
    let web = Actor { sub: WEB.into(), act: None };
    assert_eq!(subject.actors, Actor { sub: PAY.into(), act: Some(Box::new(web)) });
    assert_eq!((subject.id.as_str(), subject.tenant.as_deref()), ("customers:4711", Some("acme")));
    assert_eq!(subject.expires_at, NOW + 60);
    let claiming = |name: &str, value: Value| own(header, &claiming(before.clone(), name, value));
    let service = claiming("act", Value::Null).unwrap();
    assert_eq!(service.actors, Actor { sub: PAY.into(), act: None }, "a service that was called for itself");
    assert_eq!(claiming("aud", WEB.into()), Err(Reason::SubjectWrongAudience));
    assert_eq!(claiming("aud", json!([PAY])), Err(Reason::SubjectWrongClaims));
    assert_eq!(own(r#"{"alg":"EdDSA","typ":"JWT"}"#, &before), Err(Reason::SubjectMalformed));
    let of_the_provider = keys().1.token(header, &before.to_string());
    assert_eq!(verified(&of_the_provider, &self::service(PAY)), Err(Reason::SubjectWrongSignature));
    let chain = |length: usize| (1..length).fold(json!({"sub": WEB}), |act, _| json!({"sub": WEB, "act": act}));
    assert!(claiming("act", chain(7)).is_ok());
    assert_eq!(claiming("act", chain(8)), Err(Reason::SubjectWrongClaims));
}
