//! Encodings, read strictly: each value has one text only. Otherwise a signature could be rewritten and pass as another one.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

/// Hexadecimal in lower case.
#[must_use]
pub fn hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}

/// Base64 (RFC 4648 section 4) with padding.
#[must_use]
pub fn base64(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}

/// Writes base64 (RFC 4648 section 4) with padding.
#[must_use]
pub fn to_base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// Base64 for URLs (RFC 4648 section 5) without padding.
#[must_use]
pub fn base64url(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_is_in_lower_case_and_whole() {
        assert_eq!(hex("00ff7a"), Some(vec![0, 255, 122]));
        assert_eq!(hex(""), Some(vec![]));
        for wrong in ["0", "0F", "0g", " 00", "00 ", "0x00", "é0"] {
            assert_eq!(hex(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn base64_has_one_text_for_one_value() {
        assert_eq!(base64("AQI="), Some(vec![1, 2]));
        for wrong in ["AQI", "AQJ=", "AQI==", "AQI= ", "AQ I=", "AQI=\n", "_-8="] {
            assert_eq!(base64(wrong), None, "{wrong}");
        }
        assert_eq!(base64url("_-8"), Some(vec![255, 239]));
        for wrong in ["_-8=", "_-9", "/+8", "_- 8"] {
            assert_eq!(base64url(wrong), None, "{wrong}");
        }
    }
}
