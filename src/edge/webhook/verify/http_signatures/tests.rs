//! The examples of RFC 9421, and what is refused.

use aws_lc_rs::hmac;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};

use super::*;
use crate::api::Verification;
use crate::edge::encoding::{base64, to_base64};
use crate::edge::webhook::verify::keys::Key;
use crate::edge::webhook::verify::scheme::Scheme;
use crate::edge::webhook::verify::testing::{Request, at, key, refused_when_altered};

const NOW: i64 = 1_618_884_473;
const SECRET: &str = "uzvJfB4u3N0Jy4T7NZ75MDVcr8zSTInedJtkgcu46YW4XByzNJjxBdtjUkdJPBtbmHhIDi6pcl8jsasjlTMtDQ==";
const RSA: &str = "-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAr4tmm3r20Wd/PbqvP1s2
+QEtvpuRaV8Yq40gjUR8y2Rjxa6dpG2GXHbPfvMs8ct+Lh1GH45x28Rw3Ry53mm+
oAXjyQ86OnDkZ5N8lYbggD4O3w6M6pAvLkhk95AndTrifbIFPNU8PPMO7OyrFAHq
gDsznjPFmTOtCEcN2Z1FpWgchwuYLPL+Wokqltd11nqqzi+bJ9cvSKADYdUAAN5W
Utzdpiy6LbTgSxP7ociU4Tn0g5I6aDZJ7A8Lzo0KSyZYoA485mqcO0GVAdVw9lq4
aOT9v6d+nb4bnNkQVklLQ3fVAvJm+xdDOp9LCNCN48V2pnDOkFV6+U9nV5oyc6XI
2wIDAQAB
-----END PUBLIC KEY-----
";
const P256: &str = "-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEqIVYZVLCrPZHGHjP17CTW0/+D9Lf
w0EkjqF7xB4FivAxzic30tMM4GF+hR6Dxh71Z50VGGdldkkDXZCnTNnoXQ==
-----END PUBLIC KEY-----
";
const ED25519: &str = "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAJrQLj5P/89iXES9+vFgrIy29clF9CC/oPPsw3c5D0bs=
-----END PUBLIC KEY-----
";
const PLAIN: &str = r#""@method" "@target-uri" "content-digest""#;

fn scheme(algorithm: SignatureAlgorithm, components: &[&str], tag: Option<&str>) -> Scheme {
    let spec = HttpMessageSignatures {
        algorithm,
        components: components.iter().map(|&name| name.to_owned()).collect(),
        tag: tag.map(str::to_owned),
    };
    Scheme::new(&Verification { http_message_signatures: Some(spec), ..Verification::default() }).unwrap()
}

fn by_mac(tag: Option<&str>) -> Scheme {
    scheme(SignatureAlgorithm::HmacSha256, &[], tag)
}

/// The request of appendix B.2.
fn request() -> Request {
    let digest = "sha-512=:WZDPaVn/7XgHaAy8pmojAkGWoRx2UFChF41A2svX+TaPm+AbwAgBWnrIiYllu7BNNyealdVLvRwEmTHWXvJwew==:";
    let message = Request::post(r#"{"hello": "world"}"#)
        .header("date", "Tue, 20 Apr 2021 02:07:55 GMT")
        .header("content-type", "application/json")
        .header("content-digest", digest)
        .header("content-length", "18");
    Request { uri: "/foo?param=Value&Pet=dog".parse().unwrap(), authority: "example.com".into(), ..message }
}

fn signed(input: &str, signature: &str) -> Request {
    request().header("signature-input", input).header("signature", signature)
}

fn secret() -> Key {
    key(&by_mac(None), base64(SECRET).unwrap())
}

/// Signs with the shared secret whatever is covered.
fn sign(request: Request, covered: &str) -> Request {
    let input = format!("a={covered}");
    let base = signature_base(&request.signed_request(), &inner_lists(&input).unwrap()[0].1).unwrap();
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &base64(SECRET).unwrap()), base.as_bytes());
    request.set("signature-input", &input).set("signature", &format!("a=:{}:", to_base64(tag.as_ref())))
}

fn signed_with(covered: &str, parameters: &str) -> Result<Verified, VerifyError> {
    sign(request(), &format!("({covered}){parameters}")).verify(&by_mac(None), &[secret()], NOW)
}

#[test]
fn the_requests_of_the_standard_are_verified() {
    let scheme = scheme(SignatureAlgorithm::RsaPssSha512, &["content-type"], None);
    for (input, signature) in [
        (
            r#"sig1=("@method" "@authority" "@path" "content-digest" "content-length" "content-type");created=1618884473;keyid="test-key-rsa-pss""#,
            "sig1=:HIbjHC5rS0BYaa9v4QfD4193TORw7u9edguPh0AW3dMq9WImrlFrCGUDih47vAxi4L2YRZ3XMJc1uOKk/J0ZmZ+wcta4nKIgBkKq0rM9hs3CQyxXGxHLMCy8uqK488o+9jrptQ+xFPHK7a9sRL1IXNaagCNN3ZxJsYapFj+JXbmaI5rtAdSfSvzPuBCh+ARHBmWuNo1UzVVdHXrl8ePL4cccqlazIJdC4QEjrF+Sn4IxBQzTZsL9y9TP5FsZYzHvDqbInkTNigBcE9cKOYNFCn4D/WM7F6TNuZO9EgtzepLWcjTymlHzK7aXq6Am6sfOrpIC49yXjj3ae6HRalVc/g==:",
        ),
        (
            r#"sig-b23=("date" "@method" "@path" "@query" "@authority" "content-type" "content-digest" "content-length");created=1618884473;keyid="test-key-rsa-pss""#,
            "sig-b23=:bbN8oArOxYoyylQQUU6QYwrTuaxLwjAC9fbY2F6SVWvh0yBiMIRGOnMYwZ/5MR6fb0Kh1rIRASVxFkeGt683+qRpRRU5p2voTp768ZrCUb38K0fUxN0O0iC59DzYx8DFll5GmydPxSmme9v6ULbMFkl+V5B1TP/yPViV7KsLNmvKiLJH1pFkh/aYA2HXXZzNBXmIkoQoLd7YfW91kE9o/CCoC1xMy7JA1ipwvKvfrs65ldmlu9bpG6A9BmzhuzF8Eim5f8ui9eH8LZH896+QIF61ka39VBrohr9iyMUJpvRX2Zbhl5ZJzSRxpJyoEZAFL2FUo5fTIztsDZKEgM4cUA==:",
        ),
    ] {
        let message = signed(input, signature);
        let verified = message.verify(&scheme, &[key(&scheme, RSA)], NOW).unwrap();
        assert_eq!((verified.signed_at, verified.delivery_id), (Some(at(NOW)), None));
        let other_body = Request { body: b"{}".into(), ..message.clone() };
        assert_eq!(other_body.verify(&scheme, &[key(&scheme, RSA)], NOW), Err(VerifyError::WrongDigest));
        let other_type = message.set("content-type", "text/plain");
        assert_eq!(other_type.verify(&scheme, &[key(&scheme, RSA)], NOW), Err(VerifyError::WrongSignature));
    }
}

/// The standard's other examples cover too little; the base and the signature are right all the same.
#[test]
fn what_covers_too_little_is_refused_though_its_signature_is_right() {
    for (algorithm, text, input, signature) in [
        (
            SignatureAlgorithm::RsaPssSha512,
            RSA.as_bytes().to_vec(),
            r#"sig-b22=("@authority" "content-digest" "@query-param";name="Pet");created=1618884473;keyid="test-key-rsa-pss";tag="header-example""#,
            "sig-b22=:LjbtqUbfmvjj5C5kr1Ugj4PmLYvx9wVjZvD9GsTT4F7GrcQEdJzgI9qHxICagShLRiLMlAJjtq6N4CDfKtjvuJyE5qH7KT8UCMkSowOB4+ECxCmT8rtAmj/0PIXxi0A0nxKyB09RNrCQibbUjsLS/2YyFYXEu4TRJQzRw1rLEuEfY17SARYhpTlaqwZVtR8NV7+4UKkjqpcAoFqWFQh62s7Cl+H2fjBSpqfZUJcsIk4N6wiKYd4je2U/lankenQ99PZfB4jY3I5rSV2DSBVkSFsURIjYErOs0tFTQosMTAoxk//0RoKUqiYY8Bh0aaUEb0rQl3/XaVe4bXTugEjHSw==:",
        ),
        (
            SignatureAlgorithm::HmacSha256,
            base64(SECRET).unwrap(),
            r#"sig-b25=("date" "@authority" "content-type");created=1618884473;keyid="test-shared-secret""#,
            "sig-b25=:pxcQw6G3AjtMBQjwo8XzkZf/bws5LelbaMk5rGIGtE8=:",
        ),
        (
            SignatureAlgorithm::Ed25519,
            ED25519.as_bytes().to_vec(),
            r#"sig-b26=("date" "@method" "@path" "@authority" "content-type" "content-length");created=1618884473;keyid="test-key-ed25519""#,
            "sig-b26=:wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRCw==:",
        ),
    ] {
        let scheme = scheme(algorithm, &[], None);
        let Scheme::HttpMessageSignatures(rules) = &scheme else { panic!() };
        let key = key(&scheme, &text);
        let base = signature_base(&request().signed_request(), &inner_lists(input).unwrap()[0].1).unwrap();
        let bytes = byte_sequences(signature).unwrap().remove(0).1;
        assert!(rules.verify(&key.verifier, base.as_bytes(), &[bytes]), "{input}");
        assert_eq!(signed(input, signature).verify(&scheme, &[key], NOW), Err(VerifyError::NotCovered), "{input}");
    }
}

/// Appendix B.2.4 signs a response, of which only the key and the signature are of use here.
#[test]
fn the_ecdsa_signature_of_the_standard_is_verified() {
    let base = concat!(
        "\"@status\": 200\n",
        "\"content-type\": application/json\n",
        "\"content-digest\": sha-512=:mEWXIS7MaLRuGgxOBdODa3xqM1XdEvxoYhvlCFJ41QJgJc4GTsPp29l5oGX69wWdXymyU0rjJuahq4l5aGgfLQ==:\n",
        "\"content-length\": 23\n",
        "\"@signature-params\": (\"@status\" \"content-type\" \"content-digest\" \"content-length\");created=1618884473;keyid=\"test-key-ecc-p256\"",
    );
    let scheme = scheme(SignatureAlgorithm::EcdsaP256Sha256, &[], None);
    let Scheme::HttpMessageSignatures(rules) = &scheme else { panic!() };
    let signature = "wNmSUAhwb5LxtOtOpNa6W5xj067m5hFrj0XQ4fvpaCLx0NKocgPquLgyahnzDnDAUy5eCdlYUEkLIj+32oiasw==";
    let signature = [base64(signature).unwrap()];
    let verifier = key(&scheme, P256).verifier;
    assert!(rules.verify(&verifier, base.as_bytes(), &signature));
    assert!(!rules.verify(&verifier, base.replace("200", "201").as_bytes(), &signature));
}

#[test]
fn whatever_is_altered_is_refused() {
    let example = sign(request(), &format!("({PLAIN});created={NOW};nonce=\"n-1\""));
    let verify = |request: &Request| request.verify(&by_mac(None), &[secret()], NOW);
    assert_eq!(verify(&example).unwrap().delivery_id.as_deref(), Some("n-1"));
    refused_when_altered(&example, &["content-digest", "signature-input", "signature"], verify);
    let elsewhere = Request { uri: "/foo".parse().unwrap(), ..example.clone() };
    assert_eq!(verify(&elsewhere), Err(VerifyError::WrongSignature));
    let other_host = Request { authority: "example.org".into(), ..example.clone() };
    assert_eq!(verify(&other_host), Err(VerifyError::WrongSignature));
    let other_method = Request { method: http::Method::PUT, ..example };
    assert_eq!(verify(&other_method), Err(VerifyError::WrongSignature));
}

#[test]
fn what_must_be_covered_is() {
    let now = format!(";created={NOW}");
    for enough in [PLAIN, r#""@method" "@authority" "@path" "content-digest" "date""#] {
        assert!(signed_with(enough, &now).is_ok(), "{enough}");
    }
    for little in [
        r#""@target-uri" "content-digest""#,
        r#""@method" "content-digest""#,
        r#""@method" "@target-uri""#,
        r#""@method" "@path" "content-digest""#,
        r#""@method" "@authority" "@query" "content-digest""#,
    ] {
        assert_eq!(signed_with(little, &now), Err(VerifyError::NotCovered), "{little}");
    }
    let with_date = scheme(SignatureAlgorithm::HmacSha256, &["date"], None);
    let undated = sign(request(), &format!("({PLAIN}){now}"));
    assert_eq!(undated.verify(&with_date, &[secret()], NOW), Err(VerifyError::NotCovered));
    assert_eq!(signed_with(PLAIN, ""), Err(VerifyError::NotCovered));
}

#[test]
fn parameters_are_honoured() {
    let created = |seconds: i64, more: &str| signed_with(PLAIN, &format!(";created={seconds}{more}")).map(|_| ());
    assert_eq!(created(NOW - 301, ""), Err(VerifyError::TooOld));
    assert_eq!(created(NOW + 61, ""), Err(VerifyError::TooNew));
    assert_eq!(created(-1, ""), Err(VerifyError::TooOld));
    assert_eq!(created(NOW - 10, &format!(";expires={NOW}")), Err(VerifyError::TooOld));
    assert_eq!(created(NOW - 10, &format!(";expires={}", NOW + 1)), Ok(()));
    assert_eq!(created(NOW, r#";alg="hmac-sha256""#), Ok(()));
    assert_eq!(created(NOW, r#";alg="ed25519""#), Err(VerifyError::WrongAlgorithm));
    assert_eq!(created(NOW, r#";keyid="unknown""#), Ok(()));
    for wrong in [";unknown=1", ";alg=hmac-sha256", ";expires=\"1\"", ";nonce=:AQI=:", ";tag", ";nonce=\"a b\""] {
        assert_eq!(created(NOW, wrong), Err(VerifyError::MalformedHeader), "{wrong}");
    }
    assert_eq!(signed_with(PLAIN, &format!(";created=\"{NOW}\"")), Err(VerifyError::MalformedHeader));
}

#[test]
fn a_key_that_is_named_is_the_only_one_tried() {
    let other = || Key { id: "other".into(), ..key(&by_mac(None), "0123456789abcdef") };
    let named = |id: &str| {
        sign(request(), &format!("({PLAIN});created={NOW};keyid=\"{id}\""))
            .verify(&by_mac(None), &[secret(), other()], NOW)
            .map(|verified| verified.key_id)
    };
    assert_eq!(named("key"), Ok("key".into()));
    assert_eq!(named("other"), Err(VerifyError::WrongSignature));
    assert_eq!(named("unknown"), Ok("key".into()));
}

#[test]
fn of_several_signatures_the_tag_tells_the_one_that_counts() {
    let tagged = sign(request(), &format!("({PLAIN});created={NOW};tag=\"app\""));
    let text = |name: &str| tagged.headers[name].to_str().unwrap().to_owned();
    let (input, signature) = (text("signature-input"), text("signature"));
    let with = |input: &str, tag| {
        let signatures = format!("{signature}, b=:AAAA:");
        let message = tagged.clone().set("signature-input", input).set("signature", &signatures);
        message.verify(&by_mac(tag), &[secret()], NOW).map(|_| ())
    };
    let two = format!("{input}, b=(\"@method\";req);tag=\"proxy\"");
    assert_eq!(with(&input, None), Ok(()));
    assert_eq!(with(&input, Some("app")), Ok(()));
    assert_eq!(with(&two, Some("app")), Ok(()));
    assert_eq!(with(&two, None), Err(VerifyError::MalformedHeader));
    assert_eq!(with(&input, Some("other")), Err(VerifyError::NotCovered));
    assert_eq!(with(&format!("{input}, b=();tag=\"app\""), Some("app")), Err(VerifyError::MalformedHeader));
    assert_eq!(with(&input.replace("a=", "c="), Some("app")), Err(VerifyError::MissingHeader));
}

#[test]
fn a_public_key_is_used_by_its_own_algorithm_only() {
    let pair = Ed25519KeyPair::from_seed_unchecked(&[9; 32]).unwrap();
    let scheme = scheme(SignatureAlgorithm::Ed25519, &[], None);
    let der = [b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00".as_slice(), pair.public_key().as_ref()].concat();
    let public = key(&scheme, format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", to_base64(&der)));
    let input = format!("a=({PLAIN});created={NOW}");
    let base = signature_base(&request().signed_request(), &inner_lists(&input).unwrap()[0].1).unwrap();
    let signature = format!("a=:{}:", to_base64(pair.sign(base.as_bytes()).as_ref()));
    let keys = [secret(), public];
    assert!(signed(&input, &signature).verify(&scheme, &keys, NOW).is_ok());
    assert_eq!(signed(&input, &signature).verify(&by_mac(None), &keys, NOW), Err(VerifyError::WrongSignature));
    let by_secret = sign(request(), &format!("({PLAIN});created={NOW}"));
    assert_eq!(by_secret.verify(&scheme, &keys, NOW), Err(VerifyError::WrongSignature));
}

#[test]
fn the_name_of_a_required_header_is_checked() {
    let spec =
        HttpMessageSignatures { algorithm: SignatureAlgorithm::Ed25519, components: vec!["Date".into()], tag: None };
    assert!(Rules::new(&spec).unwrap_err().message.contains("Date"));
}
