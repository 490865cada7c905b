//! Records, and the request that produces many of them to the partitions of one topic. Pure.

use bytes::{Bytes, BytesMut};
use jiff::Timestamp;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{ProduceRequest, TopicName};
use kafka_protocol::protocol::StrBytes;
use kafka_protocol::records::{
    Compression, NO_PARTITION_LEADER_EPOCH, NO_PRODUCER_EPOCH, NO_PRODUCER_ID, NO_SEQUENCE, Record, RecordBatchEncoder,
    RecordEncodeOptions, TimestampType,
};

/// `acks=all`: the broker answers when every in-sync replica has the records.
const ALL: i16 = -1;

/// A record that belongs to no batch yet.
#[must_use]
pub fn record(key: Bytes, headers: impl IntoIterator<Item = (String, Bytes)>, value: Bytes, at: Timestamp) -> Record {
    let header = |(name, value)| (StrBytes::from_string(name), Some(value));
    Record {
        transactional: false,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: NO_PARTITION_LEADER_EPOCH,
        producer_id: NO_PRODUCER_ID,
        producer_epoch: NO_PRODUCER_EPOCH,
        timestamp_type: TimestampType::Creation,
        offset: 0,
        sequence: NO_SEQUENCE,
        timestamp: at.as_millisecond(),
        key: Some(key),
        value: Some(value),
        headers: headers.into_iter().map(header).collect(),
    }
}

/// The approximate size of a record in bytes.
pub fn size(record: &Record) -> usize {
    let length = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
    let headers: usize = record.headers.iter().map(|(name, value)| name.len() + length(value) + 8).sum();
    length(&record.key) + length(&record.value) + headers + 32
}

/// A request to produce records, with one batch for each partition. It sets the offsets and sequence numbers of the records.
/// `timeout_ms` is how long the leaders may wait for the other replicas, in milliseconds.
///
/// # Errors
/// When a record cannot be encoded.
pub fn request<'a>(
    topic: &TopicName,
    timeout_ms: i32,
    batches: impl Iterator<Item = (i32, Vec<&'a mut Record>)>,
) -> Result<ProduceRequest, ResponseError> {
    let mut partitions = Vec::new();
    for (partition, records) in batches {
        let data = PartitionProduceData::default().with_index(partition);
        partitions.push(data.with_records(Some(encode(records).ok_or(ResponseError::InvalidRecord)?)));
    }
    let data = TopicProduceData::default().with_name(topic.clone()).with_partition_data(partitions);
    Ok(ProduceRequest::default().with_acks(ALL).with_timeout_ms(timeout_ms).with_topic_data(vec![data]))
}

fn encode(mut records: Vec<&mut Record>) -> Option<Bytes> {
    for (offset, record) in (0_i32..).zip(&mut records) {
        record.offset = offset.into();
        // The encoder starts a new batch where sequence numbers do not follow each other. No producer ID goes with them.
        record.sequence = NO_SEQUENCE.wrapping_add(offset);
    }
    let mut encoded = BytesMut::new();
    let options = RecordEncodeOptions { version: 2, compression: Compression::None };
    RecordBatchEncoder::encode(&mut encoded, records.iter().map(|record| &**record), &options).ok()?;
    Some(encoded.freeze())
}

#[cfg(test)]
mod tests {
    use kafka_protocol::records::RecordBatchDecoder;

    use super::*;

    #[test]
    fn records_of_a_partition_are_one_batch_in_order() {
        let make = |key: &'static str| {
            let headers = [("one".to_owned(), Bytes::from_static(b"1")), ("two".to_owned(), Bytes::new())];
            record(Bytes::from_static(key.as_bytes()), headers, Bytes::from_static(b"body"), Timestamp::UNIX_EPOCH)
        };
        let (mut records, mut other) = (["a", "b", "c"].map(make), make("d"));
        let batches = [(4, records.iter_mut().collect()), (7, vec![&mut other])];
        let topic = TopicName(StrBytes::from_static_str("orders"));
        let request = request(&topic, 9000, batches.into_iter()).unwrap();
        assert_eq!((request.acks, request.timeout_ms, request.topic_data.len()), (-1, 9000, 1));
        let partitions = &request.topic_data[0].partition_data;
        assert_eq!(partitions.iter().map(|it| it.index).collect::<Vec<_>>(), [4, 7]);
        let mut encoded = partitions[0].records.clone().unwrap();
        let batches = RecordBatchDecoder::decode_batch_info(&mut encoded.clone()).unwrap();
        assert_eq!((batches.len(), batches[0].record_count, batches[0].base_sequence), (1, 3, NO_SEQUENCE));
        let read = RecordBatchDecoder::decode(&mut encoded).unwrap().records;
        let keys: Vec<_> = read.iter().map(|it| it.key.clone().unwrap()).collect();
        assert_eq!(keys, ["a", "b", "c"]);
        assert_eq!(read[1].headers, records[1].headers);
        assert!(
            size(&records[0]) >= partitions[1].records.as_ref().unwrap().len() - 61,
            "except for the header of the batch"
        );
    }
}
