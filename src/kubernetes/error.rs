//! Errors of a reconcile. The class of an error decides how it is retried, logged and counted.

use thiserror::Error;

use super::answer;
use super::guard::SchemaError;
use crate::api::Reason;
use crate::domain::refusal::Refusal;
use crate::domain::text::foreign;
use crate::issuers::IssuerError;

/// How an error is handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// It may be temporary: retry with backoff.
    Retry,
    /// A person has to change something. Retries notice the change.
    NeedsUser,
    /// A defect of Credence.
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
    #[error("cannot {doing}: {}", answer::describe(.error))]
    Api {
        /// The operation with the name of the object: `update Secret shop/orders-mtls`.
        doing: String,
        /// The answer of the API server, or the error of the connection.
        error: Box<kube::Error>,
    },
    /// An object of that name exists and belongs to another owner.
    #[error("{kind} {name} exists and is not managed by this object; delete or rename it, or rename this object")]
    NotOwned {
        /// Kind of the object.
        kind: String,
        /// Its namespace and name.
        name: String,
    },
    /// An object that this one depends on does not match its schema.
    #[error(
        "the {kind} {name} does not match its schema; correct it. Until then, objects that depend on it stay as they are"
    )]
    Unreadable {
        /// Kind of the object.
        kind: String,
        /// Its namespace and name.
        name: String,
        /// What does not match.
        error: SchemaError,
    },
    /// An authority cannot issue.
    #[error(transparent)]
    Issuer(#[from] IssuerError),
    /// Something that the reconcile needs cannot be had at the moment; the message says what.
    #[error("{0}")]
    Unavailable(String),
    /// A state that should be impossible.
    #[error("defect of Credence; report it with this message: {0}")]
    Bug(String),
}

impl Error {
    /// Wraps an error of the API client.
    pub fn api(doing: impl Into<String>) -> impl FnOnce(kube::Error) -> Self {
        let doing = doing.into();
        move |error| Self::Api { doing, error: Box::new(error) }
    }

    /// What others said of it, for the log only. What a request about a Secret was answered is left out: a webhook may repeat the
    /// Secret.
    #[must_use]
    pub fn detail(&self) -> String {
        match self {
            Self::Api { doing, error } if !doing.contains("Secret ") => answer::detail(error),
            Self::Unreadable { error, .. } => foreign(error),
            _ => String::new(),
        }
    }

    /// How the error is handled.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Api { error, .. } => match error.as_ref() {
                kube::Error::Api(status) if [400, 403, 422].contains(&status.code) => Class::NeedsUser,
                kube::Error::SerdeError(_) | kube::Error::BuildRequest(_) => Class::Bug,
                _ => Class::Retry,
            },
            Self::Unavailable(_) => Class::Retry,
            Self::Issuer(IssuerError::Certificate(_)) | Self::Bug(_) => Class::Bug,
            Self::Issuer(_) | Self::NotOwned { .. } | Self::Unreadable { .. } => Class::NeedsUser,
        }
    }
}

impl Error {
    /// The refusal for a condition, if a person has to change something.
    ///
    /// # Errors
    /// Any other error, unchanged.
    pub fn into_refusal(self) -> Result<Refusal, Self> {
        match (&self, self.class()) {
            (Self::NotOwned { .. }, _) => Ok(Refusal::new(Reason::NotOwned, self.to_string())),
            // Such as an authority that cannot sign, or a quota or an admission rule that refuses an object.
            (_, Class::NeedsUser) => Ok(Refusal::new(Reason::IssueFailed, self.to_string())),
            _ => Err(self),
        }
    }

    /// The short name of the error, as a metric label and in the log.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Api { error, .. } => match error.as_ref() {
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
            Self::Unavailable(_) => "Unavailable",
            Self::Bug(_) => "Bug",
        }
    }
}

/// Whether the API server answered with this HTTP status.
#[must_use]
pub fn has_code(error: &kube::Error, code: u16) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == code)
}
