//! Errors of reconciling, and the class that decides everything else about them.

use thiserror::Error;

use super::guard::SchemaError;
use crate::api::Reason;
use crate::domain::refusal::Refusal;
use crate::issuers::IssuerError;

/// What an error asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// It may pass: retry, with backoff.
    Retry,
    /// A person has to change something; retrying only makes sure that the change is noticed.
    NeedsUser,
    /// It should never happen.
    Bug,
}

impl Class {
    /// The name in logs and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::NeedsUser => "needs_user",
            Self::Bug => "bug",
        }
    }
}

/// Why a reconcile failed.
#[derive(Debug, Error)]
pub enum Error {
    /// A request to the API server failed.
    #[error("cannot {doing}: {source}")]
    Api {
        /// The operation, with the object's name.
        doing: String,
        /// The answer of the API server, or the failure of the connection.
        source: Box<kube::Error>,
    },
    /// An object of the target name belongs to somebody else.
    #[error("{kind} {name} exists and is not managed by this object; delete or rename it, or rename this object")]
    NotOwned {
        /// Kind of the object.
        kind: String,
        /// Its namespace and name.
        name: String,
    },
    /// An object that this one depends on cannot be read.
    #[error(
        "the {kind} {name} does not fit its schema ({error}); correct it, until then nothing that depends on it changes"
    )]
    Unreadable {
        /// Kind of the object.
        kind: String,
        /// Its namespace and name.
        name: String,
        /// What does not fit.
        error: SchemaError,
    },
    /// An authority could not issue.
    #[error(transparent)]
    Issuer(#[from] IssuerError),
    /// Something that the types should rule out.
    #[error("this is a defect of Credence, please report it: {0}")]
    Bug(String),
}

impl Error {
    /// Wraps an error of the API client.
    pub fn api(doing: impl Into<String>) -> impl FnOnce(kube::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Api { doing, source: Box::new(source) }
    }

    /// What the error asks for.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Api { source, .. } => match source.as_ref() {
                kube::Error::Api(status) if [400, 403, 422].contains(&status.code) => Class::NeedsUser,
                kube::Error::SerdeError(_) | kube::Error::BuildRequest(_) => Class::Bug,
                _ => Class::Retry,
            },
            Self::Issuer(IssuerError::Certificate(_)) | Self::Bug(_) => Class::Bug,
            Self::Issuer(_) | Self::NotOwned { .. } | Self::Unreadable { .. } => Class::NeedsUser,
        }
    }
}

impl Error {
    /// The refusal for a condition, when somebody has to change something.
    ///
    /// # Errors
    /// Every other error, as it is.
    pub fn into_refusal(self) -> Result<Refusal, Self> {
        match (&self, self.class()) {
            (Self::NotOwned { .. }, _) => Ok(Refusal::new(Reason::NotOwned, self.to_string())),
            // An authority that cannot sign, a quota or an admission rule that refuses an object.
            (_, Class::NeedsUser) => Ok(Refusal::new(Reason::IssueFailed, self.to_string())),
            _ => Err(self),
        }
    }

    /// A short name of it, for metrics.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Api { source, .. } => match source.as_ref() {
                kube::Error::Api(status) => match status.code {
                    403 => "Forbidden",
                    409 => "Conflict",
                    429 => "TooManyRequests",
                    400..500 => "RequestRefused",
                    _ => "ServerFailed",
                },
                _ => "NoAnswer",
            },
            Self::NotOwned { .. } => "NotOwned",
            Self::Unreadable { .. } => "Unreadable",
            Self::Issuer(_) => "IssueFailed",
            Self::Bug(_) => "Bug",
        }
    }
}

/// Whether the API server answered with this HTTP status.
#[must_use]
pub fn has_code(error: &kube::Error, code: u16) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == code)
}
