//! The readers of answers on their own.

use super::reader::Reader;

pub use super::answer::{Question, Verdict};
pub use super::reader::Malformed;

/// Reads an answer as the connection does, without its header.
///
/// # Errors
/// What cannot be read.
pub fn read<Q: Question>(body: &[u8]) -> Result<Q::Answer, Malformed> {
    let mut reader = Reader::new(body);
    let answer = Q::read(&mut reader)?;
    reader.end().map(|()| answer)
}
