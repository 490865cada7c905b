//! Kafka: ACLs over the admin protocol (KIP-140), authentication by mutual TLS, and a producer.

mod acl;
mod answer;
mod batch;
mod client;
mod error;
#[cfg(fuzzing)]
pub mod fuzzing;
mod producer;
mod reader;
mod topology;
mod wire;

use std::time::Duration;

use jiff::Timestamp;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::{CreateAclsRequest, DeleteAclsRequest, DescribeAclsRequest, DescribeClusterRequest};
use tokio::time::{Instant, sleep};

use self::answer::Verdict;
use self::wire::Connection;
use super::{Admin, BrokerFailure, ClusterFacts, Failures, Holdings};
use crate::api::{AppliedBinding, Reason};
use crate::domain::address_policy::AddressPolicy;
use crate::domain::grants::Bindings;
use crate::domain::identity::digest;
use crate::domain::secret::SecretText;
use crate::issuers::pem;

pub use batch::record;
pub use client::ClientAccess;
pub use error::{CredentialError, error_name};
pub use producer::{ProduceError, Producer};
pub use wire::OnRequest;

/// How many ACLs a request has at most.
const MAX_ACLS: usize = 1000;
/// How long a new ACL may take to appear in the list of the broker.
const PROPAGATION: Duration = Duration::from_secs(5);

/// Addresses and credentials for the administration of a cluster.
#[derive(Clone)]
pub struct KafkaConfig {
    servers: Vec<String>,
    client: wire::Client,
    ca_pem: String,
    digest: String,
    on_request: OnRequest,
    /// When the certificate of the operator expires.
    pub not_after: Timestamp,
}

impl KafkaConfig {
    /// Checks the entries of the admin Secret: `tls.crt`, `tls.key` and `ca.crt`, in PEM.
    ///
    /// # Errors
    /// The entry that cannot be used.
    pub fn new(
        servers: &[String],
        chain: &[u8],
        key: &[u8],
        ca: &[u8],
        addresses: &AddressPolicy,
        on_request: OnRequest,
    ) -> Result<Self, CredentialError> {
        let certificates = pem::certificates(chain, "tls.crt")?;
        let not_after = certificates.iter().map(|certificate| certificate.not_after).min().unwrap_or_default();
        let text = |bytes: &[u8], entry: &'static str| {
            String::from_utf8(bytes.to_vec()).map_err(|_| CredentialError::NotText { entry })
        };
        let (chain, ca_pem) = (text(chain, "tls.crt")?, text(ca, "ca.crt")?);
        let key = SecretText::new(text(key, "tls.key")?);
        let parts = [chain.as_str(), key.expose(), ca_pem.as_str()];
        let digest = digest(parts.into_iter().chain(servers.iter().map(String::as_str)));
        let client = wire::Client::new(&chain, &key, &ca_pem, addresses)?;
        Ok(Self { servers: servers.to_vec(), client, ca_pem, digest, on_request, not_after })
    }

    /// A digest of all fields.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The roots that the certificates of the brokers are verified with, in PEM.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }
}

/// Authenticates with the credential of a client: connects, and waits for an answer.
///
/// # Errors
/// Why the broker cannot be reached, or refused the client.
pub async fn login(
    access: &ClientAccess,
    chain_pem: &str,
    key: &SecretText,
    addresses: &AddressPolicy,
) -> Result<(), BrokerFailure> {
    let client = wire::Client::new(chain_pem, key, &access.ca_pem, addresses)
        .map_err(|error| BrokerFailure { reason: Reason::LoginRefused, message: error.to_string() })?;
    let remedy = "the trust store of Kafka must hold the roots of the trust domain";
    Connection::open(&access.bootstrap_servers, &client, remedy).await.map(|_| ())
}

/// The administration of a Kafka cluster.
pub struct KafkaAdmin {
    connection: Connection,
}

impl Admin for KafkaAdmin {
    type Config = KafkaConfig;

    async fn connect(config: &KafkaConfig) -> Result<Self, BrokerFailure> {
        let remedy =
            "the certificate is the operator's own; put one that is valid and that Kafka trusts into the admin Secret";
        let connection = Connection::open(&config.servers, &config.client, remedy).await?;
        Ok(Self { connection: connection.with_observer(config.on_request.clone()) })
    }

    /// Includes the operations that the principal may perform on the cluster (KIP-430).
    async fn facts(&mut self) -> Result<ClusterFacts, BrokerFailure> {
        let request = DescribeClusterRequest::default().with_include_cluster_authorized_operations(true);
        let (verdict, facts) = self.connection.call(&request).await?;
        check(&verdict, "describe the cluster").map(|()| facts)
    }

    async fn list(&mut self) -> Result<Holdings, BrokerFailure> {
        let everything = DescribeAclsRequest::default()
            .with_resource_type_filter(acl::ANY)
            .with_resource_name_filter(None)
            .with_pattern_type_filter(acl::ANY)
            .with_principal_filter(None)
            .with_host_filter(None)
            .with_operation(acl::ANY)
            .with_permission_type(acl::ANY);
        self.describe(&everything).await
    }

    async fn add(&mut self, bindings: &Bindings) -> Result<Failures, BrokerFailure> {
        let bindings: Vec<&AppliedBinding> = bindings.iter().collect();
        let mut failures = Failures::new();
        for chunk in bindings.chunks(MAX_ACLS) {
            let creations = chunk.iter().map(|binding| acl::creation(binding)).collect();
            let results = self.connection.call(&CreateAclsRequest::default().with_creations(creations)).await?;
            collect_failures(chunk, &results, "create ACLs", &mut failures)?;
        }
        let created: Vec<_> = bindings.into_iter().filter(|binding| !failures.contains_key(*binding)).collect();
        if let Some(last) = created.last()
            && !self.appears(last).await?
        {
            let message = "Kafka accepted the ACL and does not list it yet; retrying";
            failures.extend(created.into_iter().map(|binding| (binding.clone(), message.to_owned())));
        }
        Ok(failures)
    }

    async fn remove(&mut self, bindings: &Bindings) -> Result<Failures, BrokerFailure> {
        let bindings: Vec<&AppliedBinding> = bindings.iter().collect();
        let mut failures = Failures::new();
        for chunk in bindings.chunks(MAX_ACLS) {
            let filters = chunk.iter().map(|binding| acl::exact_filter(binding)).collect();
            let results = self.connection.call(&DeleteAclsRequest::default().with_filters(filters)).await?;
            collect_failures(chunk, &results, "delete ACLs", &mut failures)?;
        }
        Ok(failures)
    }
}

impl KafkaAdmin {
    async fn describe(&mut self, request: &DescribeAclsRequest) -> Result<Holdings, BrokerFailure> {
        let (verdict, holdings) = self.connection.call(request).await?;
        check(&verdict, "list ACLs").map(|()| holdings)
    }

    /// Waits until the broker lists the last binding that was created. Kafka's controller answers before the brokers have
    /// applied a change. They apply changes in the order of the metadata log (KIP-500), so with the last one all others are
    /// active.
    async fn appears(&mut self, last: &AppliedBinding) -> Result<bool, BrokerFailure> {
        let deadline = Instant::now() + PROPAGATION;
        let mut pause = Duration::from_millis(2);
        while !self.describe(&acl::exact_query(last)).await?.bindings.contains(last) {
            if Instant::now() >= deadline {
                return Ok(false);
            }
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(500));
        }
        Ok(true)
    }
}

/// Collects the failures of a request whose results are in the order of its items.
fn collect_failures(
    chunk: &[&AppliedBinding],
    results: &[Verdict],
    doing: &str,
    failures: &mut Failures,
) -> Result<(), BrokerFailure> {
    if results.len() != chunk.len() {
        let message = format!(
            "Kafka gave {} results for {} items in answer to the request to {doing}",
            results.len(),
            chunk.len()
        );
        return Err(BrokerFailure { reason: Reason::BrokerUnreachable, message });
    }
    let mut refused = chunk.iter().zip(results).filter(|(_, verdict)| verdict.code != 0).peekable();
    if let Some((_, verdict)) = refused.peek() {
        log_refusal(verdict, doing);
    }
    failures.extend(refused.map(|(binding, verdict)| ((*binding).clone(), describe_error(verdict.code))));
    Ok(())
}

fn check(verdict: &Verdict, doing: &str) -> Result<(), BrokerFailure> {
    if verdict.code == 0 {
        return Ok(());
    }
    log_refusal(verdict, doing);
    let message = format!("Kafka refused to {doing}: {}", describe_error(verdict.code));
    Err(BrokerFailure { reason: Reason::BrokerRefused, message })
}

/// Logs the broker's own words. They are in no message: a broker can put anything into them, and another text at every attempt.
fn log_refusal(Verdict { code, message }: &Verdict, doing: &str) {
    tracing::warn!(request = doing, reason = name_of(*code), detail = message, "Kafka refused a request");
}

fn name_of(code: i16) -> String {
    ResponseError::try_from_code(code).map_or_else(|| format!("error {code}"), error_name)
}

fn describe_error(code: i16) -> String {
    let hint = if code == ResponseError::ClusterAuthorizationFailed.code() {
        "; grant the operator's principal Alter and Describe on the cluster"
    } else {
        "; the log of the operator has the broker's own words"
    };
    format!("{}{hint}", name_of(code))
}
