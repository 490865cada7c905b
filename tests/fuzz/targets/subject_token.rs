#![no_main]
//! The token of a user. Whatever the provider signs, an accepted one is valid now, for the service that shows it, and names one user of
//! one tenant.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use credence::edge::jose::KeySet;
use credence::edge::tokens::fuzzing::{
    CallerDocument, Subject, SubjectIssuer, SubjectIssuerDocument, SubjectKeysDocument, TenantDocument, verify,
};
use credence_fuzz::edited;
use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};

const NOW: i64 = 1_764_000_000;
const OWN: &str = "https://tokens.example";
const WEB: &str = "spiffe://d/ns/shop/sa/web";

/// One claim per line, so that an edit can repeat a claim: of a provider, and of a token that was issued here.
const CLAIMS: [&str; 2] = [
    "{\n\"iss\":\"https://login.example\",\n\"aud\":[\"web-shop\",\"other\"],\n\"sub\":\"4711\",\n\"org\":\"acme\",\n\"iat\":1763999000,\n\"exp\":1764000300,\n\"nbf\":1764000030,\n\"may_act\":{\"sub\":\"spiffe://d/ns/shop/sa/web\"}\n}",
    "{\n\"iss\":\"https://tokens.example\",\n\"aud\":\"spiffe://d/ns/shop/sa/web\",\n\"sub\":\"customers:4711\",\n\"tenant\":\"acme\",\n\"iat\":1763999000,\n\"exp\":1764000300,\n\"act\":{\"sub\":\"a\",\"act\":{\"sub\":\"b\"}}\n}",
];
const HEADER: &str = "{\"alg\":\"EdDSA\",\n\"kid\":\"k1\",\n\"typ\":\"at+jwt\"}";

struct Parties {
    signer: Ed25519KeyPair,
    keys: KeySet,
    providers: [SubjectIssuer; 1],
    service: CallerDocument,
}

fn parties() -> Parties {
    let signer = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
    let key = json!({"kty": "OKP", "crv": "Ed25519", "kid": "k1", "x": URL_SAFE_NO_PAD.encode(signer.public_key())});
    let jwks = json!({"keys": [key]}).to_string();
    let provider = SubjectIssuerDocument {
        name: "customers".into(),
        issuer: "https://login.example".into(),
        algorithms: BTreeSet::from(["EdDSA".to_owned()]),
        subject_claim: "sub".into(),
        tenant: Some(TenantDocument { claim: "org".into(), pattern: "[a-z]+".into() }),
        keys: SubjectKeysDocument::Jwks(jwks.clone()),
    };
    let service = CallerDocument {
        trust_domain: "demo".into(),
        spiffe_id: WEB.into(),
        callees: BTreeMap::new(),
        users: BTreeMap::from([("customers".to_owned(), BTreeSet::from(["web-shop".to_owned()]))]),
        certificate_bound: false,
    };
    let keys = KeySet::parse(jwks.as_bytes()).unwrap();
    let providers = [SubjectIssuer::compile(&provider, |_| panic!("nothing is fetched")).unwrap()];
    Parties { signer, keys, providers, service }
}

fn verified(token: &str) -> Option<Subject> {
    static PARTIES: OnceLock<Parties> = OnceLock::new();
    let Parties { keys, providers, service, .. } = PARTIES.get_or_init(parties);
    verify(token, service, (OWN, keys), providers, Timestamp::from_second(NOW).unwrap()).ok()
}

fuzz_target!(|data: &[u8]| {
    let Some(([which, what], edits)) = data.split_first_chunk() else { return };
    let claims = CLAIMS[usize::from(which % 2)];
    match what % 4 {
        0 => altered(claims, edits),
        1 => drop(verified(&String::from_utf8_lossy(edits))),
        2 => signed(&edited(HEADER.as_bytes(), edits), claims.as_bytes()),
        _ => signed(HEADER.as_bytes(), &edited(claims.as_bytes(), edits)),
    }
});

fn token(header: &[u8], claims: &[u8]) -> String {
    static SIGNER: OnceLock<Parties> = OnceLock::new();
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let signature = SIGNER.get_or_init(parties).signer.sign(signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// A signed token that is altered afterwards is refused, unless it is the same.
fn altered(claims: &str, edits: &[u8]) {
    let good = token(HEADER.as_bytes(), claims.as_bytes());
    let edited = edited(good.as_bytes(), edits);
    let text = String::from_utf8_lossy(&edited);
    assert_eq!(verified(&text).is_some(), text == good.as_str());
}

fn signed(header: &[u8], claims: &[u8]) {
    let Some(Subject { id, tenant, expires_at, .. }) = verified(&token(header, claims)) else {
        let is_unaltered = header == HEADER.as_bytes() && CLAIMS.iter().any(|good| good.as_bytes() == claims);
        assert!(!is_unaltered, "the unaltered token is accepted");
        return;
    };
    // A claim that nobody reads may hold bytes that are no text: then it is no JSON for others.
    let (Ok(header), Ok(claims)) = (serde_json::from_slice::<Value>(header), serde_json::from_slice::<Value>(claims))
    else {
        return;
    };
    assert_eq!(header["alg"], "EdDSA");
    assert!(header["kid"].is_null() || header["kid"] == "k1");
    assert!(expires_at > NOW && claims["exp"].as_i64() == Some(expires_at));
    assert!(claims["iat"].as_i64().unwrap() <= NOW + 60 && claims["nbf"].as_i64().is_none_or(|at| at <= NOW + 60));
    if claims["iss"] == OWN {
        assert_eq!((claims["aud"].as_str(), claims["sub"].as_str()), (Some(WEB), Some(id.as_str())));
        assert_eq!(claims["tenant"].as_str(), tenant.as_deref());
        assert_eq!(header["typ"].as_str().unwrap().to_lowercase().trim_start_matches("application/"), "at+jwt");
        return;
    }
    assert_eq!(claims["iss"], "https://login.example");
    assert_eq!(id, format!("customers:{}", claims["sub"].as_str().unwrap()));
    assert_eq!(tenant.as_deref(), claims["org"].as_str());
    assert!(tenant.unwrap().bytes().all(|byte| byte.is_ascii_lowercase()));
    let audiences = claims["aud"].as_array().cloned().unwrap_or_else(|| vec![claims["aud"].clone()]);
    assert!(audiences.iter().any(|aud| aud == "web-shop" || aud == WEB));
    assert!(claims["may_act"].is_null() || claims["may_act"]["sub"] == WEB);
}
