//! The head of a request: which host it is for.

use http::request::Parts;
use http::uri::Authority;
use http::{HeaderValue, Version, header};

use super::service::RequestError;

/// Refuses a request that names its host twice, not at all, or in the form for proxies: an intermediary may have read it in
/// another way.
///
/// # Errors
/// [`RequestError::Malformed`].
pub fn check_authority(parts: &Parts) -> Result<(), RequestError> {
    let mut hosts = parts.headers.get_all(header::HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(RequestError::Malformed);
    }
    let plain = |host: &HeaderValue| {
        Authority::try_from(host.as_bytes()).is_ok_and(|authority| !authority.as_str().contains('@'))
    };
    let right = match (parts.uri.authority(), host) {
        (Some(authority), host) => {
            let same = |host: &HeaderValue| host.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes());
            parts.version == Version::HTTP_2 && host.is_none_or(same)
        }
        (None, Some(host)) => plain(host),
        (None, None) => parts.version == Version::HTTP_10,
    };
    if right { Ok(()) } else { Err(RequestError::Malformed) }
}

/// Host and port that a request is for (`:authority` or `Host`); empty when it names none.
#[must_use]
pub fn authority(parts: &Parts) -> &str {
    let host = || parts.headers.get(header::HOST).and_then(|host| host.to_str().ok());
    parts.uri.authority().map(Authority::as_str).or_else(host).unwrap_or_default()
}
