//! What is read of Kafka's answers. Each request is sent in versions whose answers have one form, so that each form is written
//! once; Kafka 2.8 and later have all of them. Pure.

use std::collections::{BTreeMap, HashMap};

use kafka_protocol::ResponseError;
use kafka_protocol::messages::{
    ApiVersionsRequest, CreateAclsRequest, DeleteAclsRequest, DescribeAclsRequest, DescribeClusterRequest,
    MetadataRequest, ProduceRequest,
};
use kafka_protocol::protocol::Request;

use super::acl;
use super::reader::{Malformed, Reader};
use super::topology::Topology;
use crate::brokers::{ClusterFacts, Holdings};
use crate::domain::text::foreign;

/// A request whose answer is read.
pub trait Question: Request {
    /// The oldest and the newest version in which it is sent.
    const SENT_IN: (i16, i16);
    /// The largest answer that is read, in bytes.
    const MAX_ANSWER: usize;
    /// What is read of the answer.
    type Answer: Send + 'static;

    /// Reads the answer, without its header.
    fn read(body: &mut Reader<'_>) -> Result<Self::Answer, Malformed>;
}

/// An error in an answer, or none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// The code, 0 for none.
    pub code: i16,
    /// What the broker says, cut; empty if it says nothing.
    pub message: String,
}

impl Verdict {
    fn read(body: &mut Reader<'_>) -> Result<Self, Malformed> {
        let code = body.i16()?;
        Ok(Self { code, message: foreign(body.nullable_text()?.unwrap_or_default()) })
    }
}

/// The oldest and the newest version of each request that a broker supports, by the key of the request.
pub type Versions = HashMap<i16, (i16, i16)>;

impl Question for ApiVersionsRequest {
    const SENT_IN: (i16, i16) = (3, 3);
    const MAX_ANSWER: usize = 256 << 10;
    type Answer = Versions;

    fn read(body: &mut Reader<'_>) -> Result<Versions, Malformed> {
        let mut versions = Versions::new();
        let _error = body.i16()?;
        body.structs(|api| {
            versions.insert(api.i16()?, (api.i16()?, api.i16()?));
            Ok(())
        })?;
        let _throttle_time = body.i32()?;
        body.tags()?;
        Ok(versions)
    }
}

impl Question for DescribeClusterRequest {
    const SENT_IN: (i16, i16) = (0, 0);
    const MAX_ANSWER: usize = 4 << 20;
    type Answer = (Verdict, ClusterFacts);

    fn read(body: &mut Reader<'_>) -> Result<Self::Answer, Malformed> {
        let _throttle_time = body.i32()?;
        let verdict = Verdict::read(body)?;
        let cluster_id = Some(foreign(body.text()?));
        let _controller = body.i32()?;
        let mut brokers = 0;
        body.structs(|broker| {
            broker.i32()?;
            broker.text()?;
            broker.i32()?;
            broker.nullable_text()?;
            brokers += 1;
            Ok(())
        })?;
        let operations = body.i32()?;
        body.tags()?;
        Ok((verdict, ClusterFacts { cluster_id, brokers, may_alter: operations & (1 << acl::ALTER) != 0 }))
    }
}

impl Question for DescribeAclsRequest {
    const SENT_IN: (i16, i16) = (2, 3);
    const MAX_ANSWER: usize = 64 << 20;
    type Answer = (Verdict, Holdings);

    fn read(body: &mut Reader<'_>) -> Result<Self::Answer, Malformed> {
        let _throttle_time = body.i32()?;
        let verdict = Verdict::read(body)?;
        let holdings = acl::read(body)?;
        body.tags()?;
        Ok((verdict, holdings))
    }
}

impl Question for CreateAclsRequest {
    const SENT_IN: (i16, i16) = (2, 3);
    const MAX_ANSWER: usize = 4 << 20;
    /// For each ACL, in the order of the request.
    type Answer = Vec<Verdict>;

    fn read(body: &mut Reader<'_>) -> Result<Self::Answer, Malformed> {
        let mut results = Vec::new();
        let _throttle_time = body.i32()?;
        body.structs(|result| {
            results.push(Verdict::read(result)?);
            Ok(())
        })?;
        body.tags()?;
        Ok(results)
    }
}

impl Question for DeleteAclsRequest {
    const SENT_IN: (i16, i16) = (2, 3);
    const MAX_ANSWER: usize = 4 << 20;
    /// For each filter, in the order of the request: its own error, or that of the first ACL that was not deleted.
    type Answer = Vec<Verdict>;

    fn read(body: &mut Reader<'_>) -> Result<Self::Answer, Malformed> {
        let mut results = Vec::new();
        let _throttle_time = body.i32()?;
        body.structs(|result| {
            let mut verdict = Verdict::read(result)?;
            result.structs(|matched| {
                let own = Verdict::read(matched)?;
                if verdict.code == 0 {
                    verdict = own;
                }
                let _resource_type = matched.i8()?;
                matched.text()?;
                let _pattern_type = matched.i8()?;
                let _principal = matched.text()?;
                let _host = matched.text()?;
                let _operation = matched.i8()?;
                let _permission_type = matched.i8()?;
                Ok(())
            })?;
            results.push(verdict);
            Ok(())
        })?;
        body.tags()?;
        Ok(results)
    }
}

impl Question for MetadataRequest {
    const SENT_IN: (i16, i16) = (9, 9);
    const MAX_ANSWER: usize = 4 << 20;
    type Answer = Result<Topology, ResponseError>;

    fn read(body: &mut Reader<'_>) -> Result<Self::Answer, Malformed> {
        let _throttle_time = body.i32()?;
        let topology = Topology::read(body)?;
        let _cluster_operations = body.i32()?;
        body.tags()?;
        Ok(topology)
    }
}

impl Question for ProduceRequest {
    const SENT_IN: (i16, i16) = (9, 9);
    const MAX_ANSWER: usize = 4 << 20;
    /// The result of the batch of each partition: `None` when it was written.
    type Answer = BTreeMap<i32, Option<ResponseError>>;

    fn read(body: &mut Reader<'_>) -> Result<Self::Answer, Malformed> {
        let mut results = BTreeMap::new();
        body.structs(|topic| {
            topic.text()?;
            topic.structs(|partition| {
                results.insert(partition.i32()?, ResponseError::try_from_code(partition.i16()?));
                // The base offset, the time of the append, and the start of the log.
                partition.skip(3 * size_of::<i64>())?;
                partition.structs(|record_error| {
                    record_error.i32()?;
                    record_error.nullable_text().map(|_| ())
                })?;
                partition.nullable_text().map(|_| ())
            })
        })?;
        let _throttle_time = body.i32()?;
        body.tags()?;
        Ok(results)
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use kafka_protocol::messages::api_versions_response::ApiVersion;
    use kafka_protocol::messages::create_acls_response::AclCreationResult;
    use kafka_protocol::messages::delete_acls_response::{DeleteAclsFilterResult, DeleteAclsMatchingAcl};
    use kafka_protocol::messages::describe_cluster_response::DescribeClusterBroker;
    use kafka_protocol::messages::produce_response::{
        BatchIndexAndErrorMessage, PartitionProduceResponse, TopicProduceResponse,
    };
    use kafka_protocol::messages::{
        ApiVersionsResponse, CreateAclsResponse, DeleteAclsResponse, DescribeClusterResponse, ProduceResponse,
    };
    use kafka_protocol::protocol::{Encodable, StrBytes};

    use super::*;

    fn read<Q: Question>(bytes: &[u8]) -> Result<Q::Answer, Malformed> {
        let mut reader = Reader::new(bytes);
        let answer = Q::read(&mut reader)?;
        reader.end().map(|()| answer)
    }

    /// What is read of an answer, in every version in which it may come; and nothing of any part of it.
    fn read_all<Q: Question>(answer: &Q::Response) -> Q::Answer {
        let (first, last) = Q::SENT_IN;
        let mut answers = (first..=last).map(|version| {
            let mut bytes = BytesMut::new();
            answer.encode(&mut bytes, version).unwrap();
            for end in 0..bytes.len() {
                assert!(read::<Q>(&bytes[..end]).is_err(), "{end} bytes of {}", bytes.len());
            }
            let longer = [&bytes[..], &[0]].concat();
            assert_eq!(read::<Q>(&longer).err(), Some(Malformed::Trailing));
            read::<Q>(&bytes).unwrap()
        });
        answers.next_back().unwrap()
    }

    fn text(text: &'static str) -> StrBytes {
        StrBytes::from_static_str(text)
    }

    #[test]
    fn answers_are_read_as_kafkas_schemas_write_them() {
        let api = |key, min, max| ApiVersion::default().with_api_key(key).with_min_version(min).with_max_version(max);
        let versions = ApiVersionsResponse::default().with_api_keys(vec![api(0, 3, 13), api(3, 0, 12)]);
        assert_eq!(read_all::<ApiVersionsRequest>(&versions), Versions::from([(0, (3, 13)), (3, (0, 12))]));

        let broker = DescribeClusterBroker::default().with_host(text("kafka")).with_rack(Some(text("a")));
        let cluster = DescribeClusterResponse::default()
            .with_cluster_id(text("one"))
            .with_brokers(vec![broker; 3])
            .with_cluster_authorized_operations(1 << acl::ALTER);
        let facts = ClusterFacts { cluster_id: Some("one".into()), brokers: 3, may_alter: true };
        assert_eq!(read_all::<DescribeClusterRequest>(&cluster), (Verdict::default(), facts));

        let created = AclCreationResult::default();
        let refused = created.clone().with_error_code(87).with_error_message(Some(text("no\tsuch name")));
        let refused_verdict = Verdict { code: 87, message: "no\\tsuch name".into() };
        let answer = CreateAclsResponse::default().with_results(vec![created, refused]);
        assert_eq!(read_all::<CreateAclsRequest>(&answer), [Verdict::default(), refused_verdict.clone()]);

        let deleted = DeleteAclsMatchingAcl::default().with_principal(text("User:CN=x"));
        let kept = deleted.clone().with_error_code(87).with_error_message(Some(text("no\tsuch name")));
        let some = DeleteAclsFilterResult::default().with_matching_acls(vec![deleted, kept]);
        let none = DeleteAclsFilterResult::default();
        let answer = DeleteAclsResponse::default().with_filter_results(vec![some, none]);
        assert_eq!(read_all::<DeleteAclsRequest>(&answer), [refused_verdict, Verdict::default()]);

        let partition = |index, error| {
            let record = BatchIndexAndErrorMessage::default().with_batch_index_error_message(Some(text("why")));
            PartitionProduceResponse::default()
                .with_index(index)
                .with_error_code(error)
                .with_record_errors(vec![record])
                .with_error_message(Some(text("why")))
        };
        let topic = TopicProduceResponse::default().with_partition_responses(vec![partition(4, 0), partition(7, 10)]);
        let answer = ProduceResponse::default().with_responses(vec![topic]);
        let results = BTreeMap::from([(4, None), (7, Some(ResponseError::MessageTooLarge))]);
        assert_eq!(read_all::<ProduceRequest>(&answer), results);
    }

    #[test]
    fn no_number_of_elements_is_believed() {
        fn refused<Q: Question>(begin: &[&[u8]]) {
            let many = [0xff, 0xff, 0xff, 0xff, 0x0f];
            let bytes = [&begin.concat(), &many[..], &[0; 8]].concat();
            assert!(matches!(read::<Q>(&bytes), Err(Malformed::Truncated | Malformed::Null)), "{bytes:x?}");
        }
        let (code, verdict, four, eight): (&[u8], &[u8], &[u8], &[u8]) = (&[0; 2], &[0; 3], &[0; 4], &[0; 8]);
        let (name, null, one): (&[u8], &[u8], &[u8]) = (&[2, b'x'], &[0], &[2]);
        refused::<ApiVersionsRequest>(&[code]);
        refused::<DescribeClusterRequest>(&[four, verdict, name, four]);
        refused::<DescribeAclsRequest>(&[four, verdict]);
        refused::<DescribeAclsRequest>(&[four, verdict, one, &[2], name, &[3]]);
        refused::<CreateAclsRequest>(&[four]);
        refused::<DeleteAclsRequest>(&[four]);
        refused::<DeleteAclsRequest>(&[four, one, verdict]);
        let topics = [four, &[1], null, four];
        refused::<MetadataRequest>(&[four]);
        refused::<MetadataRequest>(&topics);
        let partitions = [&topics[..], &[one, code, name, null]].concat();
        refused::<MetadataRequest>(&partitions);
        refused::<MetadataRequest>(&[&partitions[..], &[one, code, four, four, four]].concat());
        refused::<ProduceRequest>(&[]);
        refused::<ProduceRequest>(&[one, name]);
        refused::<ProduceRequest>(&[one, name, one, four, code, eight, eight, eight]);
    }
}
