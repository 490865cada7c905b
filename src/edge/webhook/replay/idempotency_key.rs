//! The idempotency key in the body of a delivery.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// Where the idempotency key is: a JSON Pointer (RFC 6901), as its reference tokens.
#[derive(Clone, Debug)]
pub struct KeyPointer(Vec<String>);

impl KeyPointer {
    /// Reads a pointer such as `/data/id`, which the API server has checked.
    #[must_use]
    pub fn new(pointer: &str) -> Self {
        Self(pointer.split('/').skip(1).map(|token| token.replace("~1", "/").replace("~0", "~")).collect())
    }

    /// The key in a body: the text of a string, or a number as it is written, since a number that is read into a machine's may
    /// become the same as another one. `None` when the body is not JSON, has no such value or an empty one, or names a member on
    /// the way to it twice: readers differ in which one they take.
    #[must_use]
    pub fn find<'a>(&self, body: &'a [u8]) -> Option<Cow<'a, str>> {
        let mut reader = serde_json::Deserializer::from_slice(body);
        let value = Below(&self.0).deserialize(&mut reader).ok().flatten()?;
        reader.end().ok()?;
        match value.get().as_bytes().first()? {
            b'"' => serde_json::from_str::<Text>(value.get()).ok().map(|text| text.0).filter(|text| !text.is_empty()),
            b'-' | b'0'..=b'9' => Some(Cow::Borrowed(value.get())),
            _ => None,
        }
    }
}

/// A string, borrowed unless it has escapes.
#[derive(serde::Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// Reads the value that these tokens lead to, and skips all others.
struct Below<'t>(&'t [String]);

impl<'de> DeserializeSeed<'de> for Below<'_> {
    type Value = Option<&'de RawValue>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        match self.0 {
            [] => serde::Deserialize::deserialize(deserializer).map(Some),
            [token, rest @ ..] => deserializer.deserialize_any(Step { token, rest }),
        }
    }
}

/// Looks for one token in an object or an array. Whatever else stands there leads nowhere.
struct Step<'t> {
    token: &'t str,
    rest: &'t [String],
}

impl Step<'_> {
    /// The token as the index of an array.
    fn index(&self) -> Option<usize> {
        let canonical = self.token == "0" || self.token.starts_with(|first: char| ('1'..='9').contains(&first));
        self.token.parse().ok().filter(|_| canonical)
    }
}

impl<'de> Visitor<'de> for Step<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object or an array")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(Text(name)) = map.next_key()? {
            if name != self.token {
                map.next_value::<IgnoredAny>()?;
            } else if found.replace(map.next_value_seed(Below(self.rest))?).is_some() {
                return Err(A::Error::custom("duplicate member"));
            }
        }
        Ok(found.flatten())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        for _ in 0..self.index().unwrap_or(usize::MAX) {
            if list.next_element::<IgnoredAny>()?.is_none() {
                return Ok(None);
            }
        }
        let found = list.next_element_seed(Below(self.rest))?;
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(found.flatten())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(pointer: &str, body: &str) -> Option<String> {
        KeyPointer::new(pointer).find(body.as_bytes()).map(Cow::into_owned)
    }

    fn id(value: &str) -> Option<String> {
        find("/id", &format!(r#"{{"id": {value}, "more": [1, {{"id": 7}}]}}"#))
    }

    #[test]
    fn numbers_are_the_same_only_when_they_are_written_the_same() {
        let written = [
            "20261125223400000001",
            "20261125223400000002",
            "9007199254740993",
            "9007199254740992",
            "1",
            "1.0",
            "1.00",
            "1e0",
            "-1",
            "0.1",
            "0.1000000000000000055",
            "1e400",
        ];
        for number in written {
            assert_eq!(id(number).as_deref(), Some(number));
        }
    }

    #[test]
    fn a_key_is_what_earlier_versions_remembered() {
        for value in ["1", "18446744073709551615", "-9223372036854775808", "1.5", r#""evt_1""#, r#""a\u00e9\n\"""#] {
            let before = match serde_json::from_str(value).unwrap() {
                serde_json::Value::String(text) => text,
                other => other.to_string(),
            };
            assert_eq!(id(value), Some(before), "{value}");
        }
        assert_eq!(id(r#""\u0061""#), id(r#""a""#), "a string is what its escapes stand for");
    }

    #[test]
    fn only_a_string_or_a_number_is_a_key() {
        for value in ["null", "true", r#""""#, "{}", "[1]", r#""\ud800""#] {
            assert_eq!(id(value), None, "{value}");
        }
        for body in ["", "1", r#"{"id": 1"#, r#"{"id": 1} {}"#, r#"{"id": 01}"#, r#"{"other": 1}"#] {
            assert_eq!(find("/id", body), None, "{body}");
        }
    }

    #[test]
    fn a_member_that_stands_there_twice_is_no_key() {
        assert_eq!(find("/id", r#"{"id": 1, "id": 2}"#), None);
        assert_eq!(find("/id", r#"{"id": 1, "\u0069d": 1}"#), None);
        assert_eq!(find("/a/id", r#"{"a": {"id": 1}, "a": {}}"#), None);
        assert_eq!(find("/id", r#"{"x": 1, "id": 1, "x": 2}"#).as_deref(), Some("1"), "others lead elsewhere");
    }

    #[test]
    fn a_pointer_is_followed_as_rfc_6901_says() {
        let body = r#"{"a/b": {"~": [10, {"": 11}]}, "": {"": 12}, "0": {"00": 13}}"#;
        assert_eq!(find("/a~1b/~0/0", body).as_deref(), Some("10"));
        assert_eq!(find("/a~1b/~0/1/", body).as_deref(), Some("11"));
        assert_eq!(find("//", body).as_deref(), Some("12"));
        assert_eq!(find("/0/00", body).as_deref(), Some("13"), "the name of a member may look like an index");
        for pointer in ["/a~1b/~0/00", "/a~1b/~0/+0", "/a~1b/~0/-", "/a~1b/~0/2", "/a~1b/~0/0/0", "/a~1b/~0/x"] {
            assert_eq!(find(pointer, body), None, "{pointer}");
        }
    }
}
