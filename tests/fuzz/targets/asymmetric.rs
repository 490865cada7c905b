#![no_main]
//! HTTP Message Signatures with asymmetric keys: a correctly signed request is altered, and if it is still accepted, all
//! covered components are unchanged. The first example is from RFC 9421; the private keys of the others were not kept.

use std::sync::OnceLock;

use credence::edge::webhook::verify::keys::Key;
use credence::edge::webhook::verify::{Scheme, SignedRequest, Verified, Window};
use credence_fuzz::{Parts, edited};
use jiff::{SignedDuration, Timestamp};
use libfuzzer_sys::fuzz_target;

/// Algorithm, key ID, public key, and signature.
const SIGNED: [(&str, &str, &str, &str); 3] = [
    (
        "RsaPssSha512",
        "test-key-rsa-pss",
        "-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAr4tmm3r20Wd/PbqvP1s2
+QEtvpuRaV8Yq40gjUR8y2Rjxa6dpG2GXHbPfvMs8ct+Lh1GH45x28Rw3Ry53mm+
oAXjyQ86OnDkZ5N8lYbggD4O3w6M6pAvLkhk95AndTrifbIFPNU8PPMO7OyrFAHq
gDsznjPFmTOtCEcN2Z1FpWgchwuYLPL+Wokqltd11nqqzi+bJ9cvSKADYdUAAN5W
Utzdpiy6LbTgSxP7ociU4Tn0g5I6aDZJ7A8Lzo0KSyZYoA485mqcO0GVAdVw9lq4
aOT9v6d+nb4bnNkQVklLQ3fVAvJm+xdDOp9LCNCN48V2pnDOkFV6+U9nV5oyc6XI
2wIDAQAB
-----END PUBLIC KEY-----
",
        "HIbjHC5rS0BYaa9v4QfD4193TORw7u9edguPh0AW3dMq9WImrlFrCGUDih47vAxi4L2YRZ3XMJc1uOKk/J0ZmZ+wcta4nKIgBkKq0rM9hs3CQyxXGxHLMCy8uqK488o+9jrptQ+xFPHK7a9sRL1IXNaagCNN3ZxJsYapFj+JXbmaI5rtAdSfSvzPuBCh+ARHBmWuNo1UzVVdHXrl8ePL4cccqlazIJdC4QEjrF+Sn4IxBQzTZsL9y9TP5FsZYzHvDqbInkTNigBcE9cKOYNFCn4D/WM7F6TNuZO9EgtzepLWcjTymlHzK7aXq6Am6sfOrpIC49yXjj3ae6HRalVc/g==",
    ),
    (
        "Ed25519",
        "ed25519",
        "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAYFA5SN/7KQ0vDbvI929LmYI1omkSGJFWPkdfTAGnGHE=
-----END PUBLIC KEY-----
",
        "8N0m3hF5s2m79gb2vJlWhSUkmUzeaNJH0QaJ5PL4csFlCwdD6TpxTzCS58JMDxJ5tvPsN70HQ710M6teVssOCQ==",
    ),
    (
        "EcdsaP256Sha256",
        "p256",
        "-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE0vkubb+BorPur2uRjti5CXgqeuKN
1EltjVdj4usOxHI2O4T/mjdVRCymCOvGhpiGINffaoqu9X5YaGJU5QW7Fg==
-----END PUBLIC KEY-----
",
        "Q7eT9OHLQkcgOUKwvSFOy0H3CmVGSgj0zzlREnk0TtTLmaNmQAsmBx3GZtiS8RAPNbCY69Ydp3pWO0wIhtMalA==",
    ),
];

struct Signed {
    scheme: Scheme,
    keys: Vec<Key>,
    text: Vec<u8>,
    parts: Parts,
    verified: Verified,
}

impl Signed {
    fn new((algorithm, key_id, pem, signature): (&str, &str, &str, &str)) -> Self {
        let verification = serde_json::json!({"httpMessageSignatures": {"algorithm": algorithm}});
        let scheme = Scheme::new(&serde_json::from_value(verification).unwrap()).unwrap();
        let verifier = scheme.parse_key(pem.as_bytes()).unwrap();
        let keys = vec![Key { id: "only".into(), not_before: None, not_after: None, verifier }];
        let covered = r#""@method" "@authority" "@path" "content-digest" "content-length" "content-type""#;
        let digest = "WZDPaVn/7XgHaAy8pmojAkGWoRx2UFChF41A2svX+TaPm+AbwAgBWnrIiYllu7BNNyealdVLvRwEmTHWXvJwew==";
        let text = [
            "POST",
            "/foo?param=Value&Pet=dog",
            "date: Tue, 20 Apr 2021 02:07:55 GMT",
            "content-type: application/json",
            "content-length: 18",
            &format!("content-digest: sha-512=:{digest}:"),
            &format!("signature-input: sig1=({covered});created=1618884473;keyid=\"{key_id}\""),
            &format!("signature: sig1=:{signature}:"),
            "",
            r#"{"hello": "world"}"#,
        ];
        let text = text.join("\n").into_bytes();
        let parts = Parts::read(&text).unwrap();
        let verified = accept(&scheme, &keys, &parts).unwrap();
        Self { scheme, keys, text, parts, verified }
    }
}

fn accept(scheme: &Scheme, keys: &[Key], parts: &Parts) -> Option<Verified> {
    let Parts { method, uri, headers, body } = parts;
    let request = SignedRequest { method, uri, authority: "example.com", external_url: None, headers, body };
    let window = Window { past: SignedDuration::from_mins(5), future: SignedDuration::from_mins(1) };
    scheme.verify(keys, &request, &window, Timestamp::from_second(1_618_884_473).unwrap()).ok()
}

static ALL: OnceLock<[Signed; 3]> = OnceLock::new();

fuzz_target!(|data: &[u8]| {
    let Some((which, edits)) = data.split_first() else { return };
    let all = ALL.get_or_init(|| SIGNED.map(Signed::new));
    let Signed { scheme, keys, text, parts, verified } = &all[usize::from(*which) % all.len()];
    let Some(altered) = Parts::read(&edited(text, edits)) else { return };
    let Some(accepted) = accept(scheme, keys, &altered) else { return };
    assert_eq!(&accepted, verified);
    assert_eq!((&altered.method, altered.uri.path(), &altered.body), (&parts.method, parts.uri.path(), &parts.body));
    for name in ["content-digest", "content-length", "content-type"] {
        assert!(altered.headers.get_all(name).iter().eq(parts.headers.get_all(name)), "{name}");
    }
});
