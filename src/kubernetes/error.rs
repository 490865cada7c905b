//! Errors of reconciling, and the class that decides everything else about them.

use thiserror::Error;

use crate::issuers::IssuerError;

/// What an error asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// It may pass by itself: try again, with backoff.
    Retry,
    /// Somebody has to change something; trying again only makes sure that the change is noticed.
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

/// Why a reconcile did not come to its end.
#[derive(Debug, Error)]
pub enum Error {
    /// The API server did not do what was asked.
    #[error("cannot {doing}: {source}")]
    Api {
        /// What was tried, with the object's name.
        doing: String,
        /// What the API server or the connection said.
        source: Box<kube::Error>,
    },
    /// An object of the target name belongs to somebody else.
    #[error(
        "{kind} {name} exists and does not belong to this object; it is left alone. Rename or delete it, or give this \
         object another name"
    )]
    NotOwned {
        /// Kind of the object.
        kind: String,
        /// Its namespace and name.
        name: String,
    },
    /// An object that this one depends on cannot be read.
    #[error(
        "the {kind} {name} does not fit its schema ({why}); nothing that depends on it is changed until it is corrected"
    )]
    Unreadable {
        /// Kind of the object.
        kind: String,
        /// Its namespace and name.
        name: String,
        /// What is wrong with it.
        why: String,
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
