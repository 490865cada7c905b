//! What holds for every scheme.

use super::hash::identity;
use super::keys::Key;
use super::testing::{Request, at, key};
use super::{Scheme, VerifyError, testing};

const SECRET: &str = "It's a Secret to Everybody";

fn example() -> Request {
    let mac = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
    Request::post("Hello, World!").header("x-hub-signature-256", mac)
}

fn named(id: &str, secret: &str) -> Key {
    Key { id: id.into(), ..key(&Scheme::Github, secret) }
}

#[test]
fn any_live_key_will_do_and_the_one_that_signed_is_named() {
    let keys = || ["other-secret-of-16", SECRET, "third-secret-of-16"].map(|secret| named(secret, secret));
    assert_eq!(example().verify(&Scheme::Github, &keys(), 0).unwrap().key_id, SECRET);
    let [first, _, third] = keys();
    assert_eq!(example().verify(&Scheme::Github, &[first, third], 0), Err(VerifyError::WrongSignature));
}

#[test]
fn a_key_is_accepted_from_its_beginning_until_before_its_end() {
    let bounded = || Key { not_before: Some(at(100)), not_after: Some(at(200)), ..named("key", SECRET) };
    for now in [100, 199] {
        assert!(example().verify(&Scheme::Github, &[bounded()], now).is_ok(), "{now}");
    }
    for now in [99, 200] {
        assert_eq!(example().verify(&Scheme::Github, &[bounded()], now), Err(VerifyError::NoKey), "{now}");
        let keys = [named("other", "other-secret-of-16"), bounded()];
        assert_eq!(example().verify(&Scheme::Github, &keys, now), Err(VerifyError::WrongSignature), "{now}");
    }
    assert_eq!(example().verify(&Scheme::Github, &[], 0), Err(VerifyError::NoKey));
}

/// Texts put together at random from what the schemes look for.
#[test]
fn whatever_comes_is_refused_without_panic() {
    const PIECES: [&str; 24] = [
        "v1,",
        "v0=",
        "sha256=",
        "t=",
        ",",
        " ",
        "=",
        ".",
        ":",
        ";",
        "(",
        ")",
        "\"",
        "\\",
        "Bearer ",
        "a",
        "0",
        "-1",
        "1614265330",
        "sha-256=:AAAA:",
        "\"@method\"",
        ";created=1614265330",
        "eyJhbGciOiJFZERTQSJ9",
        "%4",
    ];
    const HEADERS: [&str; 14] = [
        "webhook-id",
        "webhook-timestamp",
        "webhook-signature",
        "x-hub-signature-256",
        "stripe-signature",
        "x-slack-request-timestamp",
        "x-slack-signature",
        "x-shopify-hmac-sha256",
        "x-twilio-signature",
        "signature-input",
        "signature",
        "content-digest",
        "authorization",
        "content-type",
    ];
    let mut random = fastrand::Rng::with_seed(7);
    let schemes = testing::schemes();
    for _ in 0..20_000 {
        let mut text = || (0..random.usize(0..12)).map(|_| PIECES[random.usize(..PIECES.len())]).collect::<String>();
        let mut request = HEADERS.iter().fold(Request::post(text()), |request, name| request.header(name, &text()));
        request.authority = text();
        request.external_url = Some(text());
        request.uri = format!("/?{}", text().replace(['"', ' ', '\\'], "")).parse().unwrap();
        for (scheme, key) in &schemes {
            assert!(request.verify(scheme, std::slice::from_ref(key), 1_614_265_330).is_err());
        }
    }
}

#[test]
fn schemes_have_identities_of_their_own() {
    assert_ne!(identity("github", &[b"x"]), identity("shopify", &[b"x"]));
    assert_eq!(identity("github", &[b"x", b"y"]), identity("github", &[b"xy"]));
}
