//! Structured fields (RFC 8941), as far as signatures use them, in their canonical form.

use std::fmt;

use crate::edge::encoding;

/// A value without parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Integer(i64),
    Text(Text<'a>),
    Token(&'a str),
    Bytes(Vec<u8>),
    Boolean(bool),
}

/// A string as it is between its quotes, with escapes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Text<'a>(pub(super) &'a str);

impl<'a> Text<'a> {
    /// Whether its value is this.
    pub(super) fn is(self, plain: &str) -> bool {
        let mut characters = self.0.chars();
        let unescaped = std::iter::from_fn(|| match characters.next()? {
            '\\' => characters.next(),
            other => Some(other),
        });
        unescaped.eq(plain.chars())
    }

    /// Its value, if it has no escapes.
    pub(super) fn plain(self) -> Option<&'a str> {
        (!self.0.contains('\\')).then_some(self.0)
    }
}

/// Parameters in their order.
pub(super) type Parameters<'a> = Vec<(&'a str, Value<'a>)>;

/// A value with parameters.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Item<'a> {
    pub value: Value<'a>,
    pub parameters: Parameters<'a>,
}

/// Items with parameters of their own.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct InnerList<'a> {
    pub items: Vec<Item<'a>>,
    pub parameters: Parameters<'a>,
}

impl fmt::Display for Value<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Integer(number) => write!(formatter, "{number}"),
            Self::Text(text) => write!(formatter, "\"{}\"", text.0),
            Self::Token(token) => formatter.write_str(token),
            Self::Bytes(bytes) => write!(formatter, ":{}:", encoding::to_base64(bytes)),
            Self::Boolean(value) => write!(formatter, "?{}", u8::from(*value)),
        }
    }
}

fn write_parameters(parameters: &Parameters<'_>, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
    for (key, value) in parameters {
        match value {
            Value::Boolean(true) => write!(formatter, ";{key}")?,
            value => write!(formatter, ";{key}={value}")?,
        }
    }
    Ok(())
}

impl fmt::Display for Item<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(formatter)?;
        write_parameters(&self.parameters, formatter)
    }
}

impl fmt::Display for InnerList<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("(")?;
        for (position, item) in self.items.iter().enumerate() {
            write!(formatter, "{}{item}", if position == 0 { "" } else { " " })?;
        }
        formatter.write_str(")")?;
        write_parameters(&self.parameters, formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_compared_by_what_it_means() {
        assert!(Text(r#"a\"\\b"#).is(r#"a"\b"#));
        assert!(!Text("a").is("ab") && !Text("ab").is("a"));
        assert_eq!((Text("a").plain(), Text(r"a\\").plain()), (Some("a"), None));
    }
}
