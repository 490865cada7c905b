//! Which server leads each partition of a topic, and the partition of a key. Pure.

use std::collections::HashMap;
use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{MetadataRequest, TopicName};

use super::reader::{Malformed, Reader};

/// Longest name of a host (RFC 1035 section 2.3.4), in bytes.
const MAX_HOST: usize = 255;

/// The partitions of a topic.
#[derive(Debug, PartialEq, Eq)]
pub struct Topology {
    /// The server that leads each partition; `None` while a leader is elected.
    leaders: Vec<Option<Arc<str>>>,
}

/// A request for the metadata of a topic. It does not create the topic.
pub fn metadata_request(topic: &TopicName) -> MetadataRequest {
    let topic = MetadataRequestTopic::default().with_name(Some(topic.clone()));
    MetadataRequest::default().with_topics(Some(vec![topic])).with_allow_auto_topic_creation(false)
}

impl Topology {
    /// Reads the brokers and the first topic of the answer to [`metadata_request`]; or the error of the topic, as the broker
    /// reports it.
    ///
    /// # Errors
    /// What cannot be read.
    pub fn read(body: &mut Reader<'_>) -> Result<Result<Self, ResponseError>, Malformed> {
        let mut servers: HashMap<i32, Arc<str>> = HashMap::new();
        body.structs(|broker| {
            let (id, host, port) = (broker.i32()?, broker.text()?, broker.i32()?);
            let _rack = broker.nullable_text()?;
            if host.len() > MAX_HOST {
                return Err(Malformed::Host);
            }
            if let Ok(port) = u16::try_from(port) {
                servers.insert(id, address(host, port).into());
            }
            Ok(())
        })?;
        let _cluster_id = body.nullable_text()?;
        let _controller = body.i32()?;
        let mut first = None;
        body.structs(|topic| {
            let error = ResponseError::try_from_code(topic.i16()?);
            topic.text()?;
            let _is_internal = topic.i8()?;
            let mut partitions = Vec::new();
            topic.structs(|partition| {
                let _error = partition.i16()?;
                partitions.push((partition.i32()?, partition.i32()?));
                let _leader_epoch = partition.i32()?;
                // All replicas, those in sync, and those that are offline.
                for _ in 0..3 {
                    partition.skip_numbers()?;
                }
                Ok(())
            })?;
            let _operations = topic.i32()?;
            first.get_or_insert((error, partitions));
            Ok(())
        })?;
        Ok(match first {
            None => Err(ResponseError::UnknownTopicOrPartition),
            Some((Some(error), _)) => Err(error),
            Some((None, partitions)) => Self::new(&partitions, &servers),
        })
    }

    /// From the index and the leader of each partition.
    fn new(partitions: &[(i32, i32)], servers: &HashMap<i32, Arc<str>>) -> Result<Self, ResponseError> {
        let mut leaders = vec![None; partitions.len()];
        for (index, leader) in partitions {
            let place = usize::try_from(*index).ok().and_then(|index| leaders.get_mut(index));
            if let (Some(place), Some(leader)) = (place, servers.get(leader)) {
                *place = Some(leader.clone());
            }
        }
        if leaders.is_empty() { Err(ResponseError::LeaderNotAvailable) } else { Ok(Self { leaders }) }
    }

    /// The partition of a key, and the server that leads it. Kafka's own clients choose the same partition, so records with
    /// one key are in one partition, whatever client produced them.
    pub fn partition_of(&self, key: &[u8]) -> (i32, Option<&str>) {
        let hash = usize::try_from(murmur2(key) & 0x7fff_ffff).unwrap_or_default();
        let index = hash % self.leaders.len();
        (i32::try_from(index).unwrap_or_default(), self.leaders[index].as_deref())
    }

    /// Whether a server leads any of the partitions.
    pub fn is_led_by(&self, server: &str) -> bool {
        self.leaders.iter().flatten().any(|leader| **leader == *server)
    }
}

fn address(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// `MurmurHash2` with the seed of Kafka's Java clients (`Utils.murmur2`).
fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
    let (words, rest) = data.as_chunks::<4>();
    let mut hash = words.iter().fold(0x9747_b28c ^ length, |hash, word| {
        let word = u32::from_le_bytes(*word).wrapping_mul(M);
        hash.wrapping_mul(M) ^ (word ^ (word >> 24)).wrapping_mul(M)
    });
    if !rest.is_empty() {
        let last = rest.iter().rev().fold(0, |last, byte| (last << 8) | u32::from(*byte));
        hash = (hash ^ last).wrapping_mul(M);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use kafka_protocol::messages::MetadataResponse;
    use kafka_protocol::messages::metadata_response::{
        MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
    };
    use kafka_protocol::protocol::{Encodable, StrBytes};

    use super::*;
    use crate::brokers::kafka::answer::Question;

    fn read(answer: &MetadataResponse) -> Result<Result<Topology, ResponseError>, Malformed> {
        let mut bytes = BytesMut::new();
        answer.encode(&mut bytes, MetadataRequest::SENT_IN.1).unwrap();
        let mut reader = Reader::new(&bytes);
        let topology = MetadataRequest::read(&mut reader)?;
        reader.end().map(|()| topology)
    }

    fn broker(id: i32, host: &'static str) -> MetadataResponseBroker {
        let host = StrBytes::from_static_str(host);
        MetadataResponseBroker::default().with_node_id(id.into()).with_host(host).with_port(9092)
    }

    fn answer(partitions: &[(i32, i32)], error: i16) -> MetadataResponse {
        let partition = |(index, leader): &(i32, i32)| {
            MetadataResponsePartition::default().with_partition_index(*index).with_leader_id((*leader).into())
        };
        let partitions = partitions.iter().map(partition).collect();
        let name = TopicName(StrBytes::from_static_str("orders"));
        let topic =
            MetadataResponseTopic::default().with_name(Some(name)).with_error_code(error).with_partitions(partitions);
        MetadataResponse::default().with_brokers(vec![broker(1, "one"), broker(2, "fd00::2")]).with_topics(vec![topic])
    }

    #[test]
    fn the_hash_equals_that_of_kafkas_clients() {
        for (text, hash) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(text.as_bytes()).cast_signed(), hash, "{text}");
        }
    }

    #[test]
    fn a_key_has_one_partition_with_its_leader() {
        let topology = read(&answer(&[(2, 9), (0, 1), (1, 2)], 0)).unwrap().unwrap();
        assert_eq!(topology.leaders, [Some("one:9092".into()), Some("[fd00::2]:9092".into()), None]);
        assert!(topology.is_led_by("one:9092") && !topology.is_led_by("two:9092"));
        for key in ["abc", "foobar", "21"] {
            let partition = (murmur2(key.as_bytes()) & 0x7fff_ffff) % 3;
            let leader = topology.leaders[partition as usize].as_deref();
            assert_eq!(topology.partition_of(key.as_bytes()), (partition.cast_signed(), leader), "{key}");
        }
    }

    #[test]
    fn an_error_of_the_topic_is_returned() {
        let error_of = |partitions, error| read(&answer(partitions, error)).unwrap().unwrap_err();
        assert_eq!(error_of(&[], 3), ResponseError::UnknownTopicOrPartition);
        assert_eq!(error_of(&[(0, 1)], 29), ResponseError::TopicAuthorizationFailed);
        assert_eq!(error_of(&[], 0), ResponseError::LeaderNotAvailable);
        let nothing = read(&MetadataResponse::default()).unwrap();
        assert_eq!(nothing.unwrap_err(), ResponseError::UnknownTopicOrPartition);
    }

    #[test]
    fn a_server_without_a_possible_address_leads_nothing() {
        let mut answer = answer(&[(0, 1)], 0);
        answer.brokers[0].port = 70_000;
        assert_eq!(read(&answer).unwrap().unwrap().leaders, [None]);
        answer.brokers[0].host = StrBytes::from_string("x".repeat(MAX_HOST + 1));
        assert_eq!(read(&answer).unwrap_err(), Malformed::Host);
    }
}
