#![no_main]
//! The token of a caller. A correctly signed token is altered, and if it is still accepted, its signed part is unchanged.
//! And whatever the issuer signs, only an allowed caller with a currently valid token is accepted.

use std::sync::OnceLock;

use aws_lc_rs::signature::Ed25519KeyPair;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use credence::edge::webhook::caller_token::CallerTokenPolicy;
use credence::edge::webhook::verify::keys::Key;
use credence::edge::webhook::verify::{Verifier, Window};
use credence_fuzz::{Parts, edited};
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use jiff::{SignedDuration, Timestamp};
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};

const NOW: i64 = 1_764_000_000;

/// Created with PyJWT. The key for ES256 is the example of RFC 7517 (appendix A), the key for EdDSA has a seed of 32 sevens,
/// and the private key for RSA was not kept.
const TOKENS: [&str; 4] = [
    "eyJhbGciOiJFUzI1NiIsImtpZCI6InAyNTYiLCJ0eXAiOiJKV1QifQ.eyJpc3MiOiJodHRwczovL2lzc3Vlci5leGFtcGxlIiwiYXVkIjpbImhvb2tzIiwib3RoZXIiXSwic3ViIjoic2hvcCIsImlhdCI6MTc2NDAwMDAwMCwiZXhwIjoxNzY0MDAzNjAwLCJuYmYiOjE3NjQwMDAwMDB9.FyglNAysACpW5bv87A2ycSTBEm2IXmsvoYPe7YCe59NUtzdTkQNxQvVAi2Nyu9_uIjv1vtK6lghaiF5WUdbHKQ",
    "eyJhbGciOiJFZERTQSIsImtpZCI6ImVkMjU1MTkiLCJ0eXAiOiJKV1QifQ.eyJpc3MiOiJodHRwczovL2lzc3Vlci5leGFtcGxlIiwiYXVkIjpbImhvb2tzIiwib3RoZXIiXSwic3ViIjoic2hvcCIsImlhdCI6MTc2NDAwMDAwMCwiZXhwIjoxNzY0MDAzNjAwLCJuYmYiOjE3NjQwMDAwMDB9.lOQDr2nVVgKx7LgQaLKl5xrFrO1yTclll86WznpnA95DfI28C0l8ozJoG8ABX5aO3z9pJ7Vsx-kcVRkWrO9xAw",
    "eyJhbGciOiJSUzI1NiIsImtpZCI6InJzYSIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJodHRwczovL2lzc3Vlci5leGFtcGxlIiwiYXVkIjpbImhvb2tzIiwib3RoZXIiXSwic3ViIjoic2hvcCIsImlhdCI6MTc2NDAwMDAwMCwiZXhwIjoxNzY0MDAzNjAwLCJuYmYiOjE3NjQwMDAwMDB9.t5ZNrjwBRXIhAYgxuGr8LP1xDF4JKx8enozYVWPSch9fkvDgCwS7k-iVNqOAfnNKa5GgUkJl6ODfvLRsfGJcgtjrtyGtsMF-Bw3aH8NbxtpJYil6FZ_iQjTqea8KqvTHXeltNBWjEKfCSdxT_0ekfiNg1k6wsHDS_KlKqwIAPS5ho-O9537iA7El_j1jnieBBOiKNo4-2SHwk4StGTyLA-LHnIjqhvRP3nq7zOHNG8Znx2_xawdzGgXsSI8ba0y8Oelogvz2UqFzR0inNGu30c4gDY6PJof-tUz0CQU3MrA4JBViIcmP60kBj5Tn6dOCzjTEBTyiQweM_-ljDfxSGA",
    "eyJhbGciOiJQUzI1NiIsImtpZCI6InJzYS1wc3MiLCJ0eXAiOiJKV1QifQ.eyJpc3MiOiJodHRwczovL2lzc3Vlci5leGFtcGxlIiwiYXVkIjpbImhvb2tzIiwib3RoZXIiXSwic3ViIjoic2hvcCIsImlhdCI6MTc2NDAwMDAwMCwiZXhwIjoxNzY0MDAzNjAwLCJuYmYiOjE3NjQwMDAwMDB9.cKPCJAaQY07K1uZ4rva_IG5F2ir3EpmwkEUZhhVqB1CLlt3ctHDdDcVCLksOjmPX3zr4xPUeF0qMiShRYSuXrc-FGz74lgBI_JnN6ZFhtlQF9vF5eHFyS0s7n4DnHjUHQmAwEV94Q_5ARVNLhbMYa8JjfsCsPrM7_xn3_JsZYhnlaG1i1Hy3tuAGyoLl9xu0NNXCymPN9xeuCCpszM0YZA9YlkSiDt2-fbyTjTrWHSNsOCxvc6hxGO_cZgpGtcNooiDS6rYZ7Aphg2gpbBrqxENT2RrJA8eiXGU42a99yZuO_4565kV9tTS6dSEUKJfT5PCizfOMJojbmaaogkXZyQ",
];

/// One claim per line, so that an edit can repeat a claim.
const CLAIMS: &[u8] = br#"{
"iss":"https://issuer.example",
"aud":["hooks","shop"],
"sub":"bank",
"iat":1763999000,
"exp":1764000300,
"nbf":1764000030,
"jti":"1"
}"#;

fn policy() -> CallerTokenPolicy {
    let rsa = "uOcK3Gn2Wb9X7cHihQJ2qd7fAJ3tqxczDtdSQEO87HA0hPomwBKgwGLjPAGK8HnaUGI0NlR7mon-xJ9ag-3zymCEiadpC3qjOjFcRisXmBm1OboLHDRsTbuKMECovbY_KOjcjdhjSLgqSZ-x4VheMHxNEIKRKBc44zGhTxr5oqRuNkp90232Cnw_9HngDUcKYb2wFZvewYt5Xop0Q9AZ7gASTZ2msz2iKL559dUT4ezdvMEER3SV-RRp8mZBoXKFgLoxv_vBu0My9vjXrTGIfS8UypykWbyvn2jJCE4WNscG-k957TxzR6EKIne8cptOi4eh6fe-QJb0tejmMamlSQ";
    let jwks = json!({"keys": [
        {"kty": "EC", "crv": "P-256", "kid": "p256", "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
         "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"},
        {"kty": "OKP", "crv": "Ed25519", "kid": "ed25519", "x": "6kpsY-KcUgq-9VB7Ey7F-ZVHdq6-vnuSQh7qaRRG0iw"},
        {"kty": "RSA", "alg": "RS256", "kid": "rsa", "e": "AQAB", "n": rsa},
        {"kty": "RSA", "alg": "PS256", "kid": "rsa-pss", "e": "AQAB", "n": rsa},
    ]});
    let verifier = Verifier::jwks(jwks.to_string().as_bytes()).unwrap();
    let policy = json!({
        "issuer": "https://issuer.example", "audience": "hooks", "subjects": ["shop", "bank"], "secretRef": {"name": "a"},
    });
    let keys = vec![Key { id: "only".into(), not_before: None, not_after: None, verifier }];
    let window = Window { past: SignedDuration::from_mins(5), future: SignedDuration::from_mins(1) };
    CallerTokenPolicy::new(&serde_json::from_value(policy).unwrap(), keys, window)
}

fn caller(headers: &HeaderMap) -> Option<String> {
    static POLICY: OnceLock<CallerTokenPolicy> = OnceLock::new();
    POLICY.get_or_init(policy).authenticate(headers, Timestamp::from_second(NOW).unwrap()).ok()
}

fuzz_target!(|data: &[u8]| {
    let Some((which, edits)) = data.split_first() else { return };
    match TOKENS.get(usize::from(*which) % (TOKENS.len() + 1)) {
        Some(token) => altered(token, edits),
        None => signed(&edited(CLAIMS, edits)),
    }
});

fn altered(token: &str, edits: &[u8]) {
    let signed = format!("Bearer {token}");
    let text = format!("POST\n/in\nauthorization: {signed}\ndate: Tue, 25 Nov 2025 00:00:00 GMT\n\n");
    let Some(parts) = Parts::read(&edited(text.as_bytes(), edits)) else { return };
    let Some(caller) = caller(&parts.headers) else {
        assert!(edits.len() >= 4, "the unaltered token is accepted");
        return;
    };
    assert_eq!(caller, "jwt:https://issuer.example#shop");
    let without_signature = |text: &str| text.rsplit_once('.').unwrap().0.to_owned();
    let [accepted] = parts.headers.get_all(AUTHORIZATION).iter().collect::<Vec<_>>()[..] else {
        panic!("the header is not there exactly once")
    };
    assert_eq!(without_signature(accepted.to_str().unwrap()), without_signature(&signed));
}

fn signed(claims: &[u8]) {
    static ISSUER: OnceLock<Ed25519KeyPair> = OnceLock::new();
    // Claims must be JSON. Checked first, because signing is the most expensive step.
    let Ok(parsed) = serde_json::from_slice::<Value>(claims) else { return };
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(r#"{"alg":"EdDSA"}"#), URL_SAFE_NO_PAD.encode(claims));
    let issuer = ISSUER.get_or_init(|| Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap());
    let token = format!("Bearer {signed}.{}", URL_SAFE_NO_PAD.encode(issuer.sign(signed.as_bytes())));
    let headers = HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_str(&token).unwrap())]);
    let Some(caller) = caller(&headers) else {
        assert_ne!(claims, CLAIMS, "the unaltered claims are accepted");
        return;
    };
    let subject = parsed["sub"].as_str().unwrap();
    assert_eq!(caller, format!("jwt:https://issuer.example#{subject}"));
    assert!(parsed["iss"] == "https://issuer.example" && ["shop", "bank"].contains(&subject));
    assert!(parsed["aud"] == "hooks" || parsed["aud"].as_array().unwrap().contains(&json!("hooks")));
    let (issued_at, ends_at) = (parsed["iat"].as_i64().unwrap(), parsed["exp"].as_i64().unwrap());
    assert!(issued_at <= NOW + 60 && NOW < ends_at && ends_at - issued_at <= 3600);
    assert!(parsed["nbf"].as_i64().is_none_or(|begins_at| begins_at <= NOW + 60));
}
