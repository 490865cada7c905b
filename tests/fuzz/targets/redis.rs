#![no_main]
//! Replies of Redis: what passes to the library is bounded, is the same however it is cut, and ends where the library ends it.

use credence::edge::webhook::redis_replies::{MAX, Replies};
use credence_fuzz::edited;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some(([how, cut], rest)) = data.split_first_chunk() else { return };
    let bytes = if how & 1 == 0 { rest.to_vec() } else { edited(b"+OK\r\n$7\r\ntoken-1\r\n:1\r\n$-1\r\n-ERR no\r\n", rest) };
    let mut whole = Replies::default();
    let read = whole.read(&bytes).map(|()| whole);
    let (first, second) = bytes.split_at(usize::from(*cut).min(bytes.len()));
    let mut parts = Replies::default();
    assert_eq!(parts.read(first).and_then(|()| parts.read(second)).map(|()| parts), read);
    match read {
        Ok(Replies::String(left)) => assert!(left <= MAX + 2),
        Ok(Replies::Line { bytes, .. } | Replies::Null { bytes }) => assert!(bytes <= MAX),
        // A whole reply at the end: the library reads as many replies, or refuses one of them.
        Ok(Replies::Between) if !bytes.is_empty() => {
            let mut left = bytes.as_slice();
            while !left.is_empty() {
                let mut reader = std::io::Cursor::new(left);
                if redis::Parser::new().parse_value(&mut reader).is_err() {
                    return;
                }
                left = &left[usize::try_from(reader.position()).unwrap()..];
            }
        }
        _ => {}
    }
});
