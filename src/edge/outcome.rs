//! What became of an attempt, and what its caller is told.

use http::StatusCode;
use serde::{Serialize, Serializer};

use super::replay::NotClaimed;
use super::verify::Refusal;

/// What became of an attempt, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Verdict {
    /// The target took it.
    Accepted,
    /// It did not get past the edge.
    Refused,
    /// It was right, and the target did not take it: the sender may try again.
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
        /// Why. Bounded, so that it can be a label of a metric.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Why { $($(#[$doc])* $name,)+ }

        impl Why {
            /// Every reason there is.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// Its name in audit lines and metrics.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)+ }
            }

            /// What it means for the attempt.
            #[must_use]
            pub fn verdict(self) -> Verdict {
                match self { $(Self::$name => Verdict::$verdict,)+ }
            }

            /// What the caller is told: what a sender has to know to do the right thing next, and nothing else.
            #[must_use]
            pub fn status(self) -> StatusCode {
                match self { $(Self::$name => StatusCode::$status,)+ }
            }
        }
    };
}

reasons! {
    /// Verified, new, and taken by the target.
    Delivered => Accepted, OK;
    /// The destination did not take it; the dead letter did.
    DeadLettered => Failed, ACCEPTED;
    /// No endpoint has this path.
    UnknownPath => Refused, NOT_FOUND;
    /// The ID that the sender gave the delivery cannot be one.
    WrongDeliveryId => Refused, BAD_REQUEST;
    /// Only POST is accepted.
    WrongMethod => Refused, METHOD_NOT_ALLOWED;
    /// The request contradicts itself, or is not HTTP.
    Malformed => Refused, BAD_REQUEST;
    /// The endpoint or the caller has used up its rate.
    TooMany => Refused, TOO_MANY_REQUESTS;
    /// The body is longer than the endpoint allows, or than its target takes.
    BodyTooLarge => Refused, PAYLOAD_TOO_LARGE;
    /// The head is larger than any that is read.
    HeadTooLarge => Refused, REQUEST_HEADER_FIELDS_TOO_LARGE;
    /// The body did not come in time.
    BodyTimeout => Refused, REQUEST_TIMEOUT;
    /// The caller went away before the whole body had come.
    BodyIncomplete => Refused, BAD_REQUEST;
    /// The body is encoded, and the target would not be told how.
    Encoded => Refused, UNSUPPORTED_MEDIA_TYPE;
    /// The body is to be a text in an object, and is not UTF-8.
    BodyNotText => Refused, UNSUPPORTED_MEDIA_TYPE;
    /// The caller is not who the endpoint expects, or its token is of somebody else.
    WrongSource => Refused, FORBIDDEN;
    /// See [`Refusal::MissingHeader`].
    MissingHeader => Refused, FORBIDDEN;
    /// See [`Refusal::MalformedHeader`].
    MalformedHeader => Refused, FORBIDDEN;
    /// See [`Refusal::TooOld`].
    TooOld => Refused, FORBIDDEN;
    /// See [`Refusal::TooNew`].
    TooNew => Refused, FORBIDDEN;
    /// See [`Refusal::NoKey`].
    NoKey => Refused, FORBIDDEN;
    /// See [`Refusal::WrongSignature`].
    WrongSignature => Refused, FORBIDDEN;
    /// See [`Refusal::WrongDigest`].
    WrongDigest => Refused, FORBIDDEN;
    /// See [`Refusal::NotCovered`].
    NotCovered => Refused, FORBIDDEN;
    /// See [`Refusal::WrongAlgorithm`].
    WrongAlgorithm => Refused, FORBIDDEN;
    /// See [`Refusal::WrongClaims`].
    WrongClaims => Refused, FORBIDDEN;
    /// The idempotency key is not where the endpoint says.
    NoIdempotencyKey => Refused, FORBIDDEN;
    /// It was delivered before, or is being delivered.
    Replayed => Refused, CONFLICT;
    /// The replay memory cannot say whether it is new.
    ReplayStoreDown => Refused, SERVICE_UNAVAILABLE;
    /// The edge holds as many bodies as it has memory for, or as one address may have.
    NoRoom => Refused, SERVICE_UNAVAILABLE;
    /// The edge has no certificate to sign assertions with.
    NotReady => Refused, SERVICE_UNAVAILABLE;
    /// The target cannot be reached.
    TargetUnreachable => Failed, BAD_GATEWAY;
    /// The target did not answer in time.
    TargetTimeout => Failed, GATEWAY_TIMEOUT;
    /// As many deliveries as may be are on their way to the target.
    TargetBusy => Failed, SERVICE_UNAVAILABLE;
    /// The target answered, and did not take it.
    TargetRefused => Failed, BAD_GATEWAY;
    /// The edge, or the account that the target is reached with, lacks a right.
    TargetForbidden => Failed, BAD_GATEWAY;
    /// The certificate of the destination is not one that it may have.
    TargetUntrusted => Failed, BAD_GATEWAY;
    /// The destination has no address that may be connected to.
    AddressRefused => Failed, BAD_GATEWAY;
}

impl From<Refusal> for Why {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::MissingHeader => Self::MissingHeader,
            Refusal::MalformedHeader => Self::MalformedHeader,
            Refusal::TooOld => Self::TooOld,
            Refusal::TooNew => Self::TooNew,
            Refusal::NoKey => Self::NoKey,
            Refusal::WrongSignature => Self::WrongSignature,
            Refusal::WrongDigest => Self::WrongDigest,
            Refusal::NotCovered => Self::NotCovered,
            Refusal::WrongAlgorithm => Self::WrongAlgorithm,
            Refusal::WrongClaims => Self::WrongClaims,
        }
    }
}

impl From<NotClaimed> for Why {
    fn from(why: NotClaimed) -> Self {
        match why {
            NotClaimed::Replayed => Self::Replayed,
            NotClaimed::Unavailable => Self::ReplayStoreDown,
        }
    }
}

impl Serialize for Why {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// What became of an attempt, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// In a word.
    pub result: Verdict,
    /// Why.
    pub reason: Why,
}

impl From<Why> for Outcome {
    fn from(reason: Why) -> Self {
        Self { result: reason.verdict(), reason }
    }
}
