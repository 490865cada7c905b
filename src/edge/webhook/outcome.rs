//! The result of a delivery: what the audit log says, and what the caller is answered.

use http::StatusCode;
use serde::{Serialize, Serializer};

use super::replay::ReserveError;
use super::verify::VerifyError;
use crate::edge::http::RequestError;

/// The result of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Verdict {
    /// The target accepted it.
    Accepted,
    /// The edge refused it.
    Refused,
    /// The edge accepted it and the target did not: the sender may retry.
    Failed,
}

impl Verdict {
    /// Its name in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "Accepted",
            Self::Refused => "Refused",
            Self::Failed => "Failed",
        }
    }
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident => $verdict:ident, $status:ident;)+) => {
        /// Why a delivery has its result. There are few, so that it can be a label of a metric.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason { $($(#[$doc])* $name,)+ }

        impl Reason {
            /// Every reason.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// Its name in audit lines and metrics.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)+ }
            }

            /// The result that it stands for.
            #[must_use]
            pub fn verdict(self) -> Verdict {
                match self { $(Self::$name => Verdict::$verdict,)+ }
            }

            /// The HTTP status that the caller gets: as much as a sender needs to know what to do next, and no more.
            #[must_use]
            pub fn status(self) -> StatusCode {
                match self { $(Self::$name => StatusCode::$status,)+ }
            }
        }
    };
}

reasons! {
    /// The target accepted it.
    Delivered => Accepted, OK;
    /// The destination did not accept it; the dead letter did.
    DeadLettered => Failed, ACCEPTED;
    /// No webhook has this path.
    UnknownPath => Refused, NOT_FOUND;
    /// The ID that the sender gave the delivery is invalid.
    WrongDeliveryId => Refused, BAD_REQUEST;
    /// Only POST is accepted.
    WrongMethod => Refused, METHOD_NOT_ALLOWED;
    /// The request contradicts itself, or is not HTTP.
    Malformed => Refused, BAD_REQUEST;
    /// The rate limit of the webhook or of the caller is exceeded.
    TooMany => Refused, TOO_MANY_REQUESTS;
    /// The body is longer than the webhook or its target allows.
    BodyTooLarge => Refused, PAYLOAD_TOO_LARGE;
    /// The request head is larger than the limit.
    HeadTooLarge => Refused, REQUEST_HEADER_FIELDS_TOO_LARGE;
    /// The body did not arrive in time.
    BodyTimeout => Refused, REQUEST_TIMEOUT;
    /// The caller closed the connection before the whole body had arrived.
    BodyIncomplete => Refused, BAD_REQUEST;
    /// The body is encoded, and the header that says how is not forwarded.
    Encoded => Refused, UNSUPPORTED_MEDIA_TYPE;
    /// The body goes into an object as text, and is not UTF-8.
    BodyNotText => Refused, UNSUPPORTED_MEDIA_TYPE;
    /// The source policy does not allow the caller.
    WrongSource => Refused, FORBIDDEN;
    /// See [`VerifyError::MissingHeader`].
    MissingHeader => Refused, FORBIDDEN;
    /// See [`VerifyError::MalformedHeader`].
    MalformedHeader => Refused, FORBIDDEN;
    /// See [`VerifyError::TooOld`].
    TooOld => Refused, FORBIDDEN;
    /// See [`VerifyError::TooNew`].
    TooNew => Refused, FORBIDDEN;
    /// See [`VerifyError::NoKey`]. It is no fault of the sender.
    NoKey => Refused, SERVICE_UNAVAILABLE;
    /// See [`VerifyError::WrongSignature`].
    WrongSignature => Refused, FORBIDDEN;
    /// See [`VerifyError::WrongDigest`].
    WrongDigest => Refused, FORBIDDEN;
    /// See [`VerifyError::NotCovered`].
    NotCovered => Refused, FORBIDDEN;
    /// See [`VerifyError::WrongAlgorithm`].
    WrongAlgorithm => Refused, FORBIDDEN;
    /// See [`VerifyError::WrongClaims`].
    WrongClaims => Refused, FORBIDDEN;
    /// The body has no idempotency key where the endpoint expects it, or more than one.
    NoIdempotencyKey => Refused, FORBIDDEN;
    /// It was delivered before.
    Replayed => Refused, CONFLICT;
    /// Another attempt has it, and whether the target accepts that one is not known yet.
    InProgress => Refused, SERVICE_UNAVAILABLE;
    /// The delivery history cannot say whether it is new.
    ReplayStoreDown => Refused, SERVICE_UNAVAILABLE;
    /// The namespace has used up its share of the delivery history.
    ReplayShareExhausted => Refused, SERVICE_UNAVAILABLE;
    /// Redis evicts keys, so a replay could be new again.
    ReplayStoreEvicts => Refused, SERVICE_UNAVAILABLE;
    /// The memory for request bodies, or the share of one address, is used up.
    NoRoom => Refused, SERVICE_UNAVAILABLE;
    /// Too many audit lines wait to be written, and the installation delivers nothing without one.
    AuditLogFull => Refused, SERVICE_UNAVAILABLE;
    /// There is nothing to sign the assertion with: no certificate yet, or no valid key that the target shares.
    NotReady => Refused, SERVICE_UNAVAILABLE;
    /// The target cannot be reached.
    TargetUnreachable => Failed, BAD_GATEWAY;
    /// The target did not answer in time.
    TargetTimeout => Failed, GATEWAY_TIMEOUT;
    /// The maximum number of deliveries is on the way to the target, or to targets of the namespace.
    TargetBusy => Failed, SERVICE_UNAVAILABLE;
    /// The target answered with an error.
    TargetRefused => Failed, BAD_GATEWAY;
    /// The edge, or the account with which it reaches the target, lacks a permission.
    TargetForbidden => Failed, BAD_GATEWAY;
    /// The certificate of the destination is not trusted.
    TargetUntrusted => Failed, BAD_GATEWAY;
    /// The destination has no address that the address policy allows.
    AddressRefused => Failed, BAD_GATEWAY;
}

impl From<VerifyError> for Reason {
    fn from(error: VerifyError) -> Self {
        match error {
            VerifyError::MissingHeader => Self::MissingHeader,
            VerifyError::MalformedHeader => Self::MalformedHeader,
            VerifyError::TooOld => Self::TooOld,
            VerifyError::TooNew => Self::TooNew,
            VerifyError::NoKey => Self::NoKey,
            VerifyError::WrongSignature => Self::WrongSignature,
            VerifyError::WrongDigest => Self::WrongDigest,
            VerifyError::NotCovered => Self::NotCovered,
            VerifyError::WrongAlgorithm => Self::WrongAlgorithm,
            VerifyError::WrongClaims => Self::WrongClaims,
        }
    }
}

impl From<RequestError> for Reason {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::Malformed => Self::Malformed,
            RequestError::HeadTooLarge => Self::HeadTooLarge,
            RequestError::BodyTooLarge => Self::BodyTooLarge,
            RequestError::BodyTimeout => Self::BodyTimeout,
            RequestError::BodyIncomplete => Self::BodyIncomplete,
            RequestError::QuotaExceeded => Self::NoRoom,
        }
    }
}

impl From<ReserveError> for Reason {
    fn from(error: ReserveError) -> Self {
        match error {
            ReserveError::Replayed => Self::Replayed,
            ReserveError::InProgress => Self::InProgress,
            ReserveError::Unavailable => Self::ReplayStoreDown,
            ReserveError::ShareExhausted => Self::ReplayShareExhausted,
            ReserveError::Evicts => Self::ReplayStoreEvicts,
        }
    }
}

impl Serialize for Reason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// The result of a delivery, and the reason for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// The result.
    pub result: Verdict,
    /// Reason.
    pub reason: Reason,
}

impl From<Reason> for Outcome {
    fn from(reason: Reason) -> Self {
        Self { result: reason.verdict(), reason }
    }
}
