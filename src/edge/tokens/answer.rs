//! The answers of the issuer. Pure.

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Body;
use serde_json::json;

use super::issuer::{Document, Issued};
use super::outcome::Reason;
use super::request::ACCESS_TOKEN;

/// What a client gets.
pub type Answer = Response<Full<Bytes>>;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// The media type of a key set (RFC 7517 section 8.5.2).
pub const JWK_SET: HeaderValue = HeaderValue::from_static("application/jwk-set+json");
/// A verifier asks every few minutes, and goes on with what it has while the issuer is away.
const CACHED: HeaderValue =
    HeaderValue::from_static("public, max-age=300, stale-while-revalidate=60, stale-if-error=86400");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// Nothing but a status.
#[must_use]
pub fn status(status: StatusCode) -> Answer {
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = status;
    answer
}

/// There is something at this path, and it is asked for with these methods.
#[must_use]
pub fn wrong_method(allowed: &'static str) -> Answer {
    let mut answer = status(StatusCode::METHOD_NOT_ALLOWED);
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    answer
}

/// A document, unless the client has it already.
#[must_use]
pub fn document(document: &Document, media_type: Option<HeaderValue>, headers: &HeaderMap) -> Answer {
    let has_it = headers.get_all(IF_NONE_MATCH).iter().any(|known| matches(known, &document.etag));
    let mut answer = if has_it {
        status(StatusCode::NOT_MODIFIED)
    } else {
        let mut answer = Response::new(Full::new(document.text.clone()));
        answer.headers_mut().insert(CONTENT_TYPE, media_type.unwrap_or(JSON));
        answer
    };
    answer.headers_mut().insert(ETAG, document.etag.clone());
    answer.headers_mut().insert(CACHE_CONTROL, CACHED);
    answer
}

/// The answer to HEAD: that to GET without its content (RFC 9110 section 9.3.2). HTTP/2 does not leave it out by itself.
#[must_use]
pub fn without_content(answer: Answer) -> Answer {
    let (mut head, body) = answer.into_parts();
    if let Some(length) = body.size_hint().exact().filter(|_| head.status != StatusCode::NOT_MODIFIED) {
        head.headers.insert(CONTENT_LENGTH, length.into());
    }
    Response::from_parts(head, Full::default())
}

/// Whether `If-None-Match` names a validator, by the weak comparison (RFC 9110 section 13.1.2). No validator here contains a comma.
fn matches(known: &HeaderValue, etag: &HeaderValue) -> bool {
    let (Ok(known), Ok(etag)) = (known.to_str(), etag.to_str()) else { return false };
    known.split(',').map(str::trim).any(|known| known == "*" || known.strip_prefix("W/").unwrap_or(known) == etag)
}

/// A token (RFC 6749 section 5.1); one that was exchanged says what it is (RFC 8693 section 2.2.1).
#[must_use]
pub fn token(issued: &Issued, is_exchanged: bool) -> Answer {
    let mut body = json!({"access_token": issued.token, "token_type": "Bearer", "expires_in": issued.expires_in});
    if let Some(scope) = &issued.scope {
        body["scope"] = scope.as_str().into();
    }
    if is_exchanged {
        body["issued_token_type"] = ACCESS_TOKEN.into();
    }
    private(StatusCode::OK, body.to_string())
}

/// Why there is no token (RFC 6749 section 5.2).
#[must_use]
pub fn refusal(reason: Reason) -> Answer {
    let (status, error) = reason.error();
    private(status, json!({"error": error, "error_description": reason.description()}).to_string())
}

fn private(status: StatusCode, body: String) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, JSON);
    answer.headers_mut().insert(CACHE_CONTROL, NO_STORE);
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_has_the_document_is_not_sent_it_again() {
        let known = Document { text: Bytes::from_static(b"{}"), etag: HeaderValue::from_static("\"abc\"") };
        for (header, expected) in
            [("\"abc\"", 304), ("W/\"abc\"", 304), ("\"x\", \"abc\"", 304), ("*", 304), ("\"x\"", 200), ("abc", 200)]
        {
            let headers = HeaderMap::from_iter([(IF_NONE_MATCH, HeaderValue::from_static(header))]);
            assert_eq!(document(&known, None, &headers).status(), expected, "{header}");
        }
        let whole = document(&known, Some(JWK_SET), &HeaderMap::new());
        assert_eq!(whole.headers()[CONTENT_TYPE], JWK_SET);
        let head = without_content(whole);
        assert_eq!((head.headers()[CONTENT_LENGTH].to_str().unwrap(), head.body().size_hint().exact()), ("2", Some(0)));
    }

    #[test]
    fn what_concerns_one_client_is_not_stored() {
        for reason in Reason::ALL.into_iter().filter(|reason| *reason != Reason::Issued) {
            let answer = refusal(reason);
            assert_eq!(answer.headers()[CACHE_CONTROL], NO_STORE);
            assert!(answer.status().is_client_error() || answer.status().is_server_error(), "{reason:?}");
        }
    }
}
