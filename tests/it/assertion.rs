//! The example of `examples/webhook` that verifies assertions, as a target would.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};

use crate::bed::{Bed, identity, run};
use crate::hooks::now;

/// The SPIFFE ID of the bed's edge.
const EDGE: &str = "spiffe://demo.credence.example/ns/credence-edge/sa/credence-edge";
const AUDIENCE: &str = "payments.shop.svc";
const BODY: &str = r#"{"paid": 7}"#;

/// The claims of an assertion, or why the example refuses it.
pub fn verify(bed: &Bed, assertion: &str, audience: &str, body: &str) -> Result<Value, String> {
    let python = format!("{}/bin/python3", bed.env("SIGNERS"));
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/webhook/verify_assertion.py");
    let (ok, text) = run(&python, &[script, bed.env("EDGE_CA"), EDGE, audience, assertion], body);
    if ok { Ok(serde_json::from_str(&text).unwrap()) } else { Err(text) }
}

/// A certificate and its key, which signs assertions as the edge does.
struct Signer {
    chain: Vec<String>,
    key: EcdsaKeyPair,
}

impl Signer {
    async fn of(bed: &Bed, namespace: &str, secret: &str) -> Self {
        let data = bed.secret(namespace, secret).await.unwrap().data.unwrap();
        let chain = CertificateDer::pem_slice_iter(&data["tls.crt"].0).map(|it| STANDARD.encode(it.unwrap())).collect();
        let key = PrivatePkcs8KeyDer::from_pem_slice(&data["tls.key"].0).unwrap();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key.secret_pkcs8_der()).unwrap();
        Self { chain, key }
    }

    fn sign(&self, typ: &str, claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let text = format!("{}.{}", part(&json!({"alg": "ES256", "typ": typ, "x5c": self.chain})), part(claims));
        let signature = self.key.sign(&SystemRandom::new(), text.as_bytes()).unwrap();
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

#[tokio::test]
async fn the_example_of_a_target_accepts_what_the_edge_says_only() {
    let bed = Bed::open().await;
    let namespace = bed.namespace("asserted").await;
    bed.apply(identity(&namespace, "service", &[])).await.unwrap();
    let id = bed.ready("ServiceIdentity", Some(&namespace), "service").await.data["status"]["spiffeID"].clone();
    let edge = Signer::of(&bed, "credence-edge", "edge-mtls").await;
    let service = Signer::of(&bed, &namespace, "service-mtls").await;
    let claims = |issuer: &str, at: i64| {
        json!({"iss": issuer, "aud": AUDIENCE, "iat": at, "exp": at + 60, "jti": "msg_1",
            "endpoint": "shop/payments", "body_sha256": URL_SAFE_NO_PAD.encode(digest(&SHA256, BODY.as_bytes()))})
    };
    let good = edge.sign("JWT", &claims(EDGE, now()));
    assert_eq!(verify(&bed, &good, AUDIENCE, BODY).unwrap()["jti"], "msg_1");
    let of_service = id.as_str().unwrap();
    let [by_service, as_itself] = [EDGE, of_service].map(|issuer| service.sign("JWT", &claims(issuer, now())));
    let mixed = Signer { chain: edge.chain.clone(), key: service.key }.sign("JWT", &claims(EDGE, now()));
    for (what, assertion, expected) in [
        ("a service that says it is the edge", by_service, "not the edge"),
        ("a service as itself", as_itself, "not the edge"),
        ("another type", edge.sign("other+jwt", &claims(EDGE, now())), "another type"),
        ("another issuer", edge.sign("JWT", &claims(of_service, now())), "issuer"),
        ("an old one", edge.sign("JWT", &claims(EDGE, now() - 3600)), "expired"),
        ("the chain of the edge, and another key", mixed, "ignature"),
    ] {
        let refused = verify(&bed, &assertion, AUDIENCE, BODY).expect_err(what);
        assert!(refused.contains("refused: ") && refused.contains(expected), "{what}: {refused}");
    }
    let refused = verify(&bed, &good, "refunds.shop.svc", BODY).unwrap_err();
    assert!(refused.contains("udience"), "{refused}");
    let refused = verify(&bed, &good, AUDIENCE, &BODY.replace('7', "8")).unwrap_err();
    assert!(refused.contains("another body"), "{refused}");
}
