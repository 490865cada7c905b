//! Strict framing of HTTP/1.1 in front of hyper: where a request begins and ends must be unambiguous, or a proxy between the
//! caller and the edge may have read it in another way, and what it took for a body becomes a request (request smuggling).
//!
//! No setting of hyper makes it refuse these forms, which a test each shows it to accept (`hyper_alone_accepts_*`):
//!
//! - lines in a head or a trailer that end with a line feed alone;
//! - empty lines before a request;
//! - a fragment in the request target;
//! - `Content-Length` and `Transfer-Encoding` in one request, and either of them repeated;
//! - transfer codings other than `chunked`, if `chunked` is the last one;
//! - blanks after a chunk size, and chunk sizes and lengths with any number of leading zeros.
//!
//! To find the end of a body, this module reads lengths and chunk sizes itself. Where it cannot go on, it refuses as well; hyper
//! alone refuses those forms too (`hyper_alone_refuses_what_framing_cannot_follow`).
//!
//! What passes is read by hyper in the same way, which a fuzz target checks; in place of what does not pass, hyper gets bytes that
//! it refuses.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use memchr::{memchr, memchr2};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How much of a line is kept, in bytes. A line with the length of the body must not be longer.
const MAX_LINE: usize = 256;
/// What hyper refuses in a head. It also ends the head, so that the request is answered at once.
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

/// Where in a request the stream is.
#[derive(Debug)]
struct Framing {
    part: Part,
    line: Vec<u8>,
    after_cr: bool,
    length: Option<u64>,
    chunked: bool,
}

/// The request can be read in more than one way.
#[derive(Debug, PartialEq, Eq)]
struct Ambiguous;

impl Framing {
    fn new() -> Self {
        Self { part: Part::RequestLine, line: Vec::new(), after_cr: false, length: None, chunked: false }
    }

    fn in_head(&self) -> bool {
        matches!(self.part, Part::RequestLine | Part::Header)
    }

    /// Follows received bytes; `Err` is the position of the first byte that must not pass.
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
                _ => at += self.follow_line(&bytes[at..]).map_err(|within| at + within)?,
            }
        }
        Ok(())
    }

    /// Follows a line to its end, or as far as it was received, and returns how many bytes that were. `Err` is the position of the
    /// first byte that must not pass: carriage return and line feed end a line, and are nowhere else; a request has no fragment.
    fn follow_line(&mut self, bytes: &[u8]) -> Result<usize, usize> {
        if std::mem::take(&mut self.after_cr) {
            return self.end_line(&[], bytes.first()).map(|()| 1).map_err(|Ambiguous| 0);
        }
        let end = memchr2(b'\r', b'\n', bytes).unwrap_or(bytes.len());
        let text = &bytes[..end];
        if self.part == Part::RequestLine
            && let Some(fragment) = memchr(b'#', text)
        {
            return Err(fragment);
        }
        match &bytes[end..] {
            [] => self.keep(text),
            [b'\r'] => {
                self.keep(text);
                self.after_cr = true;
            }
            [b'\r', next, ..] => {
                self.end_line(text, Some(next)).map_err(|Ambiguous| end + 1)?;
                return Ok(end + 2);
            }
            _ => return Err(end),
        }
        Ok(bytes.len())
    }

    fn keep(&mut self, text: &[u8]) {
        let left = MAX_LINE - self.line.len();
        self.line.extend_from_slice(&text[..left.min(text.len())]);
    }

    /// Ends a line of which `rest` was not kept, at the byte after its carriage return.
    fn end_line(&mut self, rest: &[u8], next: Option<&u8>) -> Result<(), Ambiguous> {
        if next != Some(&b'\n') {
            return Err(Ambiguous);
        }
        self.part = if self.line.is_empty() {
            self.end_of(&rest[..MAX_LINE.min(rest.len())])?
        } else {
            self.keep(rest);
            let line = std::mem::take(&mut self.line);
            self.end_of(&line)?
        };
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

    /// Two headers say how long the body is. Each may occur once, in its plainest form.
    fn header(&mut self, line: &[u8]) -> Result<(), Ambiguous> {
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        let (name, value) = line.split_at(colon);
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        if name.eq_ignore_ascii_case(b"content-length") {
            let digits = line.len() < MAX_LINE && !value.is_empty() && value.iter().all(u8::is_ascii_digit);
            let length = std::str::from_utf8(value).ok().filter(|_| digits).and_then(|digits| digits.parse().ok());
            let before = self.length.replace(length.ok_or(Ambiguous)?);
            return before.map_or(Ok(()), |_| Err(Ambiguous));
        }
        if name.eq_ignore_ascii_case(b"transfer-encoding") {
            let plain = line.len() < MAX_LINE && value.eq_ignore_ascii_case(b"chunked");
            let before = std::mem::replace(&mut self.chunked, true);
            return if plain && !before { Ok(()) } else { Err(Ambiguous) };
        }
        Ok(())
    }
}

/// The size of a chunk; extensions are ignored.
fn chunk_size(line: &[u8]) -> Result<u64, Ambiguous> {
    let digits = line.split(|byte| *byte == b';').next().unwrap_or_default();
    if !(1..=16).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_hexdigit) {
        return Err(Ambiguous);
    }
    let digits = std::str::from_utf8(digits).map_err(|_| Ambiguous)?;
    u64::from_str_radix(digits, 16).map_err(|_| Ambiguous)
}

/// A stream of HTTP/1.1 whose reader gets nothing that is ambiguous.
pub struct Strict<S> {
    stream: S,
    framing: Framing,
    /// What the reader gets in place of the rest, once something was refused.
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
            // In a body, the reader gets an error instead: the request is being answered.
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
    use std::convert::Infallible;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use bytes::Bytes;
    use http::{Request, Response};
    use http_body_util::{BodyExt, Empty};
    use hyper::body::Incoming;
    use hyper::server::conn::http1;
    use hyper::service::service_fn;
    use hyper_util::rt::TokioIo;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::time::timeout;

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
        let padded = format!("Content-Length: {}5", "0".repeat(MAX_LINE));
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

    /// Whether hyper alone reads a request to the end of its body.
    async fn hyper_reads(request: &str) -> bool {
        let (mut client, server) = duplex(1 << 16);
        client.write_all(request.as_bytes()).await.unwrap();
        let was_read = Arc::new(AtomicBool::default());
        let service = service_fn(|request: Request<Incoming>| {
            let was_read = was_read.clone();
            async move {
                was_read.store(request.into_body().collect().await.is_ok(), Ordering::Relaxed);
                Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
            }
        });
        let connection = http1::Builder::new().keep_alive(false).serve_connection(TokioIo::new(server), service);
        let _ = timeout(Duration::from_secs(5), connection).await.expect("hyper waits for more");
        was_read.load(Ordering::Relaxed)
    }

    /// The form is one that hyper accepts, and that framing therefore has to refuse.
    async fn only_framing_refuses(request: &str) {
        assert!(hyper_reads(request).await, "hyper refuses it by now, so the check can go: {request:?}");
        assert!(!passes(request), "{request:?}");
    }

    fn post(headers: &str, body: &str) -> String {
        format!("POST / HTTP/1.1\r\nHost: a\r\n{headers}\r\n\r\n{body}")
    }

    fn chunked(chunks: &str) -> String {
        post("Transfer-Encoding: chunked", chunks)
    }

    #[tokio::test]
    async fn hyper_alone_accepts_lines_that_end_with_a_line_feed() {
        only_framing_refuses("POST / HTTP/1.1\nHost: a\n\n").await;
        only_framing_refuses(&post("A: b\nC: d", "")).await;
        // A proxy that accepts line feeds would find a second request in this trailer.
        only_framing_refuses(&chunked("0\r\na: b\n\nGET /x HTTP/1.1\r\n\r\n")).await;
    }

    #[tokio::test]
    async fn hyper_alone_accepts_empty_lines_before_a_request() {
        only_framing_refuses(&format!("\r\n{}", post("A: b", ""))).await;
    }

    #[tokio::test]
    async fn hyper_alone_accepts_a_fragment() {
        only_framing_refuses("POST /a#b HTTP/1.1\r\nHost: a\r\n\r\n").await;
    }

    #[tokio::test]
    async fn hyper_alone_accepts_two_lengths() {
        let empty = "0\r\n\r\n";
        only_framing_refuses(&post("Content-Length: 5\r\nContent-Length: 5", "hello")).await;
        only_framing_refuses(&post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", empty)).await;
        only_framing_refuses(&post("Content-Length: 5\r\nTransfer-Encoding: chunked", empty)).await;
        only_framing_refuses(&post("Transfer-Encoding: chunked\r\nContent-Length: 5", empty)).await;
    }

    #[tokio::test]
    async fn hyper_alone_accepts_other_codings_before_chunked() {
        only_framing_refuses(&post("Transfer-Encoding: gzip, chunked", "0\r\n\r\n")).await;
    }

    #[tokio::test]
    async fn hyper_alone_accepts_sizes_in_many_forms() {
        only_framing_refuses(&chunked("1 \r\na\r\n0\r\n\r\n")).await;
        only_framing_refuses(&chunked(&format!("{}1\r\na\r\n0\r\n\r\n", "0".repeat(16)))).await;
        only_framing_refuses(&post(&format!("Content-Length: {}5", "0".repeat(MAX_LINE)), "hello")).await;
    }

    #[tokio::test]
    async fn hyper_alone_refuses_what_framing_cannot_follow() {
        for request in [
            post("A: b\rC: d", ""),
            post("Content-Length: 5\r\nContent-Length: 6", "hello!"),
            post("Content-Length: 5, 5", "hello"),
            post("Content-Length: +5", "hello"),
            post("Content-Length:", ""),
            post("Content-Length", ""),
            post("Content-Length: 18446744073709551616", ""),
            post("Transfer-Encoding: chunked, identity", "0\r\n\r\n"),
            post("Transfer-Encoding: xchunked", "0\r\n\r\n"),
            chunked("g\r\n"),
            chunked("\r\n"),
            chunked(" 1\r\na\r\n0\r\n\r\n"),
            chunked("0x1\r\na\r\n0\r\n\r\n"),
            chunked("10000000000000000\r\n"),
            chunked("1\na\r\n0\r\n\r\n"),
            chunked("1;a\nb\r\na\r\n0\r\n\r\n"),
            chunked("1\r\nab\r\n0\r\n\r\n"),
        ] {
            assert!(!hyper_reads(&request).await, "hyper accepts it: {request:?}");
            assert!(!passes(&request), "{request:?}");
        }
    }

    #[tokio::test]
    async fn hyper_reads_what_passes() {
        for request in [PLAIN, CHUNKED] {
            assert!(passes(request) && hyper_reads(request).await, "{request:?}");
        }
    }
}
