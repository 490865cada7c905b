//! HTTP/1.1 is read more strictly than its parser does: where a request begins and ends must be beyond dispute, or
//! somebody who stands between the caller and the edge may have read it another way.
//!
//! What passes here is read by the parser in the same way; what does not, the parser is made to refuse.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How much of a line is kept. One that says how long the body is must not be longer.
const LINE: usize = 256;
/// What no parser takes for part of a head; it ends the head, so that it is answered at once.
const POISON: &[u8] = b"\0\r\n\r\n";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    RequestLine,
    Header,
    Body(u64),
    ChunkSize,
    Chunk(u64),
    ChunkEnd,
    Trailer,
}

/// Where in a request a connection is.
#[derive(Debug)]
struct Framing {
    part: Part,
    line: Vec<u8>,
    after_cr: bool,
    length: Option<u64>,
    chunked: bool,
}

/// The request cannot be read in one way only.
#[derive(Debug, PartialEq, Eq)]
struct Ambiguous;

impl Framing {
    fn new() -> Self {
        Self { part: Part::RequestLine, line: Vec::new(), after_cr: false, length: None, chunked: false }
    }

    fn in_head(&self) -> bool {
        matches!(self.part, Part::RequestLine | Part::Header)
    }

    /// Follows what was received; `Err` is the position of the first byte that must not pass.
    fn follow(&mut self, bytes: &[u8]) -> Result<(), usize> {
        let mut at = 0;
        while at < bytes.len() {
            match &mut self.part {
                Part::Body(left) | Part::Chunk(left) => {
                    let here = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len() - at);
                    *left -= here as u64;
                    at += here;
                    match self.part {
                        Part::Body(0) => self.part = Part::RequestLine,
                        Part::Chunk(0) => self.part = Part::ChunkEnd,
                        _ => {}
                    }
                }
                _ => {
                    self.read(bytes[at]).map_err(|Ambiguous| at)?;
                    at += 1;
                }
            }
        }
        Ok(())
    }

    fn read(&mut self, byte: u8) -> Result<(), Ambiguous> {
        match (self.after_cr, byte) {
            (false, b'\r') => self.after_cr = true,
            (true, b'\n') => {
                self.after_cr = false;
                let line = std::mem::take(&mut self.line);
                self.part = self.end_of(&line)?;
            }
            // A line ends with CR and LF, and neither is anywhere else; and no request has a fragment.
            (true, _) | (false, b'\n') => return Err(Ambiguous),
            (false, b'#') if self.part == Part::RequestLine => return Err(Ambiguous),
            (false, _) if self.line.len() < LINE => self.line.push(byte),
            (false, _) => {}
        }
        Ok(())
    }

    fn end_of(&mut self, line: &[u8]) -> Result<Part, Ambiguous> {
        match self.part {
            Part::RequestLine if line.is_empty() => Err(Ambiguous),
            Part::Header if line.is_empty() => self.end_of_head(),
            Part::RequestLine => Ok(Part::Header),
            Part::Header => self.header(line).map(|()| Part::Header),
            Part::ChunkSize => Ok(match chunk_size(line)? {
                0 => Part::Trailer,
                size => Part::Chunk(size),
            }),
            Part::ChunkEnd if line.is_empty() => Ok(Part::ChunkSize),
            Part::Trailer if line.is_empty() => Ok(Part::RequestLine),
            Part::Trailer => Ok(Part::Trailer),
            Part::ChunkEnd | Part::Body(_) | Part::Chunk(_) => Err(Ambiguous),
        }
    }

    fn end_of_head(&mut self) -> Result<Part, Ambiguous> {
        match (self.length.take(), std::mem::take(&mut self.chunked)) {
            (Some(_), true) => Err(Ambiguous),
            (None, true) => Ok(Part::ChunkSize),
            (None | Some(0), false) => Ok(Part::RequestLine),
            (Some(length), false) => Ok(Part::Body(length)),
        }
    }

    /// Of all headers two say how long the body is: each at most once, and in the plainest form.
    fn header(&mut self, line: &[u8]) -> Result<(), Ambiguous> {
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        let (name, value) = line.split_at(colon);
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        if name.eq_ignore_ascii_case(b"content-length") {
            let digits = line.len() < LINE && !value.is_empty() && value.iter().all(u8::is_ascii_digit);
            let length = std::str::from_utf8(value).ok().filter(|_| digits).and_then(|digits| digits.parse().ok());
            let before = self.length.replace(length.ok_or(Ambiguous)?);
            return before.map_or(Ok(()), |_| Err(Ambiguous));
        }
        if name.eq_ignore_ascii_case(b"transfer-encoding") {
            let plain = line.len() < LINE && value.eq_ignore_ascii_case(b"chunked");
            let before = std::mem::replace(&mut self.chunked, true);
            return if plain && !before { Ok(()) } else { Err(Ambiguous) };
        }
        Ok(())
    }
}

/// The size of a chunk; extensions say nothing that anybody here reads.
fn chunk_size(line: &[u8]) -> Result<u64, Ambiguous> {
    let digits = line.split(|byte| *byte == b';').next().unwrap_or_default();
    if !(1..=16).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_hexdigit) {
        return Err(Ambiguous);
    }
    let digits = std::str::from_utf8(digits).map_err(|_| Ambiguous)?;
    u64::from_str_radix(digits, 16).map_err(|_| Ambiguous)
}

/// A stream of HTTP/1.1 whose reader sees nothing that could be read in two ways.
pub struct Strict<S> {
    stream: S,
    framing: Framing,
    /// What the reader gets in place of all that follows, once something was refused.
    poison: Option<&'static [u8]>,
}

impl<S> Strict<S> {
    /// Reads this stream strictly.
    pub fn new(stream: S) -> Self {
        Self { stream, framing: Framing::new(), poison: None }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Strict<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        if this.poison.is_none() {
            ready!(Pin::new(&mut this.stream).poll_read(context, buffer))?;
            let Err(at) = this.framing.follow(&buffer.filled()[before..]) else { return Poll::Ready(Ok(())) };
            buffer.set_filled(before + at);
            // A body ends with an error instead: its request is being answered.
            this.poison = Some(if this.framing.in_head() { POISON } else { &[] });
            if at > 0 {
                return Poll::Ready(Ok(()));
            }
        }
        let poison = this.poison.unwrap_or_default();
        let (now, later) = poison.split_at(poison.len().min(buffer.remaining()));
        if now.is_empty() {
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        buffer.put_slice(now);
        this.poison = Some(later);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Strict<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    const PLAIN: &str = "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\na\nb#c";
    const CHUNKED: &str = "POST /a HTTP/1.1\r\nTRANSFER-encoding:\tChunked \r\n\r\n3;x=y\r\na\nb\r\n0\r\nt: u\r\n\r\n";

    /// Whether all of it passes, in pieces of any length.
    fn passes(text: &str) -> bool {
        let verdicts: Vec<bool> = (1..=text.len())
            .map(|size| {
                let mut framing = Framing::new();
                text.as_bytes().chunks(size).all(|piece| framing.follow(piece).is_ok())
            })
            .collect();
        assert!(verdicts.iter().all(|verdict| *verdict == verdicts[0]), "it depends on the pieces: {text:?}");
        verdicts[0]
    }

    #[test]
    fn requests_follow_one_another() {
        for request in [PLAIN, CHUNKED, "GET / HTTP/1.1\r\n\r\n", "POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n"] {
            assert!(passes(request), "{request:?}");
            assert!(passes(&[request, PLAIN, CHUNKED, request].concat()), "{request:?}");
            assert!(!passes(&[request, "\r\n"].concat()), "an empty line begins no request: {request:?}");
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_does_not_pass() {
        for header in [
            "Content-Length: 5\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: chunked\r\nContent-Length: 5",
            "Content-Length: 5\r\nContent-Length: 6",
            "Content-Length: 5\r\ncontent-length: 5",
            "Content-Length: 5, 5",
            "Content-Length: +5",
            "Content-Length:",
            "Content-Length",
            "Content-Length: 18446744073709551616",
            "Transfer-Encoding: chunked, identity",
            "Transfer-Encoding: gzip, chunked",
            "Transfer-Encoding: xchunked",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            "a: b\nc: d",
            "a: b\rc: d",
        ] {
            assert!(!passes(&format!("POST / HTTP/1.1\r\n{header}\r\n\r\n")), "{header:?}");
        }
        let padded = format!("Content-Length: {}5", "0".repeat(LINE));
        assert!(!passes(&format!("POST / HTTP/1.1\r\n{padded}\r\n\r\n")), "only its beginning would be read");
        assert!(!passes("POST /a#b HTTP/1.1\r\n\r\n"));
    }

    #[test]
    fn chunks_have_a_plain_size_and_an_end() {
        for chunks in
            ["g\r\n", "\r\n", " 1\r\n", "1 \r\n", "0x1\r\n", "-1\r\n", "10000000000000000\r\n", "1\n", "1;a\nb"]
        {
            assert!(!passes(&format!("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}")), "{chunks:?}");
        }
        assert!(!passes("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n"), "longer than its size");
        assert!(!passes("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\na: b\nc: d\r\n\r\n"));
    }

    #[tokio::test]
    async fn a_reader_gets_what_it_must_refuse_and_then_an_error() {
        for (sent, seen) in [
            ("POST / HTTP/1.1\r\nA: b\nC: d\r\n\r\n", "POST / HTTP/1.1\r\nA: b\0\r\n\r\n"),
            ("\n", "\0\r\n\r\n"),
            (
                "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0;\n",
                "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0;",
            ),
        ] {
            let mut read = Vec::new();
            let outcome = Strict::new(sent.as_bytes()).read_to_end(&mut read).await;
            assert_eq!(outcome.unwrap_err().kind(), io::ErrorKind::InvalidData, "{sent:?}");
            assert_eq!(String::from_utf8(read).unwrap(), seen);
        }
    }
}
