//! Why a credential cannot be used, and the names of Kafka's errors and requests.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::ApiKey;
use thiserror::Error;

use crate::domain::defect;
use crate::issuers::IssuerError;

/// Why a credential cannot be used: which entry of its Secret is wrong, and how. Nothing of an entry is repeated.
#[derive(Debug, Error)]
pub enum CredentialError {
    /// An entry is not text.
    #[error("{entry} is not PEM text")]
    NotText {
        /// The entry of the Secret.
        entry: &'static str,
    },
    /// An entry holds no certificate.
    #[error("{entry} holds no certificate in PEM")]
    NoCertificate {
        /// The entry of the Secret.
        entry: &'static str,
    },
    /// The private key cannot be read.
    #[error("tls.key holds no private key in PEM")]
    NoKey,
    /// A certificate in tls.crt cannot be read.
    #[error(transparent)]
    Certificate(#[from] IssuerError),
    /// A certificate in ca.crt cannot be a root.
    #[error("ca.crt holds a certificate that cannot be a root: {}", defect::of_tls(.0))]
    Root(rustls::Error),
    /// The key does not belong to the certificate.
    #[error("tls.crt and tls.key do not fit together: {}", defect::of_tls(.0))]
    KeyMismatch(rustls::Error),
    /// TLS cannot be set up at all.
    #[error("cannot set up TLS: {}", defect::of_tls(.0))]
    Tls(rustls::Error),
}

/// The name of a request as Kafka's documentation has it, for metrics and messages. The operator and the edge send these
/// requests and no others.
pub(super) const fn request_name(key: ApiKey) -> &'static str {
    match key {
        ApiKey::Produce => "Produce",
        ApiKey::Metadata => "Metadata",
        ApiKey::ApiVersions => "ApiVersions",
        ApiKey::DescribeAcls => "DescribeAcls",
        ApiKey::CreateAcls => "CreateAcls",
        ApiKey::DeleteAcls => "DeleteAcls",
        ApiKey::DescribeCluster => "DescribeCluster",
        _ => "Other",
    }
}

/// The name of an error that Kafka may answer our requests with; any other by its number.
#[must_use]
pub fn error_name(error: ResponseError) -> String {
    let name = match error {
        ResponseError::UnknownServerError => "UnknownServerError",
        ResponseError::CorruptMessage => "CorruptMessage",
        ResponseError::UnknownTopicOrPartition => "UnknownTopicOrPartition",
        ResponseError::LeaderNotAvailable => "LeaderNotAvailable",
        ResponseError::NotLeaderOrFollower => "NotLeaderOrFollower",
        ResponseError::RequestTimedOut => "RequestTimedOut",
        ResponseError::BrokerNotAvailable => "BrokerNotAvailable",
        ResponseError::ReplicaNotAvailable => "ReplicaNotAvailable",
        ResponseError::MessageTooLarge => "MessageTooLarge",
        ResponseError::NetworkException => "NetworkException",
        ResponseError::InvalidTopicException => "InvalidTopicException",
        ResponseError::RecordListTooLarge => "RecordListTooLarge",
        ResponseError::NotEnoughReplicas => "NotEnoughReplicas",
        ResponseError::NotEnoughReplicasAfterAppend => "NotEnoughReplicasAfterAppend",
        ResponseError::InvalidRequiredAcks => "InvalidRequiredAcks",
        ResponseError::TopicAuthorizationFailed => "TopicAuthorizationFailed",
        ResponseError::ClusterAuthorizationFailed => "ClusterAuthorizationFailed",
        ResponseError::InvalidTimestamp => "InvalidTimestamp",
        ResponseError::UnsupportedVersion => "UnsupportedVersion",
        ResponseError::NotController => "NotController",
        ResponseError::InvalidRequest => "InvalidRequest",
        ResponseError::UnsupportedForMessageFormat => "UnsupportedForMessageFormat",
        ResponseError::PolicyViolation => "PolicyViolation",
        ResponseError::SecurityDisabled => "SecurityDisabled",
        ResponseError::KafkaStorageError => "KafkaStorageError",
        ResponseError::UnsupportedCompressionType => "UnsupportedCompressionType",
        ResponseError::InvalidRecord => "InvalidRecord",
        ResponseError::ThrottlingQuotaExceeded => "ThrottlingQuotaExceeded",
        other => return format!("error {}", other.code()),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_without_a_name_has_its_number() {
        assert_eq!(error_name(ResponseError::ClusterAuthorizationFailed), "ClusterAuthorizationFailed");
        assert_eq!(error_name(ResponseError::Unknown(4711)), "error 4711");
    }
}
