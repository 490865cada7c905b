#![no_main]
//! Headers as schemes read them: exactly once, short, visible ASCII, and without surrounding blanks.

use credence::edge::webhook::verify::VerifyError;
use credence::edge::webhook::verify::fuzzing::{optional, optional_id, required};
use http::{HeaderMap, HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((times, lines)) = data.split_first() else { return };
    let name = HeaderName::from_static("x-any");
    let mut headers = HeaderMap::new();
    for line in lines.split(|byte| *byte == b'\n').take(3) {
        // Repeated, so that some values exceed the maximum length.
        let Ok(value) = HeaderValue::from_bytes(&line.repeat(usize::from(times % 4) + 1)) else { return };
        headers.append(&name, value);
    }
    let values: Vec<&[u8]> = headers.get_all(&name).iter().map(HeaderValue::as_bytes).collect();
    let blank = |byte: &u8| *byte == b' ' || *byte == b'\t';
    let plain = match values.as_slice() {
        [value] if value.len() <= 8192 => {
            let begin = value.iter().position(|byte| !blank(byte)).unwrap_or(value.len());
            let end = value.iter().rposition(|byte| !blank(byte)).map_or(begin, |last| last + 1);
            let text = &value[begin..end];
            text.iter().all(|byte| (32..127).contains(byte)).then(|| String::from_utf8(text.to_vec()).unwrap())
        }
        _ => None,
    };
    let plain = plain.as_deref().ok_or(VerifyError::MalformedHeader);
    assert_eq!(optional(&headers, "x-any"), plain.map(Some));
    let expected = plain.and_then(|text| if text.is_empty() { Err(VerifyError::MalformedHeader) } else { Ok(text) });
    assert_eq!(required(&headers, "x-any"), expected);
    let id = expected.and_then(|text| {
        let fits = text.len() <= 256 && !text.contains(' ');
        if fits { Ok(Some(text.to_owned())) } else { Err(VerifyError::MalformedHeader) }
    });
    assert_eq!(optional_id(&headers, "x-any"), id);
    assert_eq!(
        (optional(&headers, "x-other"), required(&headers, "x-other")),
        (Ok(None), Err(VerifyError::MissingHeader))
    );
});
