//! Brings records to one topic, with the account of a client. Records that come while a request is under way go with the
//! next one, so that the slower a broker is, the more it is given at once.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::TopicName;
use kafka_protocol::protocol::StrBytes;
use kafka_protocol::records::Record;
use parking_lot::Mutex;
use rustls::ClientConfig;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout};

use super::batch::{self, WITH_NAMES};
use super::client::ClientAccess;
use super::error::{CredentialError, error_name};
use super::topology::{Topology, question};
use super::wire::{self, Connection};
use crate::brokers::BrokerFailure;
use crate::domain::secret::SecretText;

/// How many records may wait for one server.
const WAITING: usize = 1000;
/// How many bytes of records go into one request, the last of them not counted: Kafka takes 1 MiB unless told otherwise.
const REQUEST: usize = 512 << 10;
/// How long a connection is kept that nothing goes over: less than Kafka keeps it.
const IDLE: Duration = Duration::from_secs(60);
/// How long it is believed where the partitions are; and how long, when that was found wrong or could not be learnt.
const BELIEVED: (Duration, Duration) = (Duration::from_secs(300), Duration::from_millis(150));
/// What helps when the certificate is refused.
const REMEDY: &str = "Kafka's trust store must hold the roots of the trust domain, and the certificate must be valid";

/// Why a record was not written. When only the answer was lost, it was written all the same.
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
    /// Whether a part of the batch may be what was refused.
    fn is_of_content(&self) -> bool {
        use ResponseError::{InvalidRecord, MessageTooLarge, RecordListTooLarge};
        matches!(self, Self::Refused(MessageTooLarge | RecordListTooLarge | InvalidRecord))
    }
}

/// A topic with the way to it. Nothing is connected before the first record comes.
pub struct Producer {
    topic: Arc<Topic>,
    /// By the server at their end.
    lanes: Mutex<HashMap<String, mpsc::Sender<Waiting>>>,
}

impl Producer {
    /// For a topic, with a client's credential. `within` is how long an answer may take.
    ///
    /// # Errors
    /// Says which part of the credential cannot be used.
    pub fn new(
        access: &ClientAccess,
        chain_pem: &str,
        key: &SecretText,
        topic: &str,
        within: Duration,
    ) -> Result<Self, CredentialError> {
        let topic = Topic {
            name: TopicName(StrBytes::from_string(topic.to_owned())),
            servers: access.bootstrap_servers.clone(),
            first: AtomicUsize::new(0),
            tls: wire::tls(chain_pem, key, &access.ca_pem)?,
            within,
            known: tokio::sync::Mutex::new(None),
            is_doubted: AtomicBool::new(false),
        };
        Ok(Self { topic: Arc::new(topic), lanes: Mutex::default() })
    }

    /// Writes a record. It is given up when this is dropped before it is on its way.
    ///
    /// # Errors
    /// Why it is not written.
    pub async fn produce(&self, record: Record) -> Result<(), ProduceError> {
        let topology = self.topic.topology().await?;
        let (partition, leader) = topology.place(record.key.as_deref().unwrap_or_default());
        let Some(leader) = leader else {
            self.topic.doubt();
            return Err(ProduceError::Refused(ResponseError::LeaderNotAvailable));
        };
        let (told, answer) = oneshot::channel();
        let waiting = Waiting { partition, record, told };
        self.lane(&topology, leader).try_send(waiting).map_err(|_| ProduceError::Full)?;
        answer.await.unwrap_or(Err(ProduceError::Refused(ResponseError::NetworkException)))
    }

    /// The lane to a server. Those to servers that lead nothing any more end with what waits in them.
    fn lane(&self, topology: &Topology, server: &str) -> mpsc::Sender<Waiting> {
        let mut lanes = self.lanes.lock();
        if let Some(lane) = lanes.get(server).filter(|lane| !lane.is_closed()) {
            return lane.clone();
        }
        lanes.retain(|server, _| topology.is_led_by(server));
        let (lane, waiting) = mpsc::channel(WAITING);
        let (topic, server) = (self.topic.clone(), server.to_owned());
        lanes.insert(server.clone(), lane.clone());
        tokio::spawn(Lane { topic, servers: [server], connection: None }.run(waiting));
        lane
    }
}

/// What lanes share.
struct Topic {
    name: TopicName,
    servers: Vec<String>,
    /// Where the next search for the topic begins.
    first: AtomicUsize,
    tls: Arc<ClientConfig>,
    within: Duration,
    known: tokio::sync::Mutex<Option<Known>>,
    is_doubted: AtomicBool,
}

/// Where the topic is, as it was last learnt.
struct Known {
    at: Instant,
    topology: Result<Arc<Topology>, ProduceError>,
}

impl Topic {
    /// Has the topic looked for again soon.
    fn doubt(&self) {
        self.is_doubted.store(true, Ordering::Relaxed);
    }

    /// Where the topic is. One looks for all who ask meanwhile.
    async fn topology(&self) -> Result<Arc<Topology>, ProduceError> {
        let mut known = self.known.lock().await;
        if let Some(known) = &*known {
            let doubted = known.topology.is_err() || self.is_doubted.load(Ordering::Relaxed);
            if known.at.elapsed() < if doubted { BELIEVED.1 } else { BELIEVED.0 } {
                return known.topology.clone();
            }
        }
        self.is_doubted.store(false, Ordering::Relaxed);
        let topology = self.look_up().await.map(Arc::new);
        *known = Some(Known { at: Instant::now(), topology: topology.clone() });
        topology
    }

    /// Begins with another server each time until one has answered: whoever asks may not have the patience for two.
    async fn look_up(&self) -> Result<Topology, ProduceError> {
        let mut servers = self.servers.clone();
        let first = self.first.fetch_add(1, Ordering::Relaxed) % servers.len().max(1);
        servers.rotate_left(first);
        let mut connection = Connection::open(&servers, &self.tls, REMEDY).await?.answering_within(self.within);
        let answer = connection.call(&question(&self.name)).await?;
        let good = self.servers.iter().position(|server| server == connection.server());
        self.first.store(good.unwrap_or_default(), Ordering::Relaxed);
        Topology::read(&answer).map_err(ProduceError::Refused)
    }

    /// How long a leader may wait for the other replicas, in milliseconds: its answer has to come in time.
    fn patience(&self) -> i32 {
        i32::try_from((self.within * 9 / 10).as_millis()).unwrap_or(i32::MAX)
    }
}

/// A record on its way.
struct Waiting {
    partition: i32,
    record: Record,
    told: oneshot::Sender<Result<(), ProduceError>>,
}

/// The way to one server: one connection, and one request on it at a time.
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
            while taken < REQUEST
                && let Ok(next) = waiting.try_recv()
            {
                taken += batch::size(&next.record);
                records.push(next);
            }
            self.write(records).await;
        }
    }

    async fn next(&mut self, waiting: &mut mpsc::Receiver<Waiting>) -> Option<Waiting> {
        match timeout(IDLE, waiting.recv()).await {
            Ok(next) => next,
            Err(_) => {
                self.connection = None;
                waiting.recv().await
            }
        }
    }

    /// Writes records, and tells everybody. A batch that is refused for what is in it is halved until it is known for
    /// which record: the others are not to suffer.
    async fn write(&mut self, records: Vec<Waiting>) {
        let mut requests = vec![records];
        while let Some(mut records) = requests.pop() {
            // Nobody waits for these any more; they may have been sent another time already.
            records.retain(|waiting| !waiting.told.is_closed());
            let mut batches: BTreeMap<i32, Vec<Waiting>> = BTreeMap::new();
            for waiting in records {
                batches.entry(waiting.partition).or_default().push(waiting);
            }
            if batches.is_empty() {
                continue;
            }
            let results = self.ask(&mut batches).await;
            for (partition, mut batch) in batches {
                let result = match &results {
                    Ok(results) => match results.get(&partition) {
                        Some(None) => Ok(()),
                        Some(Some(error)) => Err(ProduceError::Refused(*error)),
                        None => Err(ProduceError::Refused(ResponseError::UnknownServerError)),
                    },
                    Err(why) => Err(why.clone()),
                };
                if batch.len() > 1 && result.as_ref().is_err_and(ProduceError::is_of_content) {
                    let half = batch.split_off(batch.len() / 2);
                    requests.extend([batch, half]);
                    continue;
                }
                if result.as_ref().is_err_and(|why| !why.is_of_content()) {
                    self.topic.doubt();
                }
                for waiting in batch {
                    // Whoever does not wait any more need not be told.
                    let _ = waiting.told.send(result.clone());
                }
            }
        }
    }

    async fn ask(
        &mut self,
        batches: &mut BTreeMap<i32, Vec<Waiting>>,
    ) -> Result<BTreeMap<i32, Option<ResponseError>>, ProduceError> {
        let records = batches
            .iter_mut()
            .map(|(partition, batch)| (*partition, batch.iter_mut().map(|it| &mut it.record).collect()));
        let request =
            batch::request(&self.topic.name, self.topic.patience(), records).map_err(ProduceError::Refused)?;
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.open().await?,
        };
        let answer = connection.call_up_to(WITH_NAMES, &request).await?;
        self.connection = Some(connection);
        Ok(batch::results(&answer))
    }

    async fn open(&self) -> Result<Connection, BrokerFailure> {
        let opened = Connection::open(&self.servers, &self.topic.tls, REMEDY).await;
        if opened.is_err() {
            // What comes meanwhile is told together, and a broker that is in trouble is not given more of it.
            sleep(BELIEVED.1).await;
        }
        Ok(opened?.answering_within(self.topic.within))
    }
}
