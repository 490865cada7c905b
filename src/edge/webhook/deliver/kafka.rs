//! A Kafka topic as a target: each delivery is one record, written with the account of a `ServiceIdentity`.

use bytes::Bytes;
use http::{HeaderMap, HeaderName};
use jiff::Timestamp;
use kafka_protocol::ResponseError;
use kafka_protocol::records::Record;

use super::delivery::Delivery;
use super::retry::{Answer, LogThrottle, RetryPolicy};
use crate::api::{self, KafkaTarget};
use crate::brokers::BrokerFailure;
use crate::brokers::kafka::{ClientAccess, ProduceError, Producer, error_name, record};
use crate::contract::route::{AccountDocument, WebhookReference};
use crate::domain::address_policy::AddressPolicy;
use crate::domain::invalid_field::InvalidField;
use crate::edge::webhook::outcome::Reason;

/// A topic, with its producer.
pub struct Kafka {
    /// The topic, as `<topic>.<broker>`: the audience of assertions.
    pub audience: String,
    /// How often it is tried.
    pub retry: RetryPolicy,
    producer: Producer,
    endpoint: WebhookReference,
    target: KafkaTarget,
    principal: String,
    log_throttle: LogThrottle,
}

impl Kafka {
    /// Compiles the target of an endpoint.
    ///
    /// # Errors
    /// Names the field that is invalid, or says what is wrong with the account.
    pub fn compile(
        endpoint: &WebhookReference,
        target: &KafkaTarget,
        account: Option<&AccountDocument>,
        brokers: &AddressPolicy,
    ) -> Result<Self, InvalidField> {
        let KafkaTarget { broker, service_identity, topic, attempts } = target;
        let retry = RetryPolicy::compile("kafka", attempts)?;
        let account = account.filter(|account| !account.bootstrap_servers.is_empty()).ok_or_else(|| {
            let message = format!(
                "there is no credential of the ServiceIdentity {service_identity} for the broker \
                 {broker}; name the broker in its spec.brokers, and see its condition BrokerAccess"
            );
            InvalidField::new("kafka", message)
        })?;
        let AccountDocument { bootstrap_servers, principal, chain, key, ca } = account;
        let access = ClientAccess { bootstrap_servers: bootstrap_servers.clone(), ca_pem: ca.clone() };
        let producer = Producer::new(&access, chain, key, topic, brokers, retry.timeout).map_err(|why| {
            let message = format!(
                "the Secret {service_identity}.{broker} cannot be used: {why}; delete it, and it is made \
                 anew"
            );
            InvalidField::new("kafka", message)
        })?;
        Ok(Self {
            audience: format!("{topic}.{broker}"),
            retry,
            producer,
            endpoint: endpoint.clone(),
            target: target.clone(),
            principal: principal.clone(),
            log_throttle: LogThrottle::default(),
        })
    }

    /// Makes one attempt.
    pub async fn attempt(&self, delivery: &Delivery) -> Answer {
        match self.producer.produce(to_record(delivery, Timestamp::now())).await {
            Ok(()) => Answer::permanent(Reason::Delivered, None),
            Err(error) => {
                if self.log_throttle.is_due() {
                    self.log_failure(&error);
                }
                answer(&error)
            }
        }
    }

    /// Logs why a record was not written, with the next step. The broker's own text is left out: it may quote the record.
    fn log_failure(&self, error: &ProduceError) {
        let KafkaTarget { broker, service_identity, topic, .. } = &self.target;
        let endpoint = format!("{}/{}", self.endpoint.namespace, self.endpoint.name);
        match error {
            ProduceError::Failed(BrokerFailure { reason: api::Reason::LoginRefused, message }) => tracing::warn!(
                endpoint,
                broker,
                service_identity,
                error = message,
                "authentication to the broker failed; see the condition BrokerAccess of the ServiceIdentity"
            ),
            ProduceError::Failed(BrokerFailure { message, .. }) => {
                tracing::warn!(endpoint, broker, error = message, "failed to reach the broker");
            }
            ProduceError::Full => tracing::warn!(
                endpoint,
                broker,
                "producer queue is full; check broker latency, or lower limits.perSecond"
            ),
            ProduceError::Refused(ResponseError::TopicAuthorizationFailed) => tracing::warn!(
                endpoint,
                broker,
                topic,
                service_identity,
                principal = self.principal,
                "not authorized to write to the topic; grant the ServiceIdentity the action Publish in a TopicPolicy"
            ),
            ProduceError::Refused(ResponseError::UnknownTopicOrPartition) => tracing::warn!(
                endpoint,
                broker,
                topic,
                "topic does not exist, and the edge creates none; create it, or correct the target"
            ),
            ProduceError::Refused(ResponseError::MessageTooLarge | ResponseError::RecordListTooLarge) => {
                tracing::warn!(
                    endpoint,
                    broker,
                    topic,
                    "delivery is larger than the topic allows; raise its max.message.bytes, or lower limits.body"
                );
            }
            ProduceError::Refused(error) => {
                tracing::warn!(
                    endpoint,
                    broker,
                    topic,
                    error = error_name(*error),
                    "the broker did not accept a record"
                );
            }
        }
    }
}

/// The delivery as a record. Its key is the ID of the delivery, so that a retry goes to the same partition.
fn to_record(delivery: &Delivery, now: Timestamp) -> Record {
    let own = [
        ("idempotency-key", &*delivery.id),
        ("credence-assertion", &delivery.assertion),
        ("credence-endpoint", &delivery.endpoint),
    ];
    let own = own.into_iter().map(|(name, value)| (name.to_owned(), Bytes::copy_from_slice(value.as_bytes())));
    let forwarded = delivery.headers.keys().map(|name| (name.to_string(), joined(&delivery.headers, name)));
    record(Bytes::from(delivery.id.clone()), forwarded.chain(own), delivery.body.clone(), now)
}

/// A repeated header means the same as one with all its values (RFC 9110 section 5.3).
fn joined(headers: &HeaderMap, name: &HeaderName) -> Bytes {
    let values: Vec<&[u8]> = headers.get_all(name).iter().map(http::HeaderValue::as_bytes).collect();
    values.join(&b", "[..]).into()
}

/// What the error means for the delivery.
fn answer(error: &ProduceError) -> Answer {
    use ResponseError::{
        ClusterAuthorizationFailed, FencedLeaderEpoch, KafkaStorageError, LeaderNotAvailable, MessageTooLarge,
        NetworkException, NotLeaderOrFollower, RecordListTooLarge, ReplicaNotAvailable, RequestTimedOut,
        TopicAuthorizationFailed, UnknownLeaderEpoch,
    };

    match error {
        ProduceError::Failed(failure) if failure.reason == api::Reason::LoginRefused => {
            Answer::permanent(Reason::TargetForbidden, None)
        }
        ProduceError::Failed(failure) if failure.reason == api::Reason::AddressRefused => {
            Answer::permanent(Reason::AddressRefused, None)
        }
        ProduceError::Failed(_) => Answer::retryable(Reason::TargetUnreachable),
        ProduceError::Full => Answer::retryable(Reason::TargetBusy),
        ProduceError::Refused(error) => match error {
            TopicAuthorizationFailed | ClusterAuthorizationFailed => Answer::permanent(Reason::TargetForbidden, None),
            MessageTooLarge | RecordListTooLarge => Answer::permanent(Reason::BodyTooLarge, None),
            RequestTimedOut => Answer::retryable(Reason::TargetTimeout),
            NotLeaderOrFollower | LeaderNotAvailable | ReplicaNotAvailable | FencedLeaderEpoch | UnknownLeaderEpoch
            | KafkaStorageError | NetworkException => Answer::retryable(Reason::TargetUnreachable),
            other => Answer { is_retryable: other.is_retriable(), ..Answer::permanent(Reason::TargetRefused, None) },
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
        for (error, why, is_retryable) in [
            (ResponseError::TopicAuthorizationFailed, Reason::TargetForbidden, false),
            (ResponseError::MessageTooLarge, Reason::BodyTooLarge, false),
            (ResponseError::UnknownTopicOrPartition, Reason::TargetRefused, true),
            (ResponseError::InvalidTopicException, Reason::TargetRefused, false),
            (ResponseError::InvalidRecord, Reason::TargetRefused, false),
            (ResponseError::PolicyViolation, Reason::TargetRefused, false),
            (ResponseError::NotEnoughReplicas, Reason::TargetRefused, true),
            (ResponseError::NotLeaderOrFollower, Reason::TargetUnreachable, true),
            (ResponseError::RequestTimedOut, Reason::TargetTimeout, true),
        ] {
            let answer = answer(&ProduceError::Refused(error));
            assert_eq!((answer.reason, answer.is_retryable, answer.status), (why, is_retryable, None), "{error:?}");
        }
        for (reason, why, is_retryable) in [
            (api::Reason::LoginRefused, Reason::TargetForbidden, false),
            (api::Reason::AddressRefused, Reason::AddressRefused, false),
            (api::Reason::BrokerUnreachable, Reason::TargetUnreachable, true),
            (api::Reason::BrokerRefused, Reason::TargetUnreachable, true),
        ] {
            let answer = answer(&ProduceError::Failed(BrokerFailure { reason, message: String::new() }));
            assert_eq!((answer.reason, answer.is_retryable), (why, is_retryable), "{reason:?}");
        }
        let full = answer(&ProduceError::Full);
        assert_eq!((full.reason, full.is_retryable), (Reason::TargetBusy, true));
    }

    #[test]
    fn a_record_has_the_body_as_it_came_and_says_which_delivery_it_is() {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        headers.append(ACCEPT, HeaderValue::from_static("a"));
        headers.append(ACCEPT, HeaderValue::from_bytes(b"\xff").unwrap());
        let delivery = Delivery {
            headers,
            identity: [0; 32],
            endpoint: "shop/payments".into(),
            id: "msg_1".into(),
            assertion: "a.b.c".into(),
            body_sha256: [0; 32],
            body: Bytes::from_static(b"\0\xff"),
        };
        let record = to_record(&delivery, Timestamp::from_millisecond(7).unwrap());
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
        let brokers = AddressPolicy::trusted(None);
        let refused = |account| Kafka::compile(&endpoint, &target, account, &brokers).err().unwrap().to_string();
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
