//! Reads the primitive types of Kafka's protocol in their compact form (KIP-482). Nothing is allocated for what has not arrived:
//! a length counts only as far as there are bytes, and an array is read one element at a time.

use thiserror::Error;

/// Why an answer cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Malformed {
    /// A length or a number of elements says more than there is.
    #[error("it ends before its content")]
    Truncated,
    /// A number has more bytes than its type.
    #[error("a number is out of bounds")]
    Number,
    /// A text is not UTF-8.
    #[error("a text is not UTF-8")]
    Text,
    /// A value is null that must not be.
    #[error("a value is missing")]
    Null,
    /// A host has a name that no host can have.
    #[error("a host is longer than 255 bytes")]
    Host,
    /// Bytes follow the last field.
    #[error("it is longer than its content")]
    Trailing,
    /// It lists more than is accepted.
    #[error("it lists more than {0} ACLs")]
    TooMany(usize),
}

type Result<T> = std::result::Result<T, Malformed>;

/// The bytes of an answer that were not read yet.
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// A reader of these bytes.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Asserts that everything was read.
    pub fn end(self) -> Result<()> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed::Trailing) }
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(Malformed::Truncated)?;
        self.0 = rest;
        Ok(*taken)
    }

    /// Skips as many bytes.
    pub fn skip(&mut self, count: usize) -> Result<()> {
        self.bytes(count).map(|_| ())
    }

    fn bytes(&mut self, count: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Malformed::Truncated)?;
        self.0 = rest;
        Ok(taken)
    }

    pub fn i8(&mut self) -> Result<i8> {
        self.take().map(i8::from_be_bytes)
    }

    pub fn i16(&mut self) -> Result<i16> {
        self.take().map(i16::from_be_bytes)
    }

    pub fn i32(&mut self) -> Result<i32> {
        self.take().map(i32::from_be_bytes)
    }

    /// An unsigned number of variable length: seven bits a byte, the lowest first.
    fn number(&mut self) -> Result<usize> {
        let mut number = 0_u32;
        for shift in [0, 7, 14, 21, 28] {
            let [byte] = self.take()?;
            let bits = u32::from(byte & 0x7f);
            if bits.leading_zeros() < shift {
                return Err(Malformed::Number);
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return usize::try_from(number).map_err(|_| Malformed::Number);
            }
        }
        Err(Malformed::Number)
    }

    /// A text, or `None` for null.
    pub fn nullable_text(&mut self) -> Result<Option<&'a str>> {
        let Some(length) = self.number()?.checked_sub(1) else { return Ok(None) };
        let text = str::from_utf8(self.bytes(length)?).map_err(|_| Malformed::Text)?;
        Ok(Some(text))
    }

    /// A text.
    pub fn text(&mut self) -> Result<&'a str> {
        self.nullable_text()?.ok_or(Malformed::Null)
    }

    /// Reads the elements of an array, each with `read`, and the tagged fields behind each.
    pub fn structs(&mut self, mut read: impl FnMut(&mut Self) -> Result<()>) -> Result<()> {
        let count = self.number()?.checked_sub(1).ok_or(Malformed::Null)?;
        for _ in 0..count {
            read(self)?;
            self.tags()?;
        }
        Ok(())
    }

    /// Skips an array of 32-bit numbers.
    pub fn skip_numbers(&mut self) -> Result<()> {
        let count = self.number()?.checked_sub(1).ok_or(Malformed::Null)?;
        self.skip(count.checked_mul(size_of::<i32>()).ok_or(Malformed::Truncated)?)
    }

    /// Skips tagged fields. None of them means anything for what is read here.
    pub fn tags(&mut self) -> Result<()> {
        for _ in 0..self.number()? {
            self.number()?;
            let length = self.number()?;
            self.skip(length)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The greatest length or number of elements that can be written.
    const MANY: [u8; 5] = [0xff, 0xff, 0xff, 0xff, 0x0f];

    #[test]
    fn a_length_says_no_more_than_there_are_bytes() {
        assert_eq!(Reader::new(&MANY).text(), Err(Malformed::Truncated));
        assert_eq!(Reader::new(&MANY).tags(), Err(Malformed::Truncated));
        assert_eq!(Reader::new(&MANY).skip_numbers(), Err(Malformed::Truncated));
        let mut calls = 0;
        let counted = Reader::new(&MANY).structs(|it| {
            calls += 1;
            it.i16().map(|_| ())
        });
        assert_eq!((counted, calls), (Err(Malformed::Truncated), 1));
        assert_eq!(Reader::new(&[4, b'a', b'b']).text(), Err(Malformed::Truncated));
    }

    #[test]
    fn an_element_takes_a_byte_at_least() {
        let calls = std::cell::Cell::new(0_u32);
        let mut bytes = MANY.to_vec();
        bytes.extend([0; 8]);
        let counted = Reader::new(&bytes).structs(|_| {
            calls.set(calls.get() + 1);
            Ok(())
        });
        assert_eq!((counted, calls.get()), (Err(Malformed::Truncated), 9), "the tagged fields of each element");
    }

    #[test]
    fn numbers_of_variable_length_have_32_bits() {
        for (bytes, number) in [
            (&[0_u8][..], Ok(0)),
            (&[0x7f], Ok(127)),
            (&[0x80, 0x01], Ok(128)),
            (&MANY, Ok(u32::MAX as usize)),
            (&[0xff, 0xff, 0xff, 0xff, 0x1f], Err(Malformed::Number)),
            (&[0xff; 6], Err(Malformed::Number)),
            (&[0x80], Err(Malformed::Truncated)),
            (&[], Err(Malformed::Truncated)),
        ] {
            assert_eq!(Reader::new(bytes).number(), number, "{bytes:x?}");
        }
    }

    #[test]
    fn what_is_null_or_no_text_or_too_long_is_refused() {
        assert_eq!(Reader::new(&[0]).nullable_text(), Ok(None));
        assert_eq!(Reader::new(&[0]).text(), Err(Malformed::Null));
        assert_eq!(Reader::new(&[0]).structs(|_| Ok(())), Err(Malformed::Null));
        assert_eq!(Reader::new(&[2, 0xff]).text(), Err(Malformed::Text));
        assert_eq!(Reader::new(&[0]).end(), Err(Malformed::Trailing));
        let mut reader = Reader::new(&[3, b'o', b'k']);
        assert_eq!(reader.text(), Ok("ok"));
        assert_eq!(reader.end(), Ok(()));
    }
}
