//! What becomes of a request for a token: its reason in the audit log, and the error that the client gets.

use http::StatusCode;

use crate::edge::http::RequestError;

/// The outcome of a request for a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A token was issued.
    Issued,
    /// The request is not HTTP, or contradicts itself.
    Malformed,
    /// The body did not arrive as a whole.
    BodyIncomplete,
    /// The request is not a form with the parameters that it needs, each once.
    InvalidRequest,
    /// The client has not proven to be a service of the trust domain.
    InvalidClient,
    /// The service may ask for no tokens.
    UnauthorizedClient,
    /// The grant type is not supported.
    UnsupportedGrantType,
    /// The service has no token for this audience: one of both sides does not name the other.
    InvalidTarget,
    /// A scope is not granted.
    InvalidScope,
    /// The subject token is not a compact JWT of a type that names somebody.
    SubjectMalformed,
    /// Its issuer is none whose users this service may act for.
    SubjectUnknownIssuer,
    /// No key of its issuer has signed it, with an algorithm that this one uses.
    SubjectWrongSignature,
    /// It is not valid any more.
    SubjectExpired,
    /// It is not valid yet.
    SubjectNotYetValid,
    /// It is for somebody else than the service.
    SubjectWrongAudience,
    /// Its subject, its tenant or another claim is missing or not accepted.
    SubjectWrongClaims,
    /// The keys of its issuer could not be fetched yet.
    SubjectKeysMissing,
    /// There were too many requests.
    TooMany,
    /// There is no key to sign with, or the audit log is full.
    NotReady,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 19] = [
        Self::Issued,
        Self::Malformed,
        Self::BodyIncomplete,
        Self::InvalidRequest,
        Self::InvalidClient,
        Self::UnauthorizedClient,
        Self::UnsupportedGrantType,
        Self::InvalidTarget,
        Self::InvalidScope,
        Self::SubjectMalformed,
        Self::SubjectUnknownIssuer,
        Self::SubjectWrongSignature,
        Self::SubjectExpired,
        Self::SubjectNotYetValid,
        Self::SubjectWrongAudience,
        Self::SubjectWrongClaims,
        Self::SubjectKeysMissing,
        Self::TooMany,
        Self::NotReady,
    ];

    /// The name in the audit log and in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Issued => "Issued",
            Self::Malformed => "Malformed",
            Self::BodyIncomplete => "BodyIncomplete",
            Self::InvalidRequest => "InvalidRequest",
            Self::InvalidClient => "InvalidClient",
            Self::UnauthorizedClient => "UnauthorizedClient",
            Self::UnsupportedGrantType => "UnsupportedGrantType",
            Self::InvalidTarget => "InvalidTarget",
            Self::InvalidScope => "InvalidScope",
            Self::SubjectMalformed => "SubjectMalformed",
            Self::SubjectUnknownIssuer => "SubjectUnknownIssuer",
            Self::SubjectWrongSignature => "SubjectWrongSignature",
            Self::SubjectExpired => "SubjectExpired",
            Self::SubjectNotYetValid => "SubjectNotYetValid",
            Self::SubjectWrongAudience => "SubjectWrongAudience",
            Self::SubjectWrongClaims => "SubjectWrongClaims",
            Self::SubjectKeysMissing => "SubjectKeysMissing",
            Self::TooMany => "TooMany",
            Self::NotReady => "NotReady",
        }
    }

    /// The error code of the answer (RFC 6749 section 5.2, RFC 8707 section 2, RFC 8693 section 2.2.2), and its status. What is not in one of these standards
    /// has the code of the nearest.
    #[must_use]
    pub fn error(self) -> (StatusCode, &'static str) {
        match self {
            Self::Issued => (StatusCode::OK, ""),
            Self::Malformed
            | Self::BodyIncomplete
            | Self::InvalidRequest
            | Self::SubjectMalformed
            | Self::SubjectUnknownIssuer
            | Self::SubjectWrongSignature
            | Self::SubjectExpired
            | Self::SubjectNotYetValid
            | Self::SubjectWrongAudience
            | Self::SubjectWrongClaims => (StatusCode::BAD_REQUEST, "invalid_request"),
            Self::InvalidClient => (StatusCode::UNAUTHORIZED, "invalid_client"),
            Self::UnauthorizedClient => (StatusCode::BAD_REQUEST, "unauthorized_client"),
            Self::UnsupportedGrantType => (StatusCode::BAD_REQUEST, "unsupported_grant_type"),
            Self::InvalidTarget => (StatusCode::BAD_REQUEST, "invalid_target"),
            Self::InvalidScope => (StatusCode::BAD_REQUEST, "invalid_scope"),
            Self::TooMany => (StatusCode::TOO_MANY_REQUESTS, "temporarily_unavailable"),
            Self::NotReady | Self::SubjectKeysMissing => (StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable"),
        }
    }

    /// What the client is told besides the code. It is the same whether a service does not exist or does not agree.
    #[must_use]
    pub fn description(self) -> &'static str {
        match self {
            Self::Issued => "",
            Self::Malformed => "the request contradicts itself",
            Self::BodyIncomplete => "the body did not arrive as a whole",
            Self::InvalidRequest => {
                "send a form with grant_type and one audience, each parameter once, and no client secret or assertion"
            }
            Self::InvalidClient => {
                "present a certificate of this trust domain; client_id is its SPIFFE ID, if it is sent"
            }
            Self::UnauthorizedClient => "this service has no signedToken in its ServiceIdentity",
            Self::UnsupportedGrantType => "use grant_type=client_credentials, or that of a token exchange",
            Self::InvalidTarget => {
                "this service may not call the audience: both of their ServiceIdentities must name the other"
            }
            Self::InvalidScope => "a scope is not granted for this audience",
            Self::SubjectMalformed
            | Self::SubjectUnknownIssuer
            | Self::SubjectWrongSignature
            | Self::SubjectNotYetValid
            | Self::SubjectWrongAudience
            | Self::SubjectWrongClaims => "this service may not act on the subject token",
            Self::SubjectExpired => "the subject token has expired",
            Self::TooMany => "too many requests; try again later",
            Self::NotReady | Self::SubjectKeysMissing => "no token can be issued now; try again later",
        }
    }
}

impl From<RequestError> for Reason {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::Malformed | RequestError::HeadTooLarge => Self::Malformed,
            RequestError::BodyTooLarge => Self::InvalidRequest,
            RequestError::BodyTimeout | RequestError::BodyIncomplete => Self::BodyIncomplete,
            RequestError::QuotaExceeded => Self::TooMany,
        }
    }
}
