//! Forms (`application/x-www-form-urlencoded`), read strictly and as bytes: a lenient reader would give one
//! meaning to several texts.

/// A name and its value, decoded.
pub(super) type Field = (Vec<u8>, Vec<u8>);

/// Reads a form; `None` if it is invalid or has more fields than `max`.
pub(super) fn parse(text: &[u8], max: usize) -> Option<Vec<Field>> {
    if text.is_empty() {
        return Some(Vec::new());
    }
    let mut fields = Vec::new();
    for field in text.split(|byte| *byte == b'&') {
        if field.is_empty() || fields.len() >= max {
            return None;
        }
        let mut halves = field.splitn(2, |byte| *byte == b'=');
        fields.push((decode(halves.next()?)?, decode(halves.next().unwrap_or_default())?));
    }
    Some(fields)
}

fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: Option<&u8>| char::from(*byte?).to_digit(16);
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => u8::try_from(digit(bytes.next())? * 16 + digit(bytes.next())?).ok()?,
            other => *other,
        });
    }
    Some(decoded)
}

/// Encodes as RFC 9421 wants it: all but letters, digits and `*-._` becomes `%XX`, a blank too.
pub(super) fn encode(bytes: &[u8]) -> String {
    let mut encoded = String::with_capacity(bytes.len());
    for byte in bytes {
        if byte.is_ascii_alphanumeric() || b"*-._".contains(byte) {
            encoded.push(char::from(*byte));
        } else {
            encoded.push('%');
            let digits = [byte >> 4, byte & 15].into_iter().filter_map(|digit| char::from_digit(digit.into(), 16));
            encoded.extend(digits.map(|digit| digit.to_ascii_uppercase()));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(name: &str, value: &str) -> Field {
        (name.into(), value.into())
    }

    #[test]
    fn fields_keep_their_order_and_are_decoded() {
        let fields = parse(b"b=1&a=x+y%2B%c3%A4&a=&c&d==", 5);
        let expected = vec![field("b", "1"), field("a", "x y+ä"), field("a", ""), field("c", ""), field("d", "=")];
        assert_eq!(fields, Some(expected));
        assert_eq!(parse(b"", 0), Some(vec![]));
    }

    #[test]
    fn what_is_broken_is_not_mended() {
        for wrong in ["a=%", "a=%4", "a=%4g", "%zz=1", "a=1&&b=2", "a=1&", "&a=1", "a=%+1"] {
            assert_eq!(parse(wrong.as_bytes(), 10), None, "{wrong}");
        }
        assert_eq!(parse(b"a&b&c", 2), None);
    }

    #[test]
    fn what_is_encoded_is_read_again() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(parse(encode(&all).as_bytes(), 1), Some(vec![(all, vec![])]));
        assert_eq!(encode("a b+ä*-._~".as_bytes()), "a%20b%2B%C3%A4*-._%7E");
    }
}
