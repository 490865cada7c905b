//! A topic of Kafka as a target: a record for each delivery, written with the account of a `ServiceIdentity`.

use bytes::Bytes;
use http::{HeaderMap, HeaderName};
use jiff::Timestamp;
use kafka_protocol::ResponseError;
use kafka_protocol::records::Record;

use super::super::outcome::Why;
use super::{Answer, Explained, Parcel, Patience};
use crate::api::{KafkaTarget, Reason};
use crate::brokers::BrokerFailure;
use crate::brokers::kafka::{ClientAccess, NotProduced, Producer, record};
use crate::contract::route::{AccountDocument, WebhookReference};

/// A topic, as deliveries reach it.
pub struct Kafka {
    /// The topic, as `<topic>.<broker>`: the audience of assertions.
    pub audience: String,
    /// How it is tried.
    pub patience: Patience,
    producer: Producer,
    endpoint: WebhookReference,
    target: KafkaTarget,
    principal: String,
    explained: Explained,
}

impl Kafka {
    /// Compiles the target of an endpoint.
    ///
    /// # Errors
    /// Says what is wrong, with the account too.
    pub fn compile(
        endpoint: &WebhookReference,
        target: &KafkaTarget,
        account: Option<&AccountDocument>,
    ) -> Result<Self, String> {
        let KafkaTarget { broker, service_identity, topic, attempts } = target;
        let patience = Patience::compile("kafka", attempts)?;
        let account = account.filter(|account| !account.bootstrap_servers.is_empty()).ok_or_else(|| {
            format!(
                "kafka: there is no credential of the ServiceIdentity {service_identity} for the broker \
                 {broker}; name the broker in its spec.brokers, and see its condition BrokerAccess"
            )
        })?;
        let AccountDocument { bootstrap_servers, principal, chain, key, ca } = account;
        let access = ClientAccess { bootstrap_servers: bootstrap_servers.clone(), ca_pem: ca.clone() };
        let producer = Producer::new(&access, chain, key, topic, patience.timeout).map_err(|why| {
            format!(
                "kafka: the Secret {service_identity}.{broker} cannot be used: {why}; delete it, and it is made \
                 anew"
            )
        })?;
        Ok(Self {
            audience: format!("{topic}.{broker}"),
            patience,
            producer,
            endpoint: endpoint.clone(),
            target: target.clone(),
            principal: principal.clone(),
            explained: Explained::default(),
        })
    }

    /// Tries once.
    pub(super) async fn attempt(&self, parcel: &Parcel) -> Answer {
        match self.producer.produce(to_record(parcel, Timestamp::now())).await {
            Ok(()) => Answer::last(Why::Delivered, None),
            Err(why) => {
                if self.explained.is_due() {
                    self.explain(&why);
                }
                answer(&why)
            }
        }
    }

    /// Says what to do about it. What a broker says of a record may quote it, so only its error is named.
    fn explain(&self, why: &NotProduced) {
        let KafkaTarget { broker, service_identity: identity, topic, .. } = &self.target;
        let (namespace, principal) = (&self.endpoint.namespace, &self.principal);
        let endpoint = format!("{namespace}/{}", self.endpoint.name);
        match why {
            NotProduced::Failed(BrokerFailure { reason: Reason::LoginRefused, message }) => tracing::warn!(
                endpoint,
                why = message,
                "the broker {broker} does not let the ServiceIdentity {identity} in; see its condition BrokerAccess"
            ),
            NotProduced::Failed(BrokerFailure { message, .. }) => {
                tracing::warn!(endpoint, why = message, "the broker {broker} cannot be used");
            }
            NotProduced::Full => tracing::warn!(
                endpoint,
                "more deliveries wait for the broker {broker} than may; see why it is slow, or lower limits.perSecond"
            ),
            NotProduced::Refused(ResponseError::TopicAuthorizationFailed) => tracing::warn!(
                endpoint,
                principal,
                "the ServiceIdentity {identity} may not write to the topic {topic} of the broker {broker}; give it the \
                 action Publish in a TopicPolicy of the namespace {namespace}"
            ),
            NotProduced::Refused(ResponseError::UnknownTopicOrPartition) => tracing::warn!(
                endpoint,
                "the broker {broker} has no topic {topic}, and the edge creates none; create it, or correct \
                 the topic of the target"
            ),
            NotProduced::Refused(ResponseError::MessageTooLarge | ResponseError::RecordListTooLarge) => tracing::warn!(
                endpoint,
                "a delivery is larger than the topic {topic} of the broker {broker} takes; raise its max.message.bytes, \
                 or lower limits.body"
            ),
            NotProduced::Refused(error) => {
                tracing::warn!(endpoint, ?error, "the broker {broker} did not take a record for the topic {topic}");
            }
        }
    }
}

/// The delivery as a record. Its key is the same whenever it comes again, so that it gets into the same partition.
fn to_record(parcel: &Parcel, now: Timestamp) -> Record {
    let own = [
        ("idempotency-key", &parcel.delivery),
        ("credence-assertion", &parcel.assertion),
        ("credence-endpoint", &parcel.endpoint),
    ];
    let own = own.into_iter().map(|(name, value)| (name.to_owned(), Bytes::from(value.clone())));
    let forwarded = parcel.headers.keys().map(|name| (name.to_string(), joined(&parcel.headers, name)));
    record(Bytes::from(parcel.delivery.clone()), forwarded.chain(own), parcel.body.clone(), now)
}

/// A header that comes more than once means the same as one with all its values (RFC 9110 section 5.3).
fn joined(headers: &HeaderMap, name: &HeaderName) -> Bytes {
    let values: Vec<&[u8]> = headers.get_all(name).iter().map(http::HeaderValue::as_bytes).collect();
    values.join(&b", "[..]).into()
}

/// What it means for the delivery.
fn answer(why: &NotProduced) -> Answer {
    use ResponseError::{
        ClusterAuthorizationFailed, FencedLeaderEpoch, KafkaStorageError, LeaderNotAvailable, MessageTooLarge,
        NetworkException, NotLeaderOrFollower, RecordListTooLarge, ReplicaNotAvailable, RequestTimedOut,
        TopicAuthorizationFailed, UnknownLeaderEpoch,
    };
    let passing = |why| Answer { why, status: None, is_passing: true };
    match why {
        NotProduced::Failed(failure) if failure.reason == Reason::LoginRefused => {
            Answer::last(Why::TargetForbidden, None)
        }
        NotProduced::Failed(_) => passing(Why::TargetUnreachable),
        NotProduced::Full => passing(Why::TargetBusy),
        NotProduced::Refused(error) => match error {
            TopicAuthorizationFailed | ClusterAuthorizationFailed => Answer::last(Why::TargetForbidden, None),
            MessageTooLarge | RecordListTooLarge => Answer::last(Why::BodyTooLarge, None),
            RequestTimedOut => passing(Why::TargetTimeout),
            NotLeaderOrFollower | LeaderNotAvailable | ReplicaNotAvailable | FencedLeaderEpoch | UnknownLeaderEpoch
            | KafkaStorageError | NetworkException => passing(Why::TargetUnreachable),
            other => Answer { why: Why::TargetRefused, status: None, is_passing: other.is_retriable() },
        },
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::header::{ACCEPT, CONTENT_TYPE};
    use serde_json::json;

    use super::*;
    use crate::domain::secret::SecretText;

    #[test]
    fn what_may_pass_is_tried_again_and_nothing_else() {
        for (error, why, is_passing) in [
            (ResponseError::TopicAuthorizationFailed, Why::TargetForbidden, false),
            (ResponseError::MessageTooLarge, Why::BodyTooLarge, false),
            (ResponseError::UnknownTopicOrPartition, Why::TargetRefused, true),
            (ResponseError::InvalidTopicException, Why::TargetRefused, false),
            (ResponseError::InvalidRecord, Why::TargetRefused, false),
            (ResponseError::PolicyViolation, Why::TargetRefused, false),
            (ResponseError::NotEnoughReplicas, Why::TargetRefused, true),
            (ResponseError::NotLeaderOrFollower, Why::TargetUnreachable, true),
            (ResponseError::RequestTimedOut, Why::TargetTimeout, true),
        ] {
            let answer = answer(&NotProduced::Refused(error));
            assert_eq!((answer.why, answer.is_passing, answer.status), (why, is_passing, None), "{error:?}");
        }
        for (reason, why, is_passing) in [
            (Reason::LoginRefused, Why::TargetForbidden, false),
            (Reason::BrokerUnreachable, Why::TargetUnreachable, true),
            (Reason::BrokerRefused, Why::TargetUnreachable, true),
        ] {
            let answer = answer(&NotProduced::Failed(BrokerFailure { reason, message: String::new() }));
            assert_eq!((answer.why, answer.is_passing), (why, is_passing), "{reason:?}");
        }
        let full = answer(&NotProduced::Full);
        assert_eq!((full.why, full.is_passing), (Why::TargetBusy, true));
    }

    #[test]
    fn a_record_has_the_body_as_it_came_and_says_which_delivery_it_is() {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        headers.append(ACCEPT, HeaderValue::from_static("a"));
        headers.append(ACCEPT, HeaderValue::from_bytes(b"\xff").unwrap());
        let parcel = Parcel {
            headers,
            identity: [0; 32],
            endpoint: "shop/payments".into(),
            delivery: "msg_1".into(),
            assertion: "a.b.c".into(),
            body_sha256: [0; 32],
            body: Bytes::from_static(b"\0\xff"),
        };
        let record = to_record(&parcel, Timestamp::from_millisecond(7).unwrap());
        let (key, value) = (record.key.unwrap(), record.value.unwrap());
        assert_eq!((key, value, record.timestamp), (Bytes::from("msg_1"), Bytes::from_static(b"\0\xff"), 7));
        let found: Vec<(&str, &[u8])> =
            record.headers.iter().map(|(name, value)| (name.as_str(), value.as_deref().unwrap_or_default())).collect();
        let expected: [(&str, &[u8]); 5] = [
            ("content-type", b"text/plain"),
            ("accept", b"a, \xff"),
            ("idempotency-key", b"msg_1"),
            ("credence-assertion", b"a.b.c"),
            ("credence-endpoint", b"shop/payments"),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn an_account_that_is_missing_or_broken_is_named_with_what_to_do() {
        let endpoint =
            WebhookReference { namespace: "shop".into(), name: "payments".into(), uid: "1".into(), generation: 1 };
        let target = json!({"broker": "kafka", "serviceIdentity": "hooks", "topic": "payments"});
        let target: KafkaTarget = serde_json::from_value(target).unwrap();
        let refused = |account| Kafka::compile(&endpoint, &target, account).err().unwrap();
        let why = refused(None);
        assert!(why.contains("ServiceIdentity hooks") && why.contains("broker kafka") && why.contains("spec.brokers"));
        let account = AccountDocument {
            bootstrap_servers: vec!["kafka:9092".into()],
            principal: "User:CN=hooks".into(),
            chain: "nothing".into(),
            key: SecretText::new("hidden".into()),
            ca: "nothing".into(),
        };
        let why = refused(Some(&account));
        assert!(why.contains("hooks.kafka") && why.contains("ca.crt holds no certificate"), "{why}");
        assert!(!why.contains("hidden"), "{why}");
    }
}
