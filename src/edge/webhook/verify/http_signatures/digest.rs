//! `Content-Digest` (RFC 9530).

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, SHA512, digest};

use super::super::error::VerifyError;
use super::super::header;
use super::super::request::SignedRequest;
use super::reader::byte_sequences;

/// Checks that every digest of a known algorithm is that of the body, and that there is one.
pub(super) fn check(request: &SignedRequest<'_>) -> Result<(), VerifyError> {
    let text = header::required(request.headers, "content-digest")?;
    let digests = byte_sequences(text).ok_or(VerifyError::MalformedHeader)?;
    let mut known = 0;
    for (name, expected) in &digests {
        let algorithm = match *name {
            "sha-256" => &SHA256,
            "sha-512" => &SHA512,
            _ => continue,
        };
        known += 1;
        let actual = digest(algorithm, request.body);
        verify_slices_are_equal(actual.as_ref(), expected).map_err(|_| VerifyError::WrongDigest)?;
    }
    if known == 0 { Err(VerifyError::WrongDigest) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue, Method, Uri};

    use super::*;

    const SHORT: &str = "sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:";
    const LONG: &str =
        "sha-512=:WZDPaVn/7XgHaAy8pmojAkGWoRx2UFChF41A2svX+TaPm+AbwAgBWnrIiYllu7BNNyealdVLvRwEmTHWXvJwew==:";

    fn check_body(value: &str, body: &[u8]) -> Result<(), VerifyError> {
        let headers = &HeaderMap::from_iter([(
            http::HeaderName::from_static("content-digest"),
            HeaderValue::from_str(value).unwrap(),
        )]);
        let (method, uri) = (&Method::POST, &Uri::from_static("/"));
        check(&SignedRequest { method, uri, authority: "a", external_url: None, headers, body })
    }

    #[test]
    fn every_known_digest_must_match() {
        let body = br#"{"hello": "world"}"#;
        for good in [SHORT, LONG, &format!("{SHORT}, {LONG}"), &format!("md5=:AAAA:, {SHORT}")] {
            assert_eq!(check_body(good, body), Ok(()), "{good}");
            assert_eq!(check_body(good, b"{}"), Err(VerifyError::WrongDigest), "{good}");
        }
        let wrong = SHORT.replace('X', "Y");
        assert_eq!(check_body(&format!("{wrong}, {LONG}"), body), Err(VerifyError::WrongDigest));
        assert_eq!(check_body("md5=:AAAA:", body), Err(VerifyError::WrongDigest));
        assert_eq!(check_body("sha-256=::", body), Err(VerifyError::WrongDigest));
        assert_eq!(check_body(&format!("{SHORT}, {SHORT}"), body), Err(VerifyError::MalformedHeader));
    }
}
