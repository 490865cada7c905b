//! What arrives in parts and is needed as a whole.

use std::{io, mem};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::task::yield_now;

/// How long a piece is, in bytes: what is copied at once.
const PIECE: usize = 256 << 10;

/// Bytes that arrive, in pieces: no step of the reading takes longer because much was read before it.
#[derive(Default)]
pub struct Pieces {
    full: Vec<Vec<u8>>,
    last: Vec<u8>,
}

impl Pieces {
    /// Reads a stream to its end. Nothing is allocated before it arrives.
    ///
    /// # Errors
    /// Those of the stream.
    pub async fn read(mut stream: impl AsyncRead + Unpin) -> io::Result<Self> {
        let mut pieces = Self::default();
        loop {
            let room = PIECE - pieces.last.len();
            if (&mut stream).take(room as u64).read_buf(&mut pieces.last).await? == 0 {
                return Ok(pieces);
            }
            if pieces.last.len() == PIECE {
                pieces.full.push(mem::take(&mut pieces.last));
                yield_now().await;
            }
        }
    }

    /// How many bytes there are.
    #[must_use]
    pub fn length(&self) -> usize {
        self.full.len() * PIECE + self.last.len()
    }

    /// Copies bytes, so that what arrives byte by byte does not take many times its length.
    pub fn push(&mut self, mut data: &[u8]) {
        loop {
            let (now, later) = data.split_at(data.len().min(PIECE - self.last.len()));
            self.last.extend_from_slice(now);
            if later.is_empty() {
                return;
            }
            self.full.push(mem::take(&mut self.last));
            data = later;
        }
    }

    /// All bytes in one piece. Many are copied for it.
    #[must_use]
    pub fn join(mut self) -> Bytes {
        if self.full.is_empty() {
            return self.last.into();
        }
        self.full.push(self.last);
        self.full.concat().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(length: usize) -> Vec<u8> {
        (0..length).map(|at| at.to_le_bytes()[1]).collect()
    }

    #[test]
    fn pieces_are_joined_to_what_was_sent() {
        let long = 2 * PIECE + 7;
        for (length, chunk) in [(0, 1), (1, 1), (PIECE, 1000), (PIECE + 1, PIECE), (long, long), (long, 3)] {
            let (sent, mut pieces) = (bytes(length), Pieces::default());
            sent.chunks(chunk).for_each(|data| pieces.push(data));
            assert_eq!(pieces.length(), length);
            assert!(pieces.full.iter().all(|piece| piece.len() == PIECE) && pieces.last.len() <= PIECE);
            assert_eq!(pieces.join(), sent, "{length} bytes in chunks of {chunk}");
        }
    }

    #[tokio::test]
    async fn a_stream_is_read_to_its_end() {
        for length in [0, 1, PIECE, 2 * PIECE + 7] {
            let sent = bytes(length);
            let pieces = Pieces::read(&sent[..]).await.unwrap();
            assert_eq!(pieces.length(), length);
            assert_eq!(pieces.join(), sent, "{length} bytes");
        }
    }
}
