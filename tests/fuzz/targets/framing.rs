#![no_main]
//! HTTP/1.1 framing, which the edge checks before its HTTP parser. However the bytes are split, exactly the part passes
//! that a simple reading of all bytes finds unambiguous, and the parser reads heads in the same way.

use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use credence::edge::http::framing::Strict;
use libfuzzer_sys::fuzz_target;
use tokio::io::{AsyncRead, ReadBuf};

fuzz_target!(|data: &[u8]| {
    let Some((sizes, data)) = data.split_at_checked(9) else { return };
    let (read, error) = read_strictly(data, &sizes[1..], usize::from(sizes[0]) + 1);
    let (passed, poison, expected) = match reading(data) {
        Ok(()) => (data.len(), &b""[..], None),
        Err(Ambiguity { at, in_head }) => {
            (at, if in_head { &b"\0\r\n\r\n"[..] } else { b"" }, Some(ErrorKind::InvalidData))
        }
    };
    assert_eq!((read, error), ([&data[..passed], poison].concat(), expected));
});

/// What the reader returns with a buffer of this size when the bytes arrive in chunks of these sizes.
fn read_strictly(data: &[u8], sizes: &[u8], buffer_size: usize) -> (Vec<u8>, Option<ErrorKind>) {
    let mut stream = Strict::new(Chunks { left: data, sizes: sizes.iter().cycle() });
    let mut context = Context::from_waker(Waker::noop());
    let (mut read, mut buffer) = (Vec::new(), vec![0; buffer_size]);
    loop {
        let mut buffer = ReadBuf::new(&mut buffer);
        match Pin::new(&mut stream).poll_read(&mut context, &mut buffer) {
            Poll::Ready(Ok(())) if buffer.filled().is_empty() => return (read, None),
            Poll::Ready(Ok(())) => read.extend_from_slice(buffer.filled()),
            Poll::Ready(Err(error)) => return (read, Some(error.kind())),
            Poll::Pending => unreachable!("all bytes are available"),
        }
    }
}

struct Chunks<'a> {
    left: &'a [u8],
    sizes: std::iter::Cycle<std::slice::Iter<'a, u8>>,
}

impl AsyncRead for Chunks<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let size = usize::from(*self.sizes.next().unwrap()) + 1;
        let (piece, left) = self.left.split_at(size.min(buffer.remaining()).min(self.left.len()));
        buffer.put_slice(piece);
        self.left = left;
        Poll::Ready(Ok(()))
    }
}

/// The first byte at which the framing is ambiguous.
struct Ambiguity {
    at: usize,
    in_head: bool,
}

/// Reads requests one after the other, up to the last complete one.
fn reading(data: &[u8]) -> Result<(), Ambiguity> {
    let mut at = 0;
    while at < data.len() {
        let Some((body, framing)) = head(data, at).map_err(|at| Ambiguity { at, in_head: true })? else {
            return Ok(());
        };
        assert_parsed_alike(&data[at..body], &framing);
        let end = match framing {
            Framing::Length(length) => Some(usize::try_from(length).unwrap().saturating_add(body)),
            Framing::Chunked => chunks(data, body).map_err(|at| Ambiguity { at, in_head: false })?,
        };
        let Some(end) = end else { return Ok(()) };
        at = end;
    }
    Ok(())
}

#[derive(Debug, PartialEq, Eq)]
enum Framing {
    Length(u64),
    Chunked,
}

/// The line at this position and the position of the next line, or `None` if the line is incomplete.
fn line<'a>(data: &'a [u8], begin: usize, forbidden: &[u8]) -> Result<Option<(&'a [u8], usize)>, usize> {
    for at in begin..data.len() {
        match (data[at], data.get(at + 1)) {
            (b'\r', Some(b'\n')) => return Ok(Some((&data[begin..at], at + 2))),
            (b'\r', Some(_)) => return Err(at + 1),
            (b'\r', None) => return Ok(None),
            (byte, _) if byte == b'\n' || forbidden.contains(&byte) => return Err(at),
            _ => {}
        }
    }
    Ok(None)
}

/// The end of the head, and the framing of the body.
fn head(data: &[u8], begin: usize) -> Result<Option<(usize, Framing)>, usize> {
    let Some((request, mut at)) = line(data, begin, b"#")? else { return Ok(None) };
    if request.is_empty() {
        return Err(at - 1);
    }
    let mut framing = None;
    while let Some((header, next)) = line(data, at, b"")? {
        if header.is_empty() {
            return Ok(Some((next, framing.unwrap_or(Framing::Length(0)))));
        }
        let name = header.split(|byte| *byte == b':').next().unwrap().to_ascii_lowercase();
        let value = String::from_utf8_lossy(header.get(name.len() + 1..).unwrap_or_default().trim_ascii()).into_owned();
        let found_framing = match name.as_slice() {
            b"content-length" if value.bytes().all(|byte| byte.is_ascii_digit()) => {
                value.parse().ok().map(Framing::Length)
            }
            b"transfer-encoding" if value.eq_ignore_ascii_case("chunked") => Some(Framing::Chunked),
            b"content-length" | b"transfer-encoding" => None,
            _ => {
                at = next;
                continue;
            }
        };
        // The end of a long header can be invisible to parsers with smaller buffers.
        let Some(found_framing) = found_framing.filter(|_| header.len() < 256) else { return Err(next - 1) };
        match framing.replace(found_framing) {
            None => {}
            // Both kinds of framing in one head are reported only at the end of the head.
            Some(before) if before != Framing::Chunked && framing == Some(Framing::Chunked) => {
                return mixed(data, next);
            }
            Some(Framing::Chunked) if framing != Some(Framing::Chunked) => return mixed(data, next),
            Some(_) => return Err(next - 1),
        }
        at = next;
    }
    Ok(None)
}

/// A head with both kinds of framing. It is refused at its end, or earlier at a header that is invalid by itself.
fn mixed(data: &[u8], mut at: usize) -> Result<Option<(usize, Framing)>, usize> {
    while let Some((header, next)) = line(data, at, b"")? {
        let name = header.split(|byte| *byte == b':').next().unwrap().to_ascii_lowercase();
        if header.is_empty() || [&b"content-length"[..], b"transfer-encoding"].contains(&name.as_slice()) {
            return Err(next - 1);
        }
        at = next;
    }
    Ok(None)
}

/// The end of the last chunk.
fn chunks(data: &[u8], mut at: usize) -> Result<Option<usize>, usize> {
    loop {
        let Some((size, next)) = line(data, at, b"")? else { return Ok(None) };
        let digits = size.split(|byte| *byte == b';').next().unwrap();
        if !(1..=16).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err(next - 1);
        }
        let size = u64::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap();
        at = usize::try_from(size).unwrap().saturating_add(next);
        if size == 0 {
            while let Some((trailer, next)) = line(data, at, b"")? {
                at = next;
                if trailer.is_empty() {
                    return Ok(Some(at));
                }
            }
            return Ok(None);
        }
        match line(data, at, b"")? {
            Some((rest, next)) if rest.is_empty() => at = next,
            Some((_, next)) => return Err(next - 1),
            None => return Ok(None),
        }
    }
}

/// Asserts that the parser finds the same head, unless it refuses it.
fn assert_parsed_alike(head: &[u8], framing: &Framing) {
    let mut headers = [httparse::EMPTY_HEADER; 100];
    let mut request = httparse::Request::new(&mut headers);
    let Ok(status) = request.parse(head) else { return };
    assert_eq!(status, httparse::Status::Complete(head.len()), "the parser sees another end of the head");
    let values = |wanted: &str| -> Vec<&[u8]> {
        let found = request.headers.iter().filter(|header| header.name.eq_ignore_ascii_case(wanted));
        found.map(|header| header.value.trim_ascii()).collect()
    };
    let (lengths, codings) = (values("content-length"), values("transfer-encoding"));
    match framing {
        Framing::Chunked => assert!(lengths.is_empty() && codings.len() == 1),
        Framing::Length(length) => {
            let found: Vec<u64> = lengths.iter().map(|it| std::str::from_utf8(it).unwrap().parse().unwrap()).collect();
            assert!(codings.is_empty() && (found == [*length] || found.is_empty() && *length == 0));
        }
    }
}
