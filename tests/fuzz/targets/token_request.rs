#![no_main]
//! A request for a token. One that is accepted says each thing once, however it is written, and is understood as a plain reader
//! understands it.

use std::collections::BTreeMap;

use credence::edge::tokens::fuzzing::{SubjectToken, TokenRequest};
use credence_fuzz::edited;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;

/// One parameter for each line, so that an edit can repeat a parameter; they are joined.
const REQUESTS: [&str; 2] = [
    "grant_type=client_credentials\n&audience=spiffe%3A%2F%2Fd%2Fns%2Fb%2Fsa%2Fpay\n&scope=a+b\n&client_id=c\n&resource=\n",
    "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange\n&resource=spiffe://d/ns/b/sa/pay\n&subject_token=a.b.c\n&subject_token_type=urn:ietf:params:oauth:token-type:jwt\n&requested_token_type=urn:ietf:params:oauth:token-type:access_token\n",
];

fuzz_target!(|data: &[u8]| {
    let Some((which, edits)) = data.split_first() else { return };
    let mut body = match REQUESTS.get(usize::from(*which) % (REQUESTS.len() + 1)) {
        Some(request) => edited(request.as_bytes(), edits),
        None => edits.to_vec(),
    };
    body.retain(|byte| *byte != b'\n');
    let form = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"))]);
    let Ok(request) = TokenRequest::parse(&form, &body) else { return };
    let mut parameters = BTreeMap::new();
    for pair in body.split(|byte| *byte == b'&') {
        let (name, value) = pair.split_at(pair.iter().position(|byte| *byte == b'=').unwrap_or(pair.len()));
        let value = decoded(value.strip_prefix(b"=").unwrap_or_default());
        if !value.is_empty() {
            assert_eq!(parameters.insert(decoded(name), value), None, "a parameter is there twice");
        }
    }
    let get = |name: &str| parameters.get(name).map(String::as_str);
    for audience in [get("audience"), get("resource")].into_iter().flatten() {
        assert_eq!(audience, request.audience);
    }
    assert!(get("audience").or(get("resource")).is_some());
    assert!(["client_secret", "client_assertion", "client_assertion_type"].iter().all(|name| get(name).is_none()));
    assert_eq!(request.client_id.as_deref(), get("client_id"));
    let scopes = get("scope").map(|scopes| scopes.split(' ').map(ToOwned::to_owned).collect());
    assert_eq!(request.scopes, scopes);
    let subject = request.subject_token.as_ref().map(SubjectToken::expose);
    match get("grant_type").unwrap() {
        "client_credentials" => assert_eq!(subject, None),
        "urn:ietf:params:oauth:grant-type:token-exchange" => assert!(subject.is_some() && subject == get("subject_token")),
        other => panic!("accepted {other}"),
    }
});

/// Decodes as the URL standard does: `+` is a space, and `%` without two digits is itself.
fn decoded(text: &[u8]) -> String {
    let (mut bytes, mut at) = (Vec::new(), 0);
    let digit = |at: usize| text.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    while at < text.len() {
        match (text[at], digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                bytes.push(u8::try_from(high * 16 + low).unwrap());
                at += 2;
            }
            (b'+', ..) => bytes.push(b' '),
            (byte, ..) => bytes.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
