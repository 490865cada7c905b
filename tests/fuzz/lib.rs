//! Shared by the fuzz targets: a delivery is parsed from any bytes, and every accepted delivery must be signed.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a fuzz target fails by panicking"
)]

use credence::api::Verification;
use credence::edge::webhook::verify::keys::Key;
use credence::edge::webhook::verify::{Scheme, SignedRequest, Window};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use jiff::{SignedDuration, Timestamp};

/// A delivery, parsed from lines with method, URI and headers, an empty line, and the body.
pub struct Parts {
    pub method: Method,
    pub uri: Uri,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Parts {
    /// Returns `None` for bytes that an HTTP server would reject.
    pub fn read(data: &[u8]) -> Option<Self> {
        let split = data.windows(2).position(|pair| pair == b"\n\n");
        let (head, body) = split.map_or((data, &[][..]), |at| (&data[..at], &data[at + 2..]));
        let mut lines = head.split(|byte| *byte == b'\n');
        let method = Method::from_bytes(lines.next()?).ok()?;
        let uri = Uri::try_from(lines.next()?).ok()?;
        let mut headers = HeaderMap::new();
        for line in lines.take(100) {
            let colon = line.iter().position(|byte| *byte == b':')?;
            let name = HeaderName::from_bytes(&line[..colon]).ok()?;
            headers.append(name, HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?);
        }
        Some(Self { method, uri, headers, body: body.to_vec() })
    }
}

/// A scheme with one key.
pub struct Target {
    scheme: Scheme,
    keys: Vec<Key>,
    /// Whether the body is signed. If so, no other body may be accepted with the same headers.
    signs_body: bool,
}

impl Target {
    pub fn new(verification: serde_json::Value, key: &str, signs_body: bool) -> Self {
        let verification: Verification = serde_json::from_value(verification).unwrap();
        let scheme = Scheme::new(&verification).unwrap();
        let verifier = scheme.parse_key(key.as_bytes()).unwrap();
        let keys = vec![Key { id: "only".into(), not_before: None, not_after: None, verifier }];
        let target = Self { scheme, keys, signs_body };
        let seed = Parts::read(include_bytes!("seeds")).unwrap();
        assert!(target.accepts(&seed, &seed.body), "the scheme does not accept the seed");
        target
    }

    /// Verifies the delivery, and verifies an accepted one again with another body.
    pub fn run(&self, data: &[u8]) {
        let Some(parts) = Parts::read(data) else { return };
        if self.accepts(&parts, &parts.body) && self.signs_body {
            let mut other = parts.body.clone();
            other.push(b'!');
            assert!(!self.accepts(&parts, &other), "a body without a valid signature was accepted");
        }
    }

    fn accepts(&self, parts: &Parts, body: &[u8]) -> bool {
        let request = SignedRequest {
            method: &parts.method,
            uri: &parts.uri,
            authority: "hooks.example.com",
            external_url: Some("https://hooks.example.com/in"),
            headers: &parts.headers,
            body,
        };
        let window = Window { past: SignedDuration::from_mins(5), future: SignedDuration::from_mins(1) };
        // The time at which the seeds were signed.
        let now = Timestamp::from_second(1_764_000_000).unwrap();
        self.scheme.verify(&self.keys, &request, &window, now).is_ok()
    }
}

/// Applies at most 16 edits of four bytes each to a text: position (two bytes), operation, and byte.
pub fn edited(text: &[u8], edits: &[u8]) -> Vec<u8> {
    let mut text = text.to_vec();
    for [high, low, what, byte] in edits.as_chunks().0.iter().take(16) {
        let at = usize::from(u16::from_be_bytes([*high, *low])) % text.len().max(1);
        match what % 4 {
            _ if text.is_empty() => return text,
            0 => text[at] = *byte,
            1 => text.insert(at, *byte),
            2 => drop(text.remove(at)),
            // Limits the growth of a text without line breaks, which doubles with each repetition.
            _ if text.len() > 1 << 14 => {}
            _ => {
                // Repeats a line, as a sender that repeats a header would.
                let begin = text[..at].iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
                let line: Vec<u8> = text[begin..].split_inclusive(|byte| *byte == b'\n').next().unwrap().to_vec();
                text.splice(begin..begin, line);
            }
        }
    }
    text
}

/// A fuzz target for one scheme.
#[macro_export]
macro_rules! scheme {
    ($verification:tt, $key:expr, signs body: $signs:expr) => {
        static TARGET: std::sync::OnceLock<credence_fuzz::Target> = std::sync::OnceLock::new();
        libfuzzer_sys::fuzz_target!(|data: &[u8]| {
            let make = || credence_fuzz::Target::new(serde_json::json!($verification), $key, $signs);
            TARGET.get_or_init(make).run(data);
        });
    };
}
