//! Whether a delivery was signed by the holder of a live key, and is fresh. Pure: no I/O, and `now` is a parameter.
//!
//! Every scheme works on the bytes as they came, accepts each header exactly once, and tries every live key in constant time.
//! What is wrong goes to the audit log; the caller only learns that it was refused.

use http::{HeaderMap, HeaderName, Method, Uri};
use jiff::{SignedDuration, Timestamp};

use self::attempt::{Attempt, identity, sha256};
pub use self::material::Material;
pub use self::scheme::Scheme;
use super::keys::Key;
use crate::api::Tolerance;
use crate::domain::schedule::duration;

mod attempt;
pub(super) mod bearer;
mod encoding;
mod form;
#[cfg(fuzzing)]
pub mod fuzzing;
mod github;
mod gitlab;
mod header;
mod hmac;
mod http_signatures;
mod jwks;
mod jwt;
mod material;
mod scheme;
mod shopify;
mod slack;
mod standard_webhooks;
mod stripe;
mod target;
#[cfg(test)]
pub(super) mod testing;
mod timestamp;
mod twilio;

/// A delivery as it was received.
#[derive(Clone, Copy, Debug)]
pub struct Delivery<'a> {
    /// The method.
    pub method: &'a Method,
    /// The request target: path and query as received.
    pub uri: &'a Uri,
    /// Host and port that the caller meant (`Host` or `:authority`).
    pub authority: &'a str,
    /// The URL as callers know it, where the endpoint has one.
    pub external_url: Option<&'a str>,
    /// All headers.
    pub headers: &'a HeaderMap,
    /// The body, whole.
    pub body: &'a [u8],
}

/// How far a signed timestamp may be from the clock.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// How old it may be.
    pub past: SignedDuration,
    /// How far ahead it may be.
    pub future: SignedDuration,
}

impl Window {
    /// Takes over the settings of an endpoint.
    ///
    /// # Errors
    /// Says which value is wrong.
    pub fn compile(tolerance: Option<&Tolerance>) -> Result<Self, String> {
        let Tolerance { past, future } = tolerance.cloned().unwrap_or_default();
        Ok(Self {
            past: duration("tolerance.past", past.as_deref(), SignedDuration::from_mins(5))?,
            future: duration("tolerance.future", future.as_deref(), SignedDuration::from_mins(1))?,
        })
    }
}

/// A delivery that a live key has signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// ID of the key.
    pub key_id: String,
    /// ID of the delivery, whether signed or not: for people and for the audit log.
    pub delivery_id: Option<String>,
    /// When it was signed, where the scheme signs that.
    pub signed_at: Option<Timestamp>,
    /// What makes it the same delivery when it comes again: SHA-256 of the signed ID, or of everything that is signed.
    pub identity: [u8; 32],
}

/// Why a delivery was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// A header that the scheme needs is not there.
    MissingHeader,
    /// A header is there twice, or what it says cannot be read.
    MalformedHeader,
    /// The timestamp is older than the tolerance.
    TooOld,
    /// The timestamp is further ahead than the tolerance.
    TooNew,
    /// No key is live.
    NoKey,
    /// No live key has made the signature.
    WrongSignature,
    /// The digest in the headers is not that of the body.
    WrongDigest,
    /// The signature does not cover what it must.
    NotCovered,
    /// The algorithm is another than the endpoint's.
    WrongAlgorithm,
    /// The claims of a JWT are not those of the endpoint.
    WrongClaims,
}

/// Verifies a delivery.
///
/// # Errors
/// Why it is refused.
pub fn verify(
    scheme: &Scheme,
    keys: &[Key],
    delivery: &Delivery<'_>,
    window: &Window,
    now: Timestamp,
) -> Result<Verified, Refusal> {
    let attempt = Attempt { delivery, keys, window, now };
    match scheme {
        Scheme::StandardWebhooks => standard_webhooks::verify(&attempt),
        Scheme::Github => github::verify(&attempt),
        Scheme::Gitlab => gitlab::verify(&attempt),
        Scheme::Stripe => stripe::verify(&attempt),
        Scheme::Slack => slack::verify(&attempt),
        Scheme::Shopify => shopify::verify(&attempt),
        Scheme::Twilio => twilio::verify(&attempt),
        Scheme::HttpMessageSignatures(rules) => http_signatures::verify(&attempt, rules),
        Scheme::Hmac(layout) => hmac::verify(&attempt, layout),
        Scheme::Jwt(expected) => jwt::verify(&attempt, expected),
    }
}

/// The ID that a sender gives a delivery, if it does, in the form of Standard Webhooks.
///
/// # Errors
/// When it is there and cannot be one.
pub fn delivery_id(headers: &HeaderMap, name: &HeaderName) -> Result<Option<String>, Refusal> {
    let id = header::optional_id(headers, name.as_str())?;
    // A dot would let a part of the body pass for a part of the ID, or the other way round.
    if id.as_ref().is_some_and(|id| id.contains('.')) { Err(Refusal::MalformedHeader) } else { Ok(id) }
}

#[cfg(test)]
mod tests {
    use super::testing::{Request, at, key};
    use super::*;

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
        assert_eq!(example().verify(&Scheme::Github, &[first, third], 0), Err(Refusal::WrongSignature));
    }

    #[test]
    fn a_key_is_accepted_from_its_beginning_until_before_its_end() {
        let bounded = || Key { not_before: Some(at(100)), not_after: Some(at(200)), ..named("key", SECRET) };
        for now in [100, 199] {
            assert!(example().verify(&Scheme::Github, &[bounded()], now).is_ok(), "{now}");
        }
        for now in [99, 200] {
            assert_eq!(example().verify(&Scheme::Github, &[bounded()], now), Err(Refusal::NoKey), "{now}");
            let keys = [named("other", "other-secret-of-16"), bounded()];
            assert_eq!(example().verify(&Scheme::Github, &keys, now), Err(Refusal::WrongSignature), "{now}");
        }
        assert_eq!(example().verify(&Scheme::Github, &[], 0), Err(Refusal::NoKey));
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
            let mut text =
                || (0..random.usize(0..12)).map(|_| PIECES[random.usize(..PIECES.len())]).collect::<String>();
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
}
