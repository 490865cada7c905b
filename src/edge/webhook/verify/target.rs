//! The URL of a delivery as its sender knows it.

use super::error::VerifyError;
use super::request::SignedRequest;

/// The parts of a URL, unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Target<'a> {
    /// Before `://`.
    pub scheme: &'a str,
    /// Host, and port where there is one.
    pub authority: &'a str,
    /// From the first `/` on; it may be empty.
    pub path: &'a str,
    /// What follows the `?`, without it.
    pub query: Option<&'a str>,
}

impl<'a> Target<'a> {
    /// Scheme, authority and path of the external URL where there is one: behind a proxy the edge sees others, and callers must
    /// not choose them. The query is the received one.
    pub(super) fn of(request: &SignedRequest<'a>) -> Result<Self, VerifyError> {
        let query = request.uri.query();
        let Some(url) = request.external_url else {
            return Ok(Self { scheme: "https", authority: request.authority, path: request.uri.path(), query });
        };
        let (scheme, rest) = url.split_once("://").ok_or(VerifyError::NotCovered)?;
        let (rest, _) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.find('/').and_then(|slash| rest.split_at_checked(slash)).unwrap_or((rest, ""));
        Ok(Self { scheme, authority, path, query })
    }

    /// Host, and port where there is one.
    pub(super) fn host_and_port(&self) -> (&'a str, Option<&'a str>) {
        match self.authority.rsplit_once(':') {
            Some((host, port)) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => {
                (host, Some(port))
            }
            _ => (self.authority, None),
        }
    }

    /// The port that the scheme has by itself.
    pub(super) fn default_port(&self) -> &'static str {
        if self.scheme.eq_ignore_ascii_case("http") { "80" } else { "443" }
    }

    /// `?` and the query, or nothing.
    pub(super) fn query_part(&self) -> String {
        self.query.map(|query| format!("?{query}")).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::webhook::verify::testing::Request;

    #[test]
    fn the_external_url_goes_before_what_was_received() {
        let seen_as = |external_url: Option<&str>, expected: Result<Target<'_>, VerifyError>| {
            let request = Request {
                uri: "/seen?a=1".parse().unwrap(),
                authority: "edge:8443".into(),
                external_url: external_url.map(str::to_owned),
                ..Request::post("")
            };
            assert_eq!(Target::of(&request.signed_request()), expected, "{external_url:?}");
        };
        let outside = Target { scheme: "http", authority: "out.example", path: "/x", query: Some("a=1") };
        seen_as(None, Ok(Target { scheme: "https", authority: "edge:8443", path: "/seen", query: Some("a=1") }));
        seen_as(Some("http://out.example/x"), Ok(outside));
        seen_as(Some("http://out.example/x?b=/2"), Ok(outside));
        seen_as(Some("http://out.example"), Ok(Target { path: "", ..outside }));
        seen_as(Some("out.example/x"), Err(VerifyError::NotCovered));
    }

    #[test]
    fn a_port_is_of_digits() {
        let port = |authority| Target { scheme: "https", authority, path: "", query: None }.host_and_port();
        assert_eq!(port("a.example:8443"), ("a.example", Some("8443")));
        assert_eq!(port("[::1]:80"), ("[::1]", Some("80")));
        for none in ["a.example", "a.example:", "[::1]", "user:secret@a.example"] {
            assert_eq!(port(none), (none, None));
        }
    }
}
