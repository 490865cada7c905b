//! Bounds what Redis may send. The library keeps what it reads until a reply is complete, so a reply that never ends would fill
//! the memory. Every reply that is asked for here is one line, or one short string; others end the connection.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The longest line and the longest string, in bytes. Errors are lines.
pub const MAX: usize = 16 << 10;

/// A reply that is not asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Unexpected {
    /// It is neither a line nor a string.
    #[error("Redis sent a reply of a kind that is not asked for")]
    Kind,
    /// It is longer than what is asked for.
    #[error("Redis sent a reply of more than {MAX} bytes")]
    TooLong,
}

/// Where in a reply the bytes that were read end (RESP2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Replies {
    /// Between two replies.
    #[default]
    Between,
    /// In a line.
    Line {
        /// How many bytes of it were read.
        bytes: usize,
        /// In the line before a string, the length of that, as far as it was read.
        string: Option<usize>,
    },
    /// In the line before a string that is null.
    Null {
        /// How many bytes of it were read.
        bytes: usize,
    },
    /// In a string, with so many bytes to come.
    String(usize),
}

impl Replies {
    /// Reads on.
    ///
    /// # Errors
    /// What is not asked for.
    pub fn read(&mut self, bytes: &[u8]) -> Result<(), Unexpected> {
        for byte in bytes {
            *self = self.next(*byte)?;
        }
        Ok(())
    }

    fn next(self, byte: u8) -> Result<Self, Unexpected> {
        match (self, byte) {
            (Self::Line { bytes: MAX.., .. } | Self::Null { bytes: MAX.. }, _) => Err(Unexpected::TooLong),
            (Self::Between, b'+' | b'-' | b':') => Ok(Self::Line { bytes: 1, string: None }),
            (Self::Between, b'$') => Ok(Self::Line { bytes: 1, string: Some(0) }),
            (Self::Line { string: None, .. } | Self::Null { .. } | Self::String(1), b'\n') => Ok(Self::Between),
            // The string is followed by the end of a line.
            (Self::Line { string: Some(length), .. }, b'\n') => Ok(Self::String(length + 2)),
            (Self::Line { bytes: 1, string: Some(_) }, b'-') => Ok(Self::Null { bytes: 2 }),
            (Self::Line { bytes, string: Some(length) }, b'0'..=b'9') => {
                let length = length * 10 + usize::from(byte - b'0');
                if length > MAX {
                    Err(Unexpected::TooLong)
                } else {
                    Ok(Self::Line { bytes: bytes + 1, string: Some(length) })
                }
            }
            (Self::Line { string: Some(_), .. }, other) if other != b'\r' => Err(Unexpected::Kind),
            (Self::Line { bytes, string }, _) => Ok(Self::Line { bytes: bytes + 1, string }),
            (Self::Null { bytes }, _) => Ok(Self::Null { bytes: bytes + 1 }),
            (Self::Between | Self::String(1), _) => Err(Unexpected::Kind),
            (Self::String(left), _) => Ok(Self::String(left - 1)),
        }
    }
}

/// A connection that ends at a reply which is not asked for.
pub struct Bounded<S> {
    inner: S,
    replies: Replies,
}

impl<S> Bounded<S> {
    /// Bounds a new connection.
    pub fn new(inner: S) -> Self {
        Self { inner, replies: Replies::default() }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Bounded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(context, buffer);
        if let Err(unexpected) = self.replies.read(&buffer.filled()[before..]) {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, unexpected)));
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Bounded<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Replies, Unexpected> {
        let mut replies = Replies::default();
        replies.read(bytes).map(|()| replies)
    }

    #[test]
    fn replies_that_are_asked_for_pass() {
        for whole in
            ["+OK\r\n", "$-1\r\n", ":1\r\n", "-ERR no\r\n", "$5\r\nab\r\nc\r\n", "$0\r\n\r\n", "+OK\r\n:0\r\n$-1\r\n"]
        {
            assert_eq!(read(whole.as_bytes()), Ok(Replies::Between), "{whole:?}");
            for end in 0..whole.len() {
                assert!(read(&whole.as_bytes()[..end]).is_ok(), "{end} bytes of {whole:?}");
            }
        }
    }

    #[test]
    fn replies_that_nobody_asked_for_end_the_connection() {
        for kind in [
            "*1\r\n", "%1\r\n", "~1\r\n", ">1\r\n", "|1\r\n", "=1\r\n", "!1\r\n", "_\r\n", "(1\r\n", "\r\n", "$+1\r\n",
            "$1x",
        ] {
            assert_eq!(read(kind.as_bytes()), Err(Unexpected::Kind), "{kind:?}");
        }
        assert_eq!(read(b"$2\r\nabc"), Ok(Replies::String(1)), "the end of the line is the library's to check");
        for long in [b"$16385".to_vec(), b"$99999999999999999999999".to_vec(), [b"-".as_slice(), &[b'x'; MAX]].concat()]
        {
            assert_eq!(read(&long), Err(Unexpected::TooLong));
        }
        assert_eq!(read(&[b"$-".as_slice(), &[b'1'; MAX]].concat()), Err(Unexpected::TooLong));
        assert!(read(b"$16384\r\n").is_ok());
    }

    #[test]
    fn no_bytes_make_a_reply_longer_than_the_bound() {
        let alphabet = b"+-:$0123456789\r\nOK*";
        let mut random = fastrand::Rng::with_seed(1);
        for _ in 0..100_000 {
            let bytes: Vec<u8> = (0..random.usize(..40)).map(|_| alphabet[random.usize(..alphabet.len())]).collect();
            let cut = random.usize(..=bytes.len());
            let mut parts = Replies::default();
            let in_parts = parts.read(&bytes[..cut]).and_then(|()| parts.read(&bytes[cut..])).map(|()| parts);
            assert_eq!(in_parts, read(&bytes), "{bytes:?}");
            if let Ok(Replies::String(left)) = in_parts {
                assert!(left <= MAX + 2);
            }
        }
    }
}
