#![no_main]
//! Answers of a Kafka broker: what is read of them is what Kafka's own schemas say.

use bytes::{Bytes, BytesMut};
use credence::kafka_answers::{Question, read};
use credence_fuzz::edited;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_acls_response::AclCreationResult;
use kafka_protocol::messages::delete_acls_response::{DeleteAclsFilterResult, DeleteAclsMatchingAcl};
use kafka_protocol::messages::describe_acls_response::{AclDescription, DescribeAclsResource};
use kafka_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::produce_response::{
    BatchIndexAndErrorMessage, PartitionProduceResponse, TopicProduceResponse,
};
use kafka_protocol::messages::{
    ApiVersionsRequest, CreateAclsRequest, CreateAclsResponse, DeleteAclsRequest, DeleteAclsResponse,
    DescribeAclsRequest, DescribeAclsResponse, DescribeClusterRequest, DescribeClusterResponse, MetadataRequest,
    MetadataResponse, ProduceRequest, ProduceResponse, TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use libfuzzer_sys::fuzz_target;

/// Reads the input itself as an answer, or a valid answer with edits; the schemas' own decoder decides whether that was right.
/// It allocates what an answer announces, so it sees only what was read already.
fn check<Q: Question>(data: &[u8], valid: Q::Response, is_same: impl Fn(&Q::Answer, &Q::Response) -> bool) {
    let Some((how, rest)) = data.split_first() else { return };
    let version = if how & 2 == 0 { Q::SENT_IN.0 } else { Q::SENT_IN.1 };
    let body = if how & 1 == 0 {
        rest.to_vec()
    } else {
        let mut body = BytesMut::new();
        valid.encode(&mut body, version).unwrap();
        edited(&body, rest)
    };
    let Ok(ours) = read::<Q>(&body) else { return };
    let mut left = Bytes::from(body);
    if let Ok(theirs) = Q::Response::decode(&mut left, version) {
        assert!(left.is_empty(), "bytes behind the answer were accepted");
        assert!(is_same(&ours, &theirs), "the answer was read as another one");
    }
}

fn text() -> StrBytes {
    StrBytes::from_static_str("name")
}

fuzz_target!(|data: &[u8]| {
    let Some((which, data)) = data.split_first() else { return };
    match which % 7 {
        // Its tagged fields have lists of their own, which are skipped here and decoded there.
        0 => drop(read::<ApiVersionsRequest>(data)),
        1 => {
            let broker = DescribeClusterBroker::default().with_host(text());
            let valid = DescribeClusterResponse::default().with_cluster_id(text()).with_brokers(vec![broker; 2]);
            check::<DescribeClusterRequest>(data, valid, |(verdict, facts), theirs| {
                verdict.code == theirs.error_code && facts.brokers as usize == theirs.brokers.len()
            });
        }
        2 => {
            let acl = AclDescription::default().with_principal(text()).with_host(StrBytes::from_static_str("*"));
            let acl = acl.with_operation(3).with_permission_type(3);
            let resource = DescribeAclsResource::default().with_resource_type(2).with_resource_name(text());
            let resource = resource.with_pattern_type(3).with_acls(vec![acl; 2]);
            let valid = DescribeAclsResponse::default().with_resources(vec![resource]);
            check::<DescribeAclsRequest>(data, valid, |(verdict, listed), theirs| {
                let count: usize = theirs.resources.iter().map(|resource| resource.acls.len()).sum();
                verdict.code == theirs.error_code && listed.bindings.len() + listed.foreign.len() <= count
            });
        }
        3 => {
            let result = AclCreationResult::default().with_error_message(Some(text()));
            let valid = CreateAclsResponse::default().with_results(vec![result; 2]);
            check::<CreateAclsRequest>(data, valid, |ours, theirs| {
                ours.iter().map(|it| it.code).eq(theirs.results.iter().map(|it| it.error_code))
            });
        }
        4 => {
            let matched = DeleteAclsMatchingAcl::default().with_resource_name(text()).with_principal(text());
            let result = DeleteAclsFilterResult::default().with_matching_acls(vec![matched; 2]);
            let valid = DeleteAclsResponse::default().with_filter_results(vec![result]);
            check::<DeleteAclsRequest>(data, valid, |ours, theirs| ours.len() == theirs.filter_results.len());
        }
        5 => {
            let broker = MetadataResponseBroker::default().with_host(text()).with_port(9092);
            let partition = MetadataResponsePartition::default().with_replica_nodes(vec![0.into(); 2]);
            let topic = MetadataResponseTopic::default().with_name(Some(TopicName(text())));
            let topic = topic.with_partitions(vec![partition; 2]);
            let valid = MetadataResponse::default().with_brokers(vec![broker; 2]).with_topics(vec![topic]);
            check::<MetadataRequest>(data, valid, |ours, theirs| {
                let error = theirs.topics.first().map(|topic| topic.error_code);
                ours.is_err() || error == Some(0)
            });
        }
        _ => {
            let record = BatchIndexAndErrorMessage::default().with_batch_index_error_message(Some(text()));
            let partition = PartitionProduceResponse::default().with_record_errors(vec![record; 2]);
            let topic = TopicProduceResponse::default().with_name(TopicName(text()));
            let topic = topic.with_partition_responses(vec![partition; 2]);
            let valid = ProduceResponse::default().with_responses(vec![topic]);
            check::<ProduceRequest>(data, valid, |ours, theirs| {
                let mut partitions = theirs.responses.iter().flat_map(|topic| &topic.partition_responses);
                partitions.all(|it| ours.contains_key(&it.index))
                    && ours.values().flatten().all(|error| *error != ResponseError::Unknown(0))
            });
        }
    }
});
