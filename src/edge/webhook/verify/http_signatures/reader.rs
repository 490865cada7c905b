//! Reads structured fields: dictionaries of inner lists and of byte sequences. It is stricter than the standard
//! where that allows two readings: no key is repeated, and base64 is canonical. Decimals are refused, since nothing here uses them.

use super::structured::{InnerList, Item, Parameters, Text, Value};
use crate::edge::encoding;

/// Maximum number of members, items and parameters of one list.
const MAX_ITEMS: usize = 32;

/// A dictionary of inner lists.
pub(super) fn inner_lists(text: &str) -> Option<Vec<(&str, InnerList<'_>)>> {
    Reader(text).dictionary(Reader::inner_list)
}

/// A dictionary of byte sequences, without parameters.
pub(super) fn byte_sequences(text: &str) -> Option<Vec<(&str, Vec<u8>)>> {
    Reader(text).dictionary(Reader::bytes)
}

/// The rest of the text.
struct Reader<'a>(&'a str);

impl<'a> Reader<'a> {
    fn dictionary<T>(mut self, member: impl Fn(&mut Self) -> Option<T>) -> Option<Vec<(&'a str, T)>> {
        let mut found = Vec::new();
        loop {
            let key = self.key()?;
            self.take('=')?;
            let value = member(&mut self)?;
            insert(&mut found, key, value)?;
            self.0 = self.0.trim_start_matches([' ', '\t']);
            if self.0.is_empty() {
                return Some(found);
            }
            self.take(',')?;
            self.0 = self.0.trim_start_matches([' ', '\t']);
        }
    }

    fn inner_list(&mut self) -> Option<InnerList<'a>> {
        self.take('(')?;
        let mut items = Vec::new();
        loop {
            let before = self.0;
            self.0 = before.trim_start_matches(' ');
            if self.take(')').is_some() {
                return Some(InnerList { items, parameters: self.parameters()? });
            }
            let separated = items.is_empty() || self.0.len() < before.len();
            if !separated || items.len() >= MAX_ITEMS {
                return None;
            }
            items.push(Item { value: self.value()?, parameters: self.parameters()? });
        }
    }

    fn parameters(&mut self) -> Option<Parameters<'a>> {
        let mut found = Vec::new();
        while self.take(';').is_some() {
            self.0 = self.0.trim_start_matches(' ');
            let key = self.key()?;
            let value = if self.take('=').is_some() { self.value()? } else { Value::Boolean(true) };
            insert(&mut found, key, value)?;
        }
        Some(found)
    }

    fn value(&mut self) -> Option<Value<'a>> {
        match self.0.chars().next()? {
            '"' => self.text().map(Value::Text),
            ':' => self.bytes().map(Value::Bytes),
            '?' => self.boolean().map(Value::Boolean),
            '-' | '0'..='9' => self.integer().map(Value::Integer),
            '*' | 'a'..='z' | 'A'..='Z' => Some(Value::Token(self.run(is_token)?)),
            _ => None,
        }
    }

    fn key(&mut self) -> Option<&'a str> {
        let key = self.run(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-.*".contains(c))?;
        key.starts_with(|first: char| first.is_ascii_lowercase() || first == '*').then_some(key)
    }

    fn text(&mut self) -> Option<Text<'a>> {
        self.take('"')?;
        let mut characters = self.0.char_indices();
        loop {
            match characters.next()? {
                (end, '"') => {
                    let (text, rest) = self.0.split_at_checked(end)?;
                    self.0 = rest.strip_prefix('"')?;
                    return Some(Text(text));
                }
                (_, '\\') => match characters.next()? {
                    (_, '"' | '\\') => {}
                    _ => return None,
                },
                (_, ' '..='~') => {}
                _ => return None,
            }
        }
    }

    fn bytes(&mut self) -> Option<Vec<u8>> {
        self.take(':')?;
        let (text, rest) = self.0.split_once(':')?;
        self.0 = rest;
        encoding::base64(text)
    }

    fn boolean(&mut self) -> Option<bool> {
        self.take('?')?;
        if self.take('1').is_some() { Some(true) } else { self.take('0').map(|()| false) }
    }

    fn integer(&mut self) -> Option<i64> {
        let negative = self.take('-').is_some();
        let digits = self.run(|c| c.is_ascii_digit())?;
        let number: i64 = if digits.len() <= 15 { digits.parse().ok()? } else { return None };
        (!self.0.starts_with('.')).then_some(if negative { -number } else { number })
    }

    /// The longest non-empty run of matching characters from here.
    fn run(&mut self, fits: impl Fn(char) -> bool) -> Option<&'a str> {
        let end = self.0.find(|c| !fits(c)).unwrap_or(self.0.len());
        let (run, rest) = self.0.split_at_checked(end).filter(|(run, _)| !run.is_empty())?;
        self.0 = rest;
        Some(run)
    }

    fn take(&mut self, character: char) -> Option<()> {
        self.0 = self.0.strip_prefix(character)?;
        Some(())
    }
}

fn is_token(character: char) -> bool {
    character.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~:/".contains(character)
}

fn insert<'a, T>(members: &mut Vec<(&'a str, T)>, key: &'a str, value: T) -> Option<()> {
    if members.len() >= MAX_ITEMS || members.iter().any(|(known, _)| *known == key) {
        return None;
    }
    members.push((key, value));
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_written_in_the_canonical_way() {
        for (text, canonical) in [
            ("a=()", "()"),
            (r#"a=("@method" "x";sf);created=1;keyid="k""#, r#"("@method" "x";sf);created=1;keyid="k""#),
            (r#"a=(  "x"   "y"; name="z"  ); created=007;b=?1;c=?0"#, r#"("x" "y";name="z");created=7;b;c=?0"#),
            (r#"a=("x");n="a\"b\\c";t=*t/1:;d=:AQI=:;i=-0"#, r#"("x");n="a\"b\\c";t=*t/1:;d=:AQI=:;i=0"#),
        ] {
            let lists = inner_lists(text).unwrap();
            assert_eq!(lists[0].1.to_string(), canonical);
        }
    }

    #[test]
    fn members_keep_their_labels() {
        let lists = inner_lists("a=(),b2=() , *c=();x").unwrap();
        assert_eq!(lists.iter().map(|(label, _)| *label).collect::<Vec<_>>(), ["a", "b2", "*c"]);
        assert_eq!(byte_sequences("a=:AQI=:, b=::"), Some(vec![("a", vec![1, 2]), ("b", vec![])]));
    }

    #[test]
    fn what_is_broken_or_ambiguous_is_refused() {
        for wrong in [
            "",
            "a",
            "a=",
            "a=(",
            "a=()b",
            "A=()",
            "1a=()",
            "a=(),",
            ",a=()",
            "a=() b=()",
            "a=(),a=()",
            r#"a=("x""y")"#,
            r#"a=("x)"#,
            r#"a=("\x")"#,
            r#"a=("é")"#,
            "a=(1.5)",
            "a=();x=1.",
            "a=();x=1;x=2",
            "a=();x=",
            "a=();",
            "a=();x=1234567890123456",
            "a=();x=--1",
            "a=();x=@1",
            "a=1",
            r#"a="x""#,
            "a=(?2)",
            "a=(:AQJ=:)",
            "a =()",
        ] {
            assert_eq!(inner_lists(wrong), None, "{wrong}");
        }
        for wrong in ["a=:AQI:", "a=:AQI=", "a=:AQ I=:", "a=AQI=", "a=:AQI=:;x", "a=:_-8=:", "a=::,a=::"] {
            assert_eq!(byte_sequences(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn lists_are_bounded() {
        let of = |count| format!("a=({})", "1 ".repeat(count));
        assert!(inner_lists(&of(MAX_ITEMS)).is_some());
        assert!(inner_lists(&of(MAX_ITEMS + 1)).is_none());
    }
}
