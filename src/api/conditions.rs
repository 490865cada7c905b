//! Condition types and reasons. Every reason that a status can carry is a variant of [`Reason`].

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// A positive condition: `True` is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConditionType {
    /// The spec and everything it references are valid.
    Accepted,
    /// The signing authority of a trust domain can issue.
    AuthorityReady,
    /// Every selected namespace has the trust bundle.
    BundlePublished,
    /// The Secrets of an identity hold valid certificates.
    CredentialsIssued,
    /// The brokers authenticate the credentials of an identity.
    BrokerAccess,
    /// The broker answers the operator.
    Connected,
    /// The operator has the rights at the broker that its mode needs.
    Authorized,
    /// The broker holds what was applied.
    InSync,
    /// The grants of a policy are active at the broker.
    Applied,
    /// The keys of a webhook, or of an issuer of tokens, can be used.
    KeysReady,
    /// The identity providers whose users services may act for can be used.
    SubjectIssuersReady,
    /// Every replica of the edge serves the current route of the webhook.
    Programmed,
    /// No renewal that a rotation policy requested is outstanding.
    Rotated,
    /// All other conditions are True.
    Ready,
}

impl ConditionType {
    /// The name in `status.conditions[].type`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "Accepted",
            Self::AuthorityReady => "AuthorityReady",
            Self::BundlePublished => "BundlePublished",
            Self::CredentialsIssued => "CredentialsIssued",
            Self::BrokerAccess => "BrokerAccess",
            Self::Connected => "Connected",
            Self::Authorized => "Authorized",
            Self::InSync => "InSync",
            Self::Applied => "Applied",
            Self::KeysReady => "KeysReady",
            Self::SubjectIssuersReady => "SubjectIssuersReady",
            Self::Programmed => "Programmed",
            Self::Rotated => "Rotated",
            Self::Ready => "Ready",
        }
    }
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident,)+) => {
        /// Why a condition has its value; also the reason of events.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason { $($(#[$doc])* $name,)+ }

        impl Reason {
            /// Every reason that the operator can give.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// The name in `status.conditions[].reason`.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)+ }
            }
        }
    };
}

reasons! {
    /// The spec and everything it references are valid.
    Valid,
    /// All other conditions are True.
    Ready,
    /// The signing authority is in place.
    AuthorityActive,
    /// Every selected namespace has the bundle.
    Published,
    /// Some selected namespaces do not have the bundle yet.
    PublishFailed,
    /// All certificates are stored and valid.
    Issued,
    /// A certificate was renewed.
    Renewed,
    /// A certificate has to be renewed and is not yet.
    RenewalPending,
    /// A certificate could not be issued; the operator is retrying.
    IssueFailed,
    /// A derived name is longer than its standard allows.
    NameTooLong,
    /// A gateway vouches for the identity until the date given.
    GatewayOnly,
    /// The date until which a gateway could be trusted has passed.
    GatewayTrustExpired,
    /// A gateway may not be trusted for longer than a year after the object was created.
    GatewayTrustTooLong,
    /// The trust domain does not exist.
    TrustDomainNotFound,
    /// The trust domain takes no identities of this namespace.
    NamespaceNotAllowed,
    /// The trust domain has no authority that can sign.
    TrustDomainNotReady,
    /// The Secrets of the embedded authority do not exist.
    AuthorityLost,
    /// A Secret of the embedded authority was changed by somebody else.
    AuthorityAltered,
    /// The Secret with the authority does not exist.
    IssuerSecretNotFound,
    /// The Secret with the authority cannot be used.
    IssuerSecretInvalid,
    /// The broker connection does not exist.
    BrokerNotFound,
    /// The broker has not been reached yet.
    BrokerNotReady,
    /// The broker answers.
    BrokerConnected,
    /// The broker does not answer.
    BrokerUnreachable,
    /// The broker has no address that may be connected to.
    AddressRefused,
    /// The Secret with the operator's broker credential does not exist.
    AdminSecretNotFound,
    /// The Secret with the operator's broker credential cannot be used.
    AdminSecretInvalid,
    /// The broker refused the operator's credential or its rights.
    BrokerRefused,
    /// The operator has the rights on the broker that it needs.
    RightsVerified,
    /// The broker refused the login of a principal.
    LoginRefused,
    /// The broker authenticated the principal.
    LoginVerified,
    /// The broker holds everything that was applied.
    Synced,
    /// The broker lacks what was applied.
    Drifted,
    /// Rights of policies that do not exist any more wait for the word of the platform.
    AbsentPolicies,
    /// The platform has declared the broker gone for ever.
    Decommissioned,
    /// What was changed or lost was restored.
    DriftRepaired,
    /// Two objects declare different environments.
    EnvironmentMismatch,
    /// The namespace has no prefix of the topic.
    TopicNotAllowed,
    /// A policy names the same grant twice.
    DuplicateGrant,
    /// A consumer group is in use by another namespace.
    ConsumerGroupClaimed,
    /// The namespace of the consumer has no prefix of the consumer group.
    ConsumerGroupNotAllowed,
    /// An identity of another namespace does not accept grants of this one.
    GrantNotAccepted,
    /// An identity that the object refers to does not exist.
    IdentityNotFound,
    /// An identity that the object refers to cannot be used; the message says why.
    IdentityNotReady,
    /// An identity that a grant names does not list this broker.
    IdentityHasNoAccount,
    /// A DNS name is outside of what the namespace may claim.
    DnsNameNotAllowed,
    /// Another identity holds the DNS name already.
    DnsNameClaimed,
    /// Another object holds the same claim already.
    Conflict,
    /// An object with the required name exists and is not managed by Credence.
    NotOwned,
    /// Somebody else keeps changing a managed object.
    Contended,
    /// The grants are active.
    GrantsApplied,
    /// The broker refused a part of the grants.
    GrantsFailed,
    /// The policy or the broker only observes.
    ObserveOnly,
    /// The object is being deleted, and what it granted cannot be revoked yet.
    CleanupPending,
    /// The object is being deleted while others still use it.
    InUse,
    /// The rotation policy cannot be read as a whole.
    InvalidPolicy,
    /// The rotation policy is suspended.
    Suspended,
    /// The path of a webhook does not begin with its namespace.
    PathNotAllowed,
    /// Another webhook holds the path already.
    PathClaimed,
    /// The namespace has as many webhooks at the edge as it may have.
    TooManyWebhooks,
    /// The Service that a webhook delivers to does not exist.
    ServiceNotFound,
    /// A webhook may not deliver to this Service: its owner could point it anywhere.
    ServiceNotAllowed,
    /// The edge is not installed.
    EdgeNotInstalled,
    /// The token issuer is not installed.
    TokensNotInstalled,
    /// The spec contradicts itself in a way that the API server cannot see.
    InvalidSpec,
    /// It is more than one object or one namespace may have.
    LimitExceeded,
    /// The keys of a webhook, of an issuer of tokens, or of an identity provider, are stored.
    KeysStored,
    /// The keys of a webhook or of an identity provider cannot be used.
    KeysInvalid,
    /// Some keys of a webhook are not used; the others are.
    KeysNotUsed,
    /// The key set of an identity provider cannot be fetched, and none is cached.
    KeysNotFetched,
    /// Every replica of the edge serves the webhook.
    Programmed,
    /// A replica of the edge does not serve the current route of the webhook.
    NotProgrammed,
    /// The namespace of the webhook has used up its share of the delivery history.
    ReplayShareExhausted,
    /// The Redis with the delivery history evicts keys.
    ReplayStoreEvicts,
    /// An earlier condition is not met.
    Blocked,
    /// The object could not be brought to what its spec says; the message says why, and the operator is retrying.
    ReconcileFailed,
}

impl Reason {
    /// Whether a broker or the API server refused what was tried. The next attempt waits for its time, because one that anybody
    /// could bring about would cost them as much and achieve as little.
    #[must_use]
    pub fn is_refused_attempt(self) -> bool {
        matches!(
            self,
            Self::IssueFailed | Self::NotOwned | Self::LoginRefused | Self::GrantsFailed | Self::CleanupPending
        )
    }
}

/// One condition as decided; time and transition are added by [`Conditions::merge`].
#[derive(Clone, Debug, PartialEq, Eq)]
struct Decided {
    kind: ConditionType,
    met: bool,
    reason: Reason,
    message: String,
}

/// The conditions of one object, in the order in which a reader should meet them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conditions(Vec<Decided>);

impl Conditions {
    /// No conditions yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a condition that is met.
    pub fn met(&mut self, kind: ConditionType, reason: Reason, message: impl Into<String>) {
        self.set(kind, true, reason, message);
    }

    /// Adds a condition that is not met.
    pub fn unmet(&mut self, kind: ConditionType, reason: Reason, message: impl Into<String>) {
        self.set(kind, false, reason, message);
    }

    fn set(&mut self, kind: ConditionType, met: bool, reason: Reason, message: impl Into<String>) {
        let decided = Decided { kind, met, reason, message: message.into() };
        match self.0.iter_mut().find(|known| known.kind == kind) {
            Some(known) => *known = decided,
            None => self.0.push(decided),
        }
    }

    /// Closes the chain: `Ready` is met when all others are, and otherwise repeats the first that is not.
    pub fn conclude(&mut self, message: impl Into<String>) {
        match self.0.iter().find(|decided| !decided.met).cloned() {
            None => self.met(ConditionType::Ready, Reason::Ready, message),
            Some(first) => self.unmet(ConditionType::Ready, first.reason, first.message),
        }
    }

    /// Whether any condition so far is not met.
    #[must_use]
    pub fn is_unmet(&self) -> bool {
        self.0.iter().any(|decided| !decided.met)
    }

    /// The reasons of the conditions that are not met.
    pub fn unmet_reasons(&self) -> impl Iterator<Item = Reason> {
        self.0.iter().filter(|decided| !decided.met).map(|decided| decided.reason)
    }

    /// Whether `Ready` is met.
    #[must_use]
    pub fn ready(&self) -> bool {
        self.0.iter().any(|decided| decided.kind == ConditionType::Ready && decided.met)
    }

    /// The reason of `Ready`.
    #[must_use]
    pub fn verdict(&self) -> Option<(Reason, &str)> {
        let ready = self.0.iter().find(|decided| decided.kind == ConditionType::Ready)?;
        Some((ready.reason, &ready.message))
    }

    /// The conditions as stored: `lastTransitionTime` moves only when the value changes.
    #[must_use]
    pub fn merge(&self, previous: &[Condition], generation: Option<i64>, now: jiff::Timestamp) -> Vec<Condition> {
        self.0
            .iter()
            .map(|decided| {
                let status = if decided.met { "True" } else { "False" };
                let unchanged = previous.iter().find(|old| old.type_ == decided.kind.as_str() && old.status == status);
                Condition {
                    type_: decided.kind.as_str().to_owned(),
                    status: status.to_owned(),
                    reason: decided.reason.as_str().to_owned(),
                    message: decided.message.clone(),
                    observed_generation: generation,
                    last_transition_time: unchanged
                        .map_or_else(|| Time(whole_seconds(now)), |old| old.last_transition_time.clone()),
                }
            })
            .collect()
    }
}

/// Kubernetes stores times in whole seconds (RFC 3339, `metav1.Time`).
#[must_use]
pub fn whole_seconds(time: jiff::Timestamp) -> jiff::Timestamp {
    jiff::Timestamp::from_second(time.as_second()).unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_repeats_the_first_condition_that_is_not_met() {
        let mut conditions = Conditions::new();
        conditions.met(ConditionType::Accepted, Reason::Valid, "fine");
        conditions.unmet(ConditionType::Connected, Reason::BrokerUnreachable, "no route");
        conditions.unmet(ConditionType::InSync, Reason::Blocked, "waits");
        conditions.conclude("all is well");
        assert_eq!(conditions.verdict(), Some((Reason::BrokerUnreachable, "no route")));
        assert!(!conditions.ready());
    }

    #[test]
    fn the_transition_time_stays_while_the_value_stays() {
        let at = |second| jiff::Timestamp::from_second(second).unwrap();
        let mut conditions = Conditions::new();
        conditions.met(ConditionType::Accepted, Reason::Valid, "one");
        let first = conditions.merge(&[], Some(1), at(100));
        conditions.met(ConditionType::Accepted, Reason::Valid, "two");
        let second = conditions.merge(&first, Some(2), at(200));
        assert_eq!(second[0].last_transition_time.0, at(100));
        assert_eq!(second[0].message, "two");
        conditions.unmet(ConditionType::Accepted, Reason::Conflict, "three");
        assert_eq!(conditions.merge(&second, Some(2), at(300))[0].last_transition_time.0, at(300));
    }
}
