//! Headers, read strictly: a value that two readers could understand differently is refused.

use http::{HeaderMap, HeaderName};

use super::error::VerifyError;

/// Maximum length of a value, in bytes.
const MAX_VALUE: usize = 8 * 1024;
/// Maximum length of a delivery ID, in bytes.
const MAX_ID: usize = 256;

/// The only value of a header, without the blanks around it; it may be empty.
pub(super) fn optional<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, VerifyError> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() || value.len() > MAX_VALUE {
        return Err(VerifyError::MalformedHeader);
    }
    let text = std::str::from_utf8(value.as_bytes()).map_err(|_| VerifyError::MalformedHeader)?;
    let text = text.trim_matches([' ', '\t']);
    if is_printable(text) { Ok(Some(text)) } else { Err(VerifyError::MalformedHeader) }
}

/// The only value of a required header; it is not empty.
pub(super) fn required<'a>(headers: &'a HeaderMap, name: &str) -> Result<&'a str, VerifyError> {
    match optional(headers, name)? {
        None => Err(VerifyError::MissingHeader),
        Some("") => Err(VerifyError::MalformedHeader),
        Some(value) => Ok(value),
    }
}

/// The ID in an optional header.
pub(super) fn optional_id(headers: &HeaderMap, name: &str) -> Result<Option<String>, VerifyError> {
    optional(headers, name)?.map(|text| id(text).map(str::to_owned)).transpose()
}

/// The delivery ID of the sender in an optional header, in the form of Standard Webhooks.
///
/// # Errors
/// When it is invalid.
pub fn delivery_id(headers: &HeaderMap, name: &HeaderName) -> Result<Option<String>, VerifyError> {
    let id = optional_id(headers, name.as_str())?;
    // With a dot in it, a part of the body could pass as a part of the ID, or the other way round.
    if id.as_ref().is_some_and(|id| id.contains('.')) { Err(VerifyError::MalformedHeader) } else { Ok(id) }
}

/// A delivery ID: 1 to 256 visible ASCII characters.
pub(super) fn id(text: &str) -> Result<&str, VerifyError> {
    let fits = (1..=MAX_ID).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    if fits { Ok(text) } else { Err(VerifyError::MalformedHeader) }
}

/// Whether a text is of visible ASCII characters and blanks only.
pub(super) fn is_printable(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn with(values: &[&[u8]]) -> HeaderMap {
        values.iter().map(|value| (http::header::ETAG, HeaderValue::from_bytes(value).unwrap())).collect()
    }

    #[test]
    fn a_header_is_there_once_and_readable() {
        assert_eq!(required(&with(&[b" a b\t"]), "etag"), Ok("a b"));
        assert_eq!(required(&with(&[]), "etag"), Err(VerifyError::MissingHeader));
        assert_eq!(optional(&with(&[]), "etag"), Ok(None));
        assert_eq!(optional(&with(&[b""]), "etag"), Ok(Some("")));
        for wrong in [&[&b"a"[..], b"a"][..], &[b""], &[b" "], &[b"a\tb"], &[b"\xe4"], &["ä".as_bytes()]] {
            assert_eq!(required(&with(wrong), "etag"), Err(VerifyError::MalformedHeader), "{wrong:?}");
        }
        let long = vec![b'a'; MAX_VALUE + 1];
        assert_eq!(required(&with(&[&long]), "etag"), Err(VerifyError::MalformedHeader));
    }

    #[test]
    fn an_id_is_short_and_visible() {
        assert_eq!(optional_id(&with(&[b"a-1"]), "etag"), Ok(Some("a-1".into())));
        let long = "a".repeat(MAX_ID + 1);
        for wrong in ["", "a b", &long] {
            assert_eq!(id(wrong), Err(VerifyError::MalformedHeader), "{wrong:?}");
        }
    }
}
