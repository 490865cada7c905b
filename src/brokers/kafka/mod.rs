//! Kafka: ACLs over the admin protocol, accounts by mutual TLS.

mod acl;
mod client;
mod wire;

use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::{CreateAclsRequest, DeleteAclsRequest, DescribeAclsRequest, DescribeClusterRequest};
use kafka_protocol::protocol::StrBytes;
use rustls::ClientConfig;

use self::wire::Connection;
use super::{Admin, BrokerFailure, ClusterFacts, Failures, Holdings};
use crate::api::{AppliedBinding, Reason};
use crate::domain::grants::Bindings;
use crate::domain::identity::digest;
use crate::issuers::pem::PrivateKeyPem;

pub use client::ClientAccess;

/// How many ACLs go into one request.
const CHUNK: usize = 1000;

/// What it takes to administer a cluster.
#[derive(Clone)]
pub struct KafkaConfig {
    servers: Vec<String>,
    tls: Arc<ClientConfig>,
    ca_pem: String,
    digest: String,
}

impl KafkaConfig {
    /// Checks the texts of the admin Secret.
    ///
    /// # Errors
    /// Says which of them cannot be used.
    pub fn new(servers: &[String], chain: &[u8], key: &[u8], ca: &[u8]) -> Result<Self, String> {
        let text = |bytes: &[u8], what: &str| {
            String::from_utf8(bytes.to_vec()).map_err(|_| format!("{what} is not a text in PEM"))
        };
        let (chain, ca_pem) = (text(chain, "tls.crt")?, text(ca, "ca.crt")?);
        let key = PrivateKeyPem::new(text(key, "tls.key")?);
        let parts = [chain.as_str(), key.expose(), ca_pem.as_str()];
        let digest = digest(parts.into_iter().chain(servers.iter().map(String::as_str)));
        Ok(Self { servers: servers.to_vec(), tls: wire::tls(&chain, &key, &ca_pem)?, ca_pem, digest })
    }

    /// Changes when anything in here does.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Authorities of the brokers' certificates, in PEM.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }
}

/// Logs in with a client's credential: connects, and waits for an answer.
///
/// # Errors
/// Why the broker did not let it in.
pub async fn login(access: &ClientAccess, chain_pem: &str, key: &PrivateKeyPem) -> Result<(), BrokerFailure> {
    let tls = wire::tls(chain_pem, key, &access.ca_pem)
        .map_err(|message| BrokerFailure { reason: Reason::LoginRefused, message })?;
    Connection::open(&access.bootstrap_servers, &tls).await.map(|_| ())
}

/// The administration of a Kafka cluster.
pub struct KafkaAdmin {
    connection: Connection,
}

impl Admin for KafkaAdmin {
    type Config = KafkaConfig;

    async fn connect(config: &KafkaConfig) -> Result<(Self, ClusterFacts), BrokerFailure> {
        let mut connection = Connection::open(&config.servers, &config.tls).await?;
        let answer = connection.call(&DescribeClusterRequest::default()).await?;
        check(answer.error_code, answer.error_message.as_ref(), "describe the cluster")?;
        let facts = ClusterFacts {
            cluster_id: Some(answer.cluster_id.to_string()),
            brokers: u32::try_from(answer.brokers.len()).unwrap_or(u32::MAX),
        };
        Ok((Self { connection }, facts))
    }

    async fn list(&mut self, principals: Option<&[String]>) -> Result<Holdings, BrokerFailure> {
        let mut holdings = Holdings::default();
        match principals {
            None => self.describe(None, &mut holdings).await?,
            Some(principals) => {
                for principal in principals {
                    self.describe(Some(principal), &mut holdings).await?;
                }
            }
        }
        Ok(holdings)
    }

    async fn add(&mut self, bindings: &Bindings) -> Result<Failures, BrokerFailure> {
        let bindings: Vec<&AppliedBinding> = bindings.iter().collect();
        let mut failures = Failures::new();
        for chunk in bindings.chunks(CHUNK) {
            let creations = chunk.iter().map(|binding| acl::creation(binding)).collect();
            let answer = self.connection.call(&CreateAclsRequest::default().with_creations(creations)).await?;
            let results = answer.results.iter().map(|result| (result.error_code, result.error_message.as_ref()));
            collect_failures(chunk, results, "create ACLs", &mut failures)?;
        }
        Ok(failures)
    }

    async fn remove(&mut self, bindings: &Bindings) -> Result<Failures, BrokerFailure> {
        let bindings: Vec<&AppliedBinding> = bindings.iter().collect();
        let mut failures = Failures::new();
        for chunk in bindings.chunks(CHUNK) {
            let filters = chunk.iter().map(|binding| acl::exact_filter(binding)).collect();
            let answer = self.connection.call(&DeleteAclsRequest::default().with_filters(filters)).await?;
            let results = answer.filter_results.iter().map(|result| {
                let matched = result.matching_acls.iter().find(|matched| matched.error_code != 0);
                matched.map_or((result.error_code, result.error_message.as_ref()), |matched| {
                    (matched.error_code, matched.error_message.as_ref())
                })
            });
            collect_failures(chunk, results, "delete ACLs", &mut failures)?;
        }
        Ok(failures)
    }
}

impl KafkaAdmin {
    async fn describe(&mut self, principal: Option<&String>, holdings: &mut Holdings) -> Result<(), BrokerFailure> {
        let request = DescribeAclsRequest::default()
            .with_resource_type_filter(acl::ANY)
            .with_resource_name_filter(None)
            .with_pattern_type_filter(acl::ANY)
            .with_principal_filter(principal.map(|principal| StrBytes::from_string(principal.clone())))
            .with_host_filter(None)
            .with_operation(acl::ANY)
            .with_permission_type(acl::ANY);
        let answer = self.connection.call(&request).await?;
        check(answer.error_code, answer.error_message.as_ref(), "list ACLs")?;
        acl::collect(&answer.resources, holdings);
        Ok(())
    }
}

/// Assigns the results of a request to its items. What concerns the operator as a whole is not an item's fault.
fn collect_failures<'a>(
    chunk: &[&AppliedBinding],
    results: impl ExactSizeIterator<Item = (i16, Option<&'a StrBytes>)>,
    doing: &str,
    failures: &mut Failures,
) -> Result<(), BrokerFailure> {
    if results.len() != chunk.len() {
        let message = format!("Kafka gave {} results for {} items when asked to {doing}", results.len(), chunk.len());
        return Err(BrokerFailure { reason: Reason::BrokerUnreachable, message });
    }
    for (binding, (code, message)) in chunk.iter().zip(results) {
        if code == ResponseError::ClusterAuthorizationFailed.code() {
            check(code, message, doing)?;
        } else if code != 0 {
            failures.insert((*binding).clone(), describe_error(code, message));
        }
    }
    Ok(())
}

fn check(code: i16, message: Option<&StrBytes>, doing: &str) -> Result<(), BrokerFailure> {
    if code == 0 {
        return Ok(());
    }
    let hint = if code == ResponseError::ClusterAuthorizationFailed.code() {
        "; the operator's principal needs Alter and Describe on the cluster"
    } else {
        ""
    };
    let message = format!("Kafka refused to {doing}: {}{hint}", describe_error(code, message));
    Err(BrokerFailure { reason: Reason::BrokerRefused, message })
}

fn describe_error(code: i16, message: Option<&StrBytes>) -> String {
    let name = ResponseError::try_from_code(code).map_or_else(|| format!("error {code}"), |error| format!("{error:?}"));
    match message {
        Some(message) if !message.is_empty() => format!("{name}: {}", message.as_str()),
        _ => name,
    }
}
