//! The generic HMAC scheme: a MAC over parts in a configured order.

use aws_lc_rs::hmac::{Algorithm, HMAC_SHA256, HMAC_SHA384, HMAC_SHA512};
use http::HeaderName;

use super::check::{SignatureCheck, Verified};
use super::error::VerifyError;
use super::hash::identity;
use super::header;
use crate::api::{GenericHmac, HmacHash, MacEncoding, SignedPart};
use crate::domain::invalid_field::InvalidField;
use crate::edge::encoding;

/// What is signed, and which header has the MAC.
#[derive(Clone, Debug)]
pub struct Layout {
    algorithm: Algorithm,
    encoding: MacEncoding,
    header: String,
    prefix: String,
    parts: Vec<Part>,
}

#[derive(Clone, Debug)]
enum Part {
    /// The ID in this header. The byte is the delimiter between the ID and its neighbour, which must not be in the ID.
    Id(String, Option<u8>),
    Timestamp(String),
    Body,
    Literal(String),
}

impl Layout {
    /// Checks what the API server could not.
    ///
    /// # Errors
    /// Says what is wrong and what to write instead.
    pub fn new(spec: &GenericHmac) -> Result<Self, InvalidField> {
        let mut parts = spec.parts.iter().map(part).collect::<Result<Vec<_>, _>>()?;
        let count = |wanted: fn(&Part) -> bool| parts.iter().filter(|part| wanted(part)).count();
        if count(|part| matches!(part, Part::Body)) != 1 {
            return Err(InvalidField::new("parts", "the body must be signed, once"));
        }
        if count(|part| matches!(part, Part::Id(..))) > 1 || count(|part| matches!(part, Part::Timestamp(_))) > 1 {
            return Err(InvalidField::new("parts", "at most one id and one timestamp"));
        }
        delimit(&mut parts)?;
        Ok(Self {
            algorithm: match spec.hash {
                HmacHash::Sha256 => HMAC_SHA256,
                HmacHash::Sha384 => HMAC_SHA384,
                HmacHash::Sha512 => HMAC_SHA512,
            },
            encoding: spec.encoding,
            header: header_name("header", &spec.header)?,
            prefix: spec.prefix.clone().unwrap_or_default(),
            parts,
        })
    }

    fn decode(&self, text: &str) -> Option<Vec<u8>> {
        let text = text.strip_prefix(&self.prefix)?;
        match self.encoding {
            MacEncoding::Hex => encoding::hex(text),
            MacEncoding::Base64 => encoding::base64(text),
            MacEncoding::Base64Url => encoding::base64url(text),
        }
    }
}

fn part(part: &SignedPart) -> Result<Part, InvalidField> {
    match part {
        SignedPart { id: Some(id), timestamp: None, body: None, literal: None } => {
            Ok(Part::Id(header_name("parts", &id.header)?, None))
        }
        SignedPart { id: None, timestamp: Some(timestamp), body: None, literal: None } => {
            Ok(Part::Timestamp(header_name("parts", &timestamp.header)?))
        }
        SignedPart { id: None, timestamp: None, body: Some(_), literal: None } => Ok(Part::Body),
        SignedPart { id: None, timestamp: None, body: None, literal: Some(text) } if !text.is_empty() => {
            Ok(Part::Literal(text.clone()))
        }
        _ => Err(InvalidField::new("parts", "set exactly one of id, timestamp, body and literal")),
    }
}

fn header_name(field: &str, name: &str) -> Result<String, InvalidField> {
    HeaderName::from_lowercase(name.as_bytes())
        .map(|_| name.to_owned())
        .map_err(|_| InvalidField::new(field, format!("{name} is not the name of a header; write it in lower case")))
}

/// Makes sure that the signed text can be split in one way only. Otherwise bytes could move between ID and body, and the same
/// signature would fit another delivery. Before the body, each part must have a definite end, and after the body, a definite
/// beginning: a timestamp in the window has a fixed length, a literal is known, and an ID needs a literal between it and the body.
fn delimit(parts: &mut [Part]) -> Result<(), InvalidField> {
    let body = parts.iter().position(|part| matches!(part, Part::Body)).unwrap_or_default();
    let Some(id) = parts.iter().position(|part| matches!(part, Part::Id(..))) else {
        return Ok(());
    };
    let neighbour = if id < body { parts.get(id + 1) } else { parts.get(id - 1) };
    let edge = match neighbour {
        Some(Part::Literal(text)) if id < body => text.bytes().next(),
        Some(Part::Literal(text)) => text.bytes().last(),
        _ => {
            return Err(InvalidField::new(
                "parts",
                "put a literal such as . between the id and what follows towards the body",
            ));
        }
    };
    if let Some(Part::Id(_, delimiter)) = parts.get_mut(id) {
        *delimiter = edge;
    }
    Ok(())
}

/// Verifies a request.
pub(super) fn verify(check: &SignatureCheck<'_>, layout: &Layout) -> Result<Verified, VerifyError> {
    let mac = [layout.decode(check.header(&layout.header)?).ok_or(VerifyError::MalformedHeader)?];
    let mut delivery_id = None;
    let mut signed_at = None;
    let mut signed: Vec<&[u8]> = Vec::with_capacity(layout.parts.len());
    for part in &layout.parts {
        signed.push(match part {
            Part::Id(name, delimiter) => {
                let id = header::id(check.header(name)?)?;
                if delimiter.is_some_and(|byte| id.as_bytes().contains(&byte)) {
                    return Err(VerifyError::MalformedHeader);
                }
                delivery_id = Some(id.to_owned());
                id.as_bytes()
            }
            Part::Timestamp(name) => {
                let time = check.header(name)?;
                signed_at = Some(check.timestamp(time)?);
                time.as_bytes()
            }
            Part::Body => check.request.body,
            Part::Literal(text) => text.as_bytes(),
        });
    }
    let signer = check.mac_signer(layout.algorithm, &signed, &mac)?;
    let identity = match &delivery_id {
        Some(id) => identity("hmac-id", &[id.as_bytes()]),
        None => identity("hmac", &signed),
    };
    Ok(Verified { key_id: signer.id.clone(), delivery_id, signed_at, identity })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{HeaderReference, NoSettings, Verification};
    use crate::edge::webhook::verify::scheme::Scheme;
    use crate::edge::webhook::verify::testing::{Request, at, key, refused_when_altered};

    const SECRET: &str = "0123456789abcdef0123456789abcdef";
    const NOW: i64 = 1_614_265_330;

    fn id() -> SignedPart {
        SignedPart { id: Some(HeaderReference { header: "x-id".into() }), ..body_of(None) }
    }

    fn time() -> SignedPart {
        SignedPart { timestamp: Some(HeaderReference { header: "x-time".into() }), ..body_of(None) }
    }

    fn body_of(body: Option<NoSettings>) -> SignedPart {
        SignedPart { id: None, timestamp: None, body, literal: None }
    }

    fn body() -> SignedPart {
        body_of(Some(NoSettings {}))
    }

    fn dot() -> SignedPart {
        SignedPart { literal: Some(".".into()), ..body_of(None) }
    }

    fn scheme(hash: HmacHash, encoding: MacEncoding, parts: &[SignedPart]) -> Result<Scheme, InvalidField> {
        let hmac = GenericHmac {
            hash,
            encoding,
            header: "x-signature".into(),
            prefix: Some("mac=".into()),
            parts: parts.to_vec(),
        };
        Scheme::new(&Verification { hmac: Some(hmac), ..Verification::default() })
    }

    fn sha256_hex(parts: &[SignedPart]) -> Result<Scheme, InvalidField> {
        scheme(HmacHash::Sha256, MacEncoding::Hex, parts)
    }

    fn example() -> Request {
        Request::post("{}")
            .header("x-id", "msg_1")
            .header("x-time", "1614265330")
            .header("x-signature", "mac=305d726538a3c6ea1a78c29aec41ae5362e31a8283e1633fd9531dd660d0f90d")
    }

    #[test]
    fn parts_are_signed_in_their_order() {
        let scheme = sha256_hex(&[id(), dot(), time(), dot(), body()]).unwrap();
        let verify = |request: &Request| request.verify(&scheme, &[key(&scheme, SECRET)], NOW);
        let verified = verify(&example()).unwrap();
        assert_eq!(verified.delivery_id.as_deref(), Some("msg_1"));
        assert_eq!(verified.signed_at, Some(at(NOW)));
        refused_when_altered(&example(), &["x-id", "x-time", "x-signature"], verify);
        let late = example().verify(&scheme, &[key(&scheme, SECRET)], NOW + 301);
        assert_eq!(late, Err(VerifyError::TooOld));
        let other_order = sha256_hex(&[time(), dot(), id(), dot(), body()]).unwrap();
        let swapped = example().verify(&other_order, &[key(&other_order, SECRET)], NOW);
        assert_eq!(swapped, Err(VerifyError::WrongSignature));
    }

    #[test]
    fn every_hash_and_encoding_has_its_own_text() {
        for (hash, encoding, mac) in [
            (HmacHash::Sha384, MacEncoding::Base64, "4/rUds6Bl8N+4Q5j4nI289Ya07PLEnyC+V8h7rHqT8HgUna42DT7w/nod2bhZW2E"),
            (
                HmacHash::Sha512,
                MacEncoding::Base64Url,
                "s5IvBIDlWKZdW_CFYSIIY07JrKiNRo9nnIh3MMAYtGFSC_152QXM_Aoioqm2NUwcBLYDgeMqqhUaMXukAhEkUg",
            ),
        ] {
            let scheme = scheme(hash, encoding, &[body()]).unwrap();
            let request = example().set("x-signature", &format!("mac={mac}"));
            let verified = request.verify(&scheme, &[key(&scheme, SECRET)], NOW).unwrap();
            assert_eq!((verified.delivery_id, verified.signed_at), (None, None));
            let bare = example().set("x-signature", mac);
            assert_eq!(bare.verify(&scheme, &[key(&scheme, SECRET)], NOW), Err(VerifyError::MalformedHeader));
        }
    }

    #[test]
    fn bytes_cannot_move_between_id_and_body() {
        let scheme = sha256_hex(&[id(), dot(), body()]).unwrap();
        let moved = example().set("x-id", "msg_1.x");
        assert_eq!(moved.verify(&scheme, &[key(&scheme, SECRET)], NOW), Err(VerifyError::MalformedHeader));
        for ambiguous in [&[id(), body()][..], &[body(), id()], &[id(), time(), body()], &[body(), dot(), time(), id()]]
        {
            assert!(sha256_hex(ambiguous).unwrap_err().message.contains("literal"));
        }
        for clear in [&[body(), dot(), id()][..], &[time(), body()], &[time(), id(), dot(), body()]] {
            assert!(sha256_hex(clear).is_ok());
        }
    }

    #[test]
    fn a_layout_signs_the_body_once() {
        for wrong in [&[][..], &[id(), dot()], &[body(), body()], &[body(), dot(), id(), dot(), id()], &[body_of(None)]]
        {
            assert!(sha256_hex(wrong).is_err());
        }
    }
}
