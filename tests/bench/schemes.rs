//! Deliveries of every scheme, signed before the load starts, so that signing is not part of the measurement.

use std::fmt::Write;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::hmac::{self, HMAC_SHA1_FOR_LEGACY_USE_ONLY, HMAC_SHA256};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PSS_SHA512, RsaKeyPair,
};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use credence::edge::webhook::signing;
use pem::Pem;
use serde_json::{Value, json};

use crate::hooks::now;

/// The external URL, which some schemes sign.
pub const URL: &str = "https://hooks.example.com/in";
/// The secret that both sides share.
const KEY: &str = "0123456789abcdef0123456789abcdef";

/// Headers and query that a sender adds to a body.
pub struct Signed {
    pub headers: Vec<(&'static str, String)>,
    pub query: String,
}

impl From<Vec<(&'static str, String)>> for Signed {
    fn from(headers: Vec<(&'static str, String)>) -> Self {
        Self { headers, query: String::new() }
    }
}

type Sign = Box<dyn Fn(u64, &[u8]) -> Signed + Send + Sync>;

pub struct Scheme {
    pub name: &'static str,
    /// Whether it has a token or a MAC, and no public key.
    pub is_symmetric: bool,
    /// `spec.verification`.
    pub verification: Value,
    /// The entry of the key Secret.
    pub entry: String,
    /// Signs a numbered body.
    pub sign: Sign,
}

/// The plain token comes first: it has no signature, so it shows the cost of everything except verification.
pub fn all() -> Vec<Scheme> {
    let shared =
        |name, verification, sign: Sign| Scheme { name, is_symmetric: true, verification, entry: KEY.to_owned(), sign };
    let mut all = vec![
        shared(
            "plain token (GitLab)",
            json!({"gitlab": {}}),
            Box::new(|_, _| vec![("x-gitlab-token", KEY.to_owned())].into()),
        ),
        shared(
            "GitHub",
            json!({"github": {}}),
            Box::new(|_, body| vec![("x-hub-signature-256", format!("sha256={}", hex(&mac(&[body]))))].into()),
        ),
        shared(
            "Shopify",
            json!({"shopify": {}}),
            Box::new(|_, body| vec![("x-shopify-hmac-sha256", STANDARD.encode(mac(&[body])))].into()),
        ),
        shared(
            "Stripe",
            json!({"stripe": {}}),
            Box::new(|_, body| {
                let at = now();
                let tag = hex(&mac(&[format!("{at}.").as_bytes(), body]));
                vec![("stripe-signature", format!("t={at},v1={tag}"))].into()
            }),
        ),
        shared(
            "Slack",
            json!({"slack": {}}),
            Box::new(|_, body| {
                let at = now();
                let tag = hex(&mac(&[format!("v0:{at}:").as_bytes(), body]));
                vec![("x-slack-request-timestamp", at.to_string()), ("x-slack-signature", format!("v0={tag}"))].into()
            }),
        ),
        shared(
            "generic HMAC",
            generic(),
            Box::new(|number, body| {
                let (id, at) = (number.to_string(), now().to_string());
                let tag = hex(&mac(&[format!("{id}.{at}.").as_bytes(), body]));
                vec![("x-id", id), ("x-at", at), ("x-mac", tag)].into()
            }),
        ),
        shared(
            "Twilio",
            json!({"twilio": {}}),
            Box::new(|_, body| {
                let query = format!("?bodySHA256={}", hex(digest(&SHA256, body).as_ref()));
                let key = hmac::Key::new(HMAC_SHA1_FOR_LEGACY_USE_ONLY, KEY.as_bytes());
                let tag = STANDARD.encode(hmac::sign(&key, format!("{URL}{query}").as_bytes()));
                Signed { headers: vec![("x-twilio-signature", tag)], query }
            }),
        ),
        Scheme {
            name: "Standard Webhooks, v1",
            is_symmetric: true,
            verification: json!({"standardWebhooks": {}}),
            entry: format!("whsec_{}", STANDARD.encode(KEY)),
            sign: Box::new(|number, body| {
                standard(number, body, |text| format!("v1,{}", STANDARD.encode(mac(&[text]))))
            }),
        },
        standard_with_public_key(),
        shared(
            "RFC 9421, HMAC-SHA256",
            message_signature("HmacSha256"),
            Box::new(|_, body| signed_message(body, |text| mac(&[text]))),
        ),
    ];
    all.extend([ed25519(), ecdsa(), rsa_pss(), jwt()]);
    all
}

fn mac(parts: &[&[u8]]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(HMAC_SHA256, KEY.as_bytes()), &parts.concat()).as_ref().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn generic() -> Value {
    json!({"hmac": {
        "hash": "Sha256", "encoding": "Hex", "header": "x-mac",
        "parts": [
            {"id": {"header": "x-id"}}, {"literal": "."}, {"timestamp": {"header": "x-at"}}, {"literal": "."}, {"body": {}},
        ],
    }})
}

fn standard(number: u64, body: &[u8], sign: impl Fn(&[u8]) -> String) -> Signed {
    let (id, at) = (format!("msg_{number}"), now().to_string());
    let text = [format!("{id}.{at}.").as_bytes(), body].concat();
    vec![("webhook-id", id), ("webhook-timestamp", at), ("webhook-signature", sign(&text))].into()
}

fn standard_with_public_key() -> Scheme {
    let public = signing::key_pair(&[7; 32]).unwrap().public;
    let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
    Scheme {
        name: "Standard Webhooks, v1a",
        is_symmetric: false,
        verification: json!({"standardWebhooks": {}}),
        entry: public,
        sign: Box::new(move |number, body| {
            standard(number, body, |text| format!("v1a,{}", STANDARD.encode(pair.sign(text))))
        }),
    }
}

fn message_signature(algorithm: &str) -> Value {
    json!({"httpMessageSignatures": {"algorithm": algorithm}})
}

fn signed_message(body: &[u8], sign: impl Fn(&[u8]) -> Vec<u8>) -> Signed {
    let content_digest = format!("sha-256=:{}:", STANDARD.encode(digest(&SHA256, body)));
    let covered = format!(r#"("@method" "@target-uri" "content-digest");created={};keyid="first""#, now());
    let base = format!(
        "\"@method\": POST\n\"@target-uri\": {URL}\n\"content-digest\": {content_digest}\n\"@signature-params\": {covered}"
    );
    let signature = format!("sig=:{}:", STANDARD.encode(sign(base.as_bytes())));
    vec![("content-digest", content_digest), ("signature-input", format!("sig={covered}")), ("signature", signature)]
        .into()
}

fn public_pem(key: &impl AsDer<PublicKeyX509Der<'static>>) -> String {
    pem::encode(&Pem::new("PUBLIC KEY", key.as_der().unwrap().as_ref()))
}

fn ed25519() -> Scheme {
    let pair = Ed25519KeyPair::generate().unwrap();
    Scheme {
        name: "RFC 9421, Ed25519",
        is_symmetric: false,
        verification: message_signature("Ed25519"),
        entry: public_pem(pair.public_key()),
        sign: Box::new(move |_, body| signed_message(body, |text| pair.sign(text).as_ref().to_vec())),
    }
}

fn ecdsa_pair() -> EcdsaKeyPair {
    EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap()
}

fn ecdsa() -> Scheme {
    let pair = ecdsa_pair();
    let entry = public_pem(pair.public_key());
    let sign = move |text: &[u8]| pair.sign(&SystemRandom::new(), text).unwrap().as_ref().to_vec();
    Scheme {
        name: "RFC 9421, ECDSA P-256",
        is_symmetric: false,
        verification: message_signature("EcdsaP256Sha256"),
        entry,
        sign: Box::new(move |_, body| signed_message(body, &sign)),
    }
}

fn rsa_pss() -> Scheme {
    let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let entry = public_pem(pair.public_key());
    let sign = move |text: &[u8]| {
        let mut signature = vec![0; pair.public_modulus_len()];
        pair.sign(&RSA_PSS_SHA512, &SystemRandom::new(), text, &mut signature).unwrap();
        signature
    };
    Scheme {
        name: "RFC 9421, RSA-PSS 2048",
        is_symmetric: false,
        verification: message_signature("RsaPssSha512"),
        entry,
        sign: Box::new(move |_, body| signed_message(body, &sign)),
    }
}

fn jwt() -> Scheme {
    let pair = ecdsa_pair();
    let point = pair.public_key().as_ref();
    let half = |range| URL_SAFE_NO_PAD.encode(&point[range]);
    let key = json!({"kty": "EC", "crv": "P-256", "kid": "one", "alg": "ES256", "x": half(1..33), "y": half(33..65)});
    let header = URL_SAFE_NO_PAD.encode(json!({"alg": "ES256", "kid": "one"}).to_string());
    Scheme {
        name: "JWT, ES256",
        is_symmetric: false,
        verification: json!({"jwt": {"issuer": "https://issuer.example", "audience": "hooks", "subject": "sender"}}),
        entry: json!({"keys": [key]}).to_string(),
        sign: Box::new(move |number, body| {
            let body_sha256 = URL_SAFE_NO_PAD.encode(digest(&SHA256, body));
            let claims = json!({
                "iss": "https://issuer.example", "aud": "hooks", "sub": "sender", "iat": now(), "exp": now() + 300,
                "jti": number.to_string(), "body_sha256": body_sha256,
            });
            let text = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims.to_string()));
            let signature = pair.sign(&SystemRandom::new(), text.as_bytes()).unwrap();
            vec![("authorization", format!("Bearer {text}.{}", URL_SAFE_NO_PAD.encode(signature)))].into()
        }),
    }
}
