#![no_main]
//! HTTP/1.1 as the edge reads it before its parser: however it comes in pieces, exactly that passes which a plain reading of
//! the whole finds beyond dispute, and the parser reads heads as that reading does.

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
        Err(Dispute { at, in_head }) => (at, if in_head { &b"\0\r\n\r\n"[..] } else { b"" }, Some(ErrorKind::InvalidData)),
    };
    assert_eq!((read, error), ([&data[..passed], poison].concat(), expected));
});

/// What a reader gets with a buffer of this size, when the bytes come in pieces of these sizes.
fn read_strictly(data: &[u8], sizes: &[u8], room: usize) -> (Vec<u8>, Option<ErrorKind>) {
    let mut stream = Strict::new(Pieces { left: data, sizes: sizes.iter().cycle() });
    let mut context = Context::from_waker(Waker::noop());
    let (mut read, mut buffer) = (Vec::new(), vec![0; room]);
    loop {
        let mut buffer = ReadBuf::new(&mut buffer);
        match Pin::new(&mut stream).poll_read(&mut context, &mut buffer) {
            Poll::Ready(Ok(())) if buffer.filled().is_empty() => return (read, None),
            Poll::Ready(Ok(())) => read.extend_from_slice(buffer.filled()),
            Poll::Ready(Err(error)) => return (read, Some(error.kind())),
            Poll::Pending => unreachable!("the bytes are here"),
        }
    }
}

struct Pieces<'a> {
    left: &'a [u8],
    sizes: std::iter::Cycle<std::slice::Iter<'a, u8>>,
}

impl AsyncRead for Pieces<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let size = usize::from(*self.sizes.next().unwrap()) + 1;
        let (piece, left) = self.left.split_at(size.min(buffer.remaining()).min(self.left.len()));
        buffer.put_slice(piece);
        self.left = left;
        Poll::Ready(Ok(()))
    }
}

/// The first byte that leaves a doubt.
struct Dispute {
    at: usize,
    in_head: bool,
}

/// Reads requests one after the other, as far as they are there.
fn reading(data: &[u8]) -> Result<(), Dispute> {
    let mut at = 0;
    while at < data.len() {
        let Some((body, framing)) = head(data, at).map_err(|at| Dispute { at, in_head: true })? else { return Ok(()) };
        parsed_alike(&data[at..body], &framing);
        let end = match framing {
            Framing::Length(length) => Some(usize::try_from(length).unwrap().saturating_add(body)),
            Framing::Chunked => chunks(data, body).map_err(|at| Dispute { at, in_head: false })?,
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

/// The line that begins here, and where the next one does; `None` when it has not come as a whole.
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

/// Where the head ends, and how its body is framed.
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
        let said = match name.as_slice() {
            b"content-length" if value.bytes().all(|byte| byte.is_ascii_digit()) => value.parse().ok().map(Framing::Length),
            b"transfer-encoding" if value.eq_ignore_ascii_case("chunked") => Some(Framing::Chunked),
            b"content-length" | b"transfer-encoding" => None,
            _ => {
                at = next;
                continue;
            }
        };
        // One that is long hides its end from readers that keep less.
        let Some(said) = said.filter(|_| header.len() < 256) else { return Err(next - 1) };
        match framing.replace(said) {
            None => {}
            // The two kinds are told apart at the end of the head only.
            Some(before) if before != Framing::Chunked && framing == Some(Framing::Chunked) => return mixed(data, next),
            Some(Framing::Chunked) if framing != Some(Framing::Chunked) => return mixed(data, next),
            Some(_) => return Err(next - 1),
        }
        at = next;
    }
    Ok(None)
}

/// A head with both kinds of length: it is refused where it ends, or where something in it is refused by itself.
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

/// Where the chunks end.
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

/// Whether the parser finds the same head there, unless it refuses it.
fn parsed_alike(head: &[u8], framing: &Framing) {
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
            let said: Vec<u64> = lengths.iter().map(|it| std::str::from_utf8(it).unwrap().parse().unwrap()).collect();
            assert!(codings.is_empty() && (said == [*length] || said.is_empty() && *length == 0));
        }
    }
}
