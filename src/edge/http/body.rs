//! Bodies of requests: read to their end, within limits of time, length and memory.

use std::error::Error;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use tokio::time::timeout;

use super::service::RequestError;
use crate::edge::front::{Permit, ProcessLimits, Quota};
use crate::network::Pieces;

/// How long a whole body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(20);
/// For how long the body of a refused request is read, and how much of it.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(1);
const MAX_DISCARDED: usize = 1 << 20;
/// Maximum memory for all bodies, in bytes.
const MAX_BODIES: usize = 256 << 20;
/// The largest body that may be allowed, in bytes: an address that sends nothing else is within its quota with it.
const MAX_BODY: usize = 10 << 20;

/// The quota of bodies, in bytes: a quarter of the memory, of which one network may use a quarter, and one namespace half.
#[must_use]
pub fn quota(limits: ProcessLimits) -> Arc<Quota> {
    let bodies = MAX_BODIES.min(limits.memory / 4);
    Quota::new(bodies, MAX_BODY.max(bodies / 4), MAX_BODY.max(bodies / 2))
}

/// Reads a body of at most `max` bytes; the permit grows with it.
///
/// # Errors
/// Why it was not read.
pub async fn read(body: &mut Incoming, max: usize, permit: &mut Permit) -> Result<Pieces, RequestError> {
    timeout(BODY_TIMEOUT, read_to_end(body, max, permit)).await.map_err(|_| RequestError::BodyTimeout)?
}

async fn read_to_end(body: &mut Incoming, max: usize, permit: &mut Permit) -> Result<Pieces, RequestError> {
    if body.size_hint().lower() > max as u64 {
        return Err(RequestError::BodyTooLarge);
    }
    let mut pieces = Pieces::default();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| classify(&error))?;
        let Some(data) = frame.data_ref() else { continue };
        if data.len() > max - pieces.length() {
            return Err(RequestError::BodyTooLarge);
        }
        if !permit.grow(data.len()) {
            return Err(RequestError::QuotaExceeded);
        }
        pieces.push(data);
    }
    Ok(pieces)
}

/// Whether the caller ended the body, by closing the connection, or sent what is no body.
fn classify(error: &hyper::Error) -> RequestError {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<io::Error>());
    match cause.map(io::Error::kind) {
        Some(ErrorKind::InvalidInput | ErrorKind::InvalidData) => RequestError::Malformed,
        _ => RequestError::BodyIncomplete,
    }
}

/// Reads and discards what the caller of a refused request is still sending, within limits: otherwise many callers would see a
/// broken connection in place of the answer.
pub async fn discard(body: Incoming) {
    let _ = timeout(DISCARD_TIMEOUT, discard_frames(body)).await;
}

async fn discard_frames(mut body: Incoming) {
    let mut left = MAX_DISCARDED;
    while let Some(Ok(frame)) = body.frame().await {
        let length = frame.data_ref().map_or(0, Bytes::len);
        let Some(less) = left.checked_sub(length) else { return };
        left = less;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_limited_by_memory() {
        let bodies = |memory| {
            let (max, max_per_network, max_per_namespace) = quota(ProcessLimits { memory, files: usize::MAX }).max();
            (max >> 20, max_per_network >> 20, max_per_namespace >> 20)
        };
        assert_eq!(bodies(usize::MAX), (256, 64, 128));
        assert_eq!(bodies(512 << 20), (128, 32, 64));
        assert_eq!(bodies(128 << 20), (32, 10, 16), "with less, the largest body would never be accepted");
    }
}
