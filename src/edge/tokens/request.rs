//! The request for a token: a form. A service asks for itself (RFC 6749 section 4.4.2, with the audience of RFC 8693 section 2.1 or RFC
//! 8707 section 2), or for the user or service that a token names (RFC 8693 section 2.1). Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use http::HeaderMap;
use http::header::{AUTHORIZATION, CONTENT_TYPE};

use super::outcome::Reason;

/// The longest request, in bytes.
pub const MAX_REQUEST: usize = 16 << 10;
const FORM: &str = "application/x-www-form-urlencoded";
/// The grant type of an exchange.
pub const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
/// The type of the tokens that are issued (RFC 8693 section 3).
pub const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
/// The types of tokens that name whom a service acts for.
const SUBJECT_TOKENS: [&str; 3] =
    [ACCESS_TOKEN, "urn:ietf:params:oauth:token-type:id_token", "urn:ietf:params:oauth:token-type:jwt"];
/// Other ways to authenticate a client: only one may be used (RFC 6749 section 2.3).
const OTHER_PROOFS: [&str; 3] = ["client_secret", "client_assertion", "client_assertion_type"];

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRequest {
    /// The SPIFFE ID of the service that the token is for.
    pub audience: String,
    /// The scopes; `None` for all that are granted.
    pub scopes: Option<BTreeSet<String>>,
    /// Who the client says it is.
    pub client_id: Option<String>,
    /// A token that names whom the client acts for; `None` when it acts for itself.
    pub subject_token: Option<SubjectToken>,
}

/// A token that names whom a client acts for. It cannot be printed.
#[derive(Clone, PartialEq, Eq)]
pub struct SubjectToken(String);

impl SubjectToken {
    /// The token, which must not be logged.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SubjectToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SubjectToken(redacted)")
    }
}

impl TokenRequest {
    /// Reads a request. A parameter without a value counts as omitted (RFC 6749 section 3.2), and an unknown one has no effect.
    ///
    /// # Errors
    /// [`Reason::InvalidRequest`] and [`Reason::UnsupportedGrantType`].
    pub fn parse(headers: &HeaderMap, body: &[u8]) -> Result<Self, Reason> {
        if !is_form(headers) || headers.contains_key(AUTHORIZATION) {
            return Err(Reason::InvalidRequest);
        }
        let mut parameters = BTreeMap::new();
        for (name, value) in form_urlencoded::parse(body) {
            if !value.is_empty() && parameters.insert(name.into_owned(), value.into_owned()).is_some() {
                return Err(Reason::InvalidRequest);
            }
        }
        if OTHER_PROOFS.iter().any(|proof| parameters.contains_key(*proof)) {
            return Err(Reason::InvalidRequest);
        }
        let subject_token = match parameters.remove("grant_type").as_deref() {
            Some("client_credentials") => None,
            Some(EXCHANGE) => Some(exchanged(&mut parameters)?),
            Some(_) => return Err(Reason::UnsupportedGrantType),
            None => return Err(Reason::InvalidRequest),
        };
        let audience = match (parameters.remove("audience"), parameters.remove("resource")) {
            (Some(audience), Some(resource)) if audience != resource => return Err(Reason::InvalidRequest),
            (audience, resource) => audience.or(resource).ok_or(Reason::InvalidRequest)?,
        };
        let scopes = parameters.remove("scope").map(|scopes| scopes.split(' ').map(ToOwned::to_owned).collect());
        Ok(Self { audience, scopes, client_id: parameters.remove("client_id"), subject_token })
    }
}

/// The token that is exchanged. The actor is the client itself, so there is no token of one.
fn exchanged(parameters: &mut BTreeMap<String, String>) -> Result<SubjectToken, Reason> {
    let wanted = parameters.remove("requested_token_type");
    let has_actor = parameters.contains_key("actor_token") || parameters.contains_key("actor_token_type");
    if has_actor || wanted.is_some_and(|wanted| wanted != ACCESS_TOKEN) {
        return Err(Reason::InvalidRequest);
    }
    match (parameters.remove("subject_token"), parameters.remove("subject_token_type")) {
        (Some(token), Some(token_type)) if SUBJECT_TOKENS.contains(&token_type.as_str()) => Ok(SubjectToken(token)),
        _ => Err(Reason::InvalidRequest),
    }
}

/// Whether there is one `Content-Type`, and it is that of a form; parameters of it have no effect.
fn is_form(headers: &HeaderMap) -> bool {
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let (Some(content_type), None) = (types.next(), types.next()) else { return false };
    let essence = content_type.to_str().unwrap_or_default().split(';').next().unwrap_or_default();
    essence.trim().eq_ignore_ascii_case(FORM)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const AUDIENCE: &str = "spiffe%3A%2F%2Fd%2Fns%2Fb%2Fsa%2Fpay";

    fn headers(content_type: &str) -> HeaderMap {
        HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_str(content_type).unwrap())])
    }

    fn parse(body: &str) -> Result<TokenRequest, Reason> {
        TokenRequest::parse(&headers(FORM), body.as_bytes())
    }

    #[test]
    fn a_request_names_one_audience() {
        let request = parse(&format!("grant_type=client_credentials&audience={AUDIENCE}&scope=a+b&other=1")).unwrap();
        assert_eq!(request.audience, "spiffe://d/ns/b/sa/pay");
        assert_eq!(request.scopes, Some(["a".to_owned(), "b".to_owned()].into()));
        let both = format!("grant_type=client_credentials&audience={AUDIENCE}&resource={AUDIENCE}&scope=&client_id=c");
        let request = parse(&both).unwrap();
        assert_eq!((request.scopes, request.client_id.as_deref()), (None, Some("c")));
        let form = "Application/X-WWW-Form-Urlencoded; charset=UTF-8";
        assert!(TokenRequest::parse(&headers(form), both.as_bytes()).is_ok());
    }

    #[test]
    fn an_exchange_names_whom_the_client_acts_for() {
        let typed = |name: &str| format!("&subject_token_type=urn:ietf:params:oauth:token-type:{name}");
        let valid = format!("grant_type={EXCHANGE}&audience={AUDIENCE}&subject_token=a.b.c");
        for name in ["access_token", "id_token", "jwt"] {
            let request = parse(&format!("{valid}{}", typed(name))).unwrap();
            assert_eq!(request.subject_token.as_ref().map(SubjectToken::expose), Some("a.b.c"));
            assert!(!format!("{request:?}").contains("a.b.c"));
        }
        assert!(parse(&format!("{valid}{}&requested_token_type={ACCESS_TOKEN}", typed("jwt"))).is_ok());
        for wrong in [
            valid.clone(),
            format!("{valid}{}", typed("saml2")),
            format!("{valid}{}", typed("refresh_token")),
            format!("{valid}{}&subject_token=d.e.f", typed("jwt")),
            format!("{valid}{}&actor_token=d.e.f", typed("jwt")),
            format!("{valid}{}&requested_token_type=urn:ietf:params:oauth:token-type:refresh_token", typed("jwt")),
            format!("grant_type={EXCHANGE}&audience={AUDIENCE}{}", typed("jwt")),
        ] {
            assert_eq!(parse(&wrong), Err(Reason::InvalidRequest), "{wrong}");
        }
        let own = parse(&format!("grant_type=client_credentials&audience={AUDIENCE}&subject_token=a.b.c")).unwrap();
        assert_eq!(own.subject_token, None, "a parameter of another grant has no effect");
    }

    #[test]
    fn what_is_doubtful_is_refused() {
        let valid = format!("grant_type=client_credentials&audience={AUDIENCE}");
        for more in [
            "&audience=x",
            "&resource=x",
            "&scope=a&scope=a",
            "&scope=a&scope=b",
            "&grant_type=client_credentials",
            "&other=1&other=2",
            "&client_secret=s",
            "&client_assertion=a",
        ] {
            assert_eq!(parse(&format!("{valid}{more}")), Err(Reason::InvalidRequest), "{more}");
        }
        for body in ["", "grant_type=client_credentials", "audience=a", "grant_type=client_credentials&audience="] {
            assert_eq!(parse(body), Err(Reason::InvalidRequest), "{body}");
        }
        assert_eq!(parse("grant_type=password&audience=a"), Err(Reason::UnsupportedGrantType));
        for wrong in ["application/json", "", "application/x-www-form-urlencodedx"] {
            let refused = TokenRequest::parse(&headers(wrong), valid.as_bytes());
            assert_eq!(refused, Err(Reason::InvalidRequest), "{wrong}");
        }
        let mut twice = headers(FORM);
        twice.append(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        assert_eq!(TokenRequest::parse(&twice, valid.as_bytes()), Err(Reason::InvalidRequest));
        let mut basic = headers(FORM);
        basic.insert(AUTHORIZATION, HeaderValue::from_static("Basic YTpi"));
        assert_eq!(TokenRequest::parse(&basic, valid.as_bytes()), Err(Reason::InvalidRequest));
    }
}
