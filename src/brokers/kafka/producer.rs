//! Produces records to one topic, with the credential of a client. Records that arrive while a request is in flight are sent
//! together with the next one: the slower a broker is, the larger the batches.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::TopicName;
use kafka_protocol::protocol::StrBytes;
use kafka_protocol::records::Record;
use parking_lot::Mutex;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout};

use super::batch;
use super::client::ClientAccess;
use super::error::{CredentialError, error_name};
use super::topology::{Topology, metadata_request};
use super::wire::{Client, Connection};
use crate::brokers::BrokerFailure;
use crate::domain::address_policy::AddressPolicy;
use crate::domain::secret::SecretText;

/// How many records may wait for one server.
const MAX_WAITING: usize = 1000;
/// After how many bytes a request gets no more records. Kafka accepts 1 MiB by default (`message.max.bytes`).
const MAX_REQUEST: usize = 512 << 10;
/// After how long an idle connection is closed: earlier than Kafka closes it (`connections.max.idle.ms`, 10 minutes).
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long cached metadata of the topic is used.
const METADATA_AGE: Duration = Duration::from_secs(300);
/// How long metadata is used that was found outdated, and how long to wait after a failure.
const RETRY_DELAY: Duration = Duration::from_millis(150);
/// The next step when the certificate is refused.
const REMEDY: &str =
    "the trust store of Kafka must hold the roots of the trust domain, and the certificate must be valid";

/// Why a record was not written, or why that is not known: when the answer was lost, the record may have been written.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ProduceError {
    /// The broker cannot be reached, its certificate does not verify, or it refused the account.
    #[error(transparent)]
    Failed(#[from] BrokerFailure),
    /// The broker answered with an error.
    #[error("Kafka refused the record: {}", error_name(*.0))]
    Refused(ResponseError),
    /// The queue of the broker is full.
    #[error("the producer queue is full")]
    Full,
}

impl ProduceError {
    /// Whether one of the records may be the cause.
    fn is_about_content(&self) -> bool {
        use ResponseError::{InvalidRecord, MessageTooLarge, RecordListTooLarge};
        matches!(self, Self::Refused(MessageTooLarge | RecordListTooLarge | InvalidRecord))
    }
}

/// Produces records to one topic. It connects when the first record arrives.
pub struct Producer {
    topic: Arc<Topic>,
    /// By server.
    lanes: Mutex<HashMap<String, mpsc::Sender<Waiting>>>,
}

impl Producer {
    /// A producer for a topic, with the credential of a client. `answer_timeout` is how long an answer may take. Every address is
    /// judged by `addresses`, also those that brokers announce.
    ///
    /// # Errors
    /// The part of the credential that cannot be used.
    pub fn new(
        access: &ClientAccess,
        chain_pem: &str,
        key: &SecretText,
        topic: &str,
        addresses: &AddressPolicy,
        answer_timeout: Duration,
    ) -> Result<Self, CredentialError> {
        let topic = Topic {
            name: TopicName(StrBytes::from_string(topic.to_owned())),
            servers: access.bootstrap_servers.clone(),
            first: AtomicUsize::new(0),
            client: Client::new(chain_pem, key, &access.ca_pem, addresses)?,
            answer_timeout,
            known: tokio::sync::Mutex::new(None),
            is_outdated: AtomicBool::new(false),
        };
        Ok(Self { topic: Arc::new(topic), lanes: Mutex::default() })
    }

    /// Produces a record. If the future is dropped before the record is in flight, the record is not sent.
    ///
    /// # Errors
    /// Why the record was not written.
    pub async fn produce(&self, record: Record) -> Result<(), ProduceError> {
        let topology = self.topic.topology().await?;
        let (partition, leader) = topology.partition_of(record.key.as_deref().unwrap_or_default());
        let Some(leader) = leader else {
            self.topic.mark_outdated();
            return Err(ProduceError::Refused(ResponseError::LeaderNotAvailable));
        };
        let (reply, answer) = oneshot::channel();
        let waiting = Waiting { partition, record, reply };
        self.lane(&topology, leader).try_send(waiting).map_err(|_| ProduceError::Full)?;
        answer.await.unwrap_or(Err(ProduceError::Refused(ResponseError::NetworkException)))
    }

    /// The lane to a server. Lanes to servers that no longer lead a partition are dropped; they end when their records are sent.
    fn lane(&self, topology: &Topology, server: &str) -> mpsc::Sender<Waiting> {
        let mut lanes = self.lanes.lock();
        if let Some(lane) = lanes.get(server).filter(|lane| !lane.is_closed()) {
            return lane.clone();
        }
        lanes.retain(|server, _| topology.is_led_by(server));
        let (lane, waiting) = mpsc::channel(MAX_WAITING);
        let (topic, server) = (self.topic.clone(), server.to_owned());
        lanes.insert(server.clone(), lane.clone());
        tokio::spawn(Lane { topic, servers: [server], connection: None }.run(waiting));
        lane
    }
}

/// The topic, shared by all lanes.
struct Topic {
    name: TopicName,
    servers: Vec<String>,
    /// Index of the server that the next metadata request begins with.
    first: AtomicUsize,
    client: Client,
    answer_timeout: Duration,
    known: tokio::sync::Mutex<Option<Known>>,
    /// Whether an answer showed that the cached metadata is outdated.
    is_outdated: AtomicBool,
}

/// The cached metadata of the topic, or why it could not be read.
struct Known {
    at: Instant,
    topology: Result<Arc<Topology>, ProduceError>,
}

impl Topic {
    /// Marks the cached metadata as outdated.
    fn mark_outdated(&self) {
        self.is_outdated.store(true, Ordering::Relaxed);
    }

    /// The metadata of the topic. Callers that arrive during a request share its answer.
    async fn topology(&self) -> Result<Arc<Topology>, ProduceError> {
        let mut known = self.known.lock().await;
        if let Some(known) = &*known {
            let is_outdated = known.topology.is_err() || self.is_outdated.load(Ordering::Relaxed);
            if known.at.elapsed() < if is_outdated { RETRY_DELAY } else { METADATA_AGE } {
                return known.topology.clone();
            }
        }
        self.is_outdated.store(false, Ordering::Relaxed);
        let topology = self.look_up().await.map(Arc::new);
        *known = Some(Known { at: Instant::now(), topology: topology.clone() });
        topology
    }

    /// Requests metadata. After a failure, the next request begins with another server, since the caller may not have the time
    /// to wait for two.
    async fn look_up(&self) -> Result<Topology, ProduceError> {
        let mut servers = self.servers.clone();
        let first = self.first.fetch_add(1, Ordering::Relaxed) % servers.len().max(1);
        servers.rotate_left(first);
        let mut connection =
            Connection::open(&servers, &self.client, REMEDY).await?.with_answer_timeout(self.answer_timeout);
        let topology = connection.call(&metadata_request(&self.name)).await?;
        let answered = self.servers.iter().position(|server| server == connection.server());
        self.first.store(answered.unwrap_or_default(), Ordering::Relaxed);
        topology.map_err(ProduceError::Refused)
    }

    /// How long a leader may wait for the other replicas, in milliseconds: its answer has to arrive before the timeout.
    fn replication_timeout(&self) -> i32 {
        i32::try_from((self.answer_timeout * 9 / 10).as_millis()).unwrap_or(i32::MAX)
    }
}

/// A record that waits to be sent, or for its answer.
struct Waiting {
    partition: i32,
    record: Record,
    reply: oneshot::Sender<Result<(), ProduceError>>,
}

/// Sends records to one server: one connection, with one request in flight.
struct Lane {
    topic: Arc<Topic>,
    servers: [String; 1],
    connection: Option<Connection>,
}

impl Lane {
    async fn run(mut self, mut waiting: mpsc::Receiver<Waiting>) {
        while let Some(first) = self.next(&mut waiting).await {
            let mut taken = batch::size(&first.record);
            let mut records = vec![first];
            while taken < MAX_REQUEST
                && let Ok(next) = waiting.try_recv()
            {
                taken += batch::size(&next.record);
                records.push(next);
            }
            self.send(records).await;
        }
    }

    async fn next(&mut self, waiting: &mut mpsc::Receiver<Waiting>) -> Option<Waiting> {
        match timeout(IDLE_TIMEOUT, waiting.recv()).await {
            Ok(next) => next,
            Err(_) => {
                self.connection = None;
                waiting.recv().await
            }
        }
    }

    /// Sends records, and reports the result of each. A batch that is refused for its content is halved until the record that
    /// is the cause is alone, so that the others are written.
    async fn send(&mut self, records: Vec<Waiting>) {
        let mut requests = vec![records];
        while let Some(mut records) = requests.pop() {
            // The sender of such a record has given up, and may have sent it again.
            records.retain(|waiting| !waiting.reply.is_closed());
            let mut batches: BTreeMap<i32, Vec<Waiting>> = BTreeMap::new();
            for waiting in records {
                batches.entry(waiting.partition).or_default().push(waiting);
            }
            if batches.is_empty() {
                continue;
            }
            let results = self.request(&mut batches).await;
            for (partition, mut batch) in batches {
                let result = match &results {
                    Ok(results) => match results.get(&partition) {
                        Some(None) => Ok(()),
                        Some(Some(error)) => Err(ProduceError::Refused(*error)),
                        None => Err(ProduceError::Refused(ResponseError::UnknownServerError)),
                    },
                    Err(error) => Err(error.clone()),
                };
                if batch.len() > 1 && result.as_ref().is_err_and(ProduceError::is_about_content) {
                    let half = batch.split_off(batch.len() / 2);
                    requests.extend([batch, half]);
                    continue;
                }
                if result.as_ref().is_err_and(|error| !error.is_about_content()) {
                    self.topic.mark_outdated();
                }
                for waiting in batch {
                    // It fails only if the sender has given up.
                    let _ = waiting.reply.send(result.clone());
                }
            }
        }
    }

    async fn request(
        &mut self,
        batches: &mut BTreeMap<i32, Vec<Waiting>>,
    ) -> Result<BTreeMap<i32, Option<ResponseError>>, ProduceError> {
        let records = batches
            .iter_mut()
            .map(|(partition, batch)| (*partition, batch.iter_mut().map(|it| &mut it.record).collect()));
        let request = batch::request(&self.topic.name, self.topic.replication_timeout(), records)
            .map_err(ProduceError::Refused)?;
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.open().await?,
        };
        let results = connection.call(&request).await?;
        self.connection = Some(connection);
        Ok(results)
    }

    async fn open(&self) -> Result<Connection, BrokerFailure> {
        let opened = Connection::open(&self.servers, &self.topic.client, REMEDY).await;
        if opened.is_err() {
            // Records that arrive during the pause fail together, and the broker is not flooded with connections.
            sleep(RETRY_DELAY).await;
        }
        Ok(opened?.with_answer_timeout(self.topic.answer_timeout))
    }
}
