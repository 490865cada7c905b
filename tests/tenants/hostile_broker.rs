//! A broker that sends what no broker sends, to the operator and to the edge.

use futures::future::join_all;
use kafka_protocol::messages::ApiKey;
use serde_json::{Value, json};

use crate::bed::{Bed, identity, manifest, policy, unique, until, with};
use crate::hooks::{Sender, signing_key};
use crate::kafka_peer::{Peer, Reply};
use crate::tenant::{Victim, publish};

/// The greatest number of elements that can be written (KIP-482).
const MANY: [u8; 5] = [0xff, 0xff, 0xff, 0xff, 0x0f];

/// An answer that begins like this and then announces more elements than there are bytes in the world.
fn many(begin: &[u8]) -> Reply {
    Reply::Body([begin, &MANY, &[0; 8]].concat())
}

/// Creates an identity and waits for its certificate: the operator works.
async fn operator_works(bed: &Bed, namespace: &str) {
    let name = unique("beside");
    bed.apply(identity(namespace, &name, &[])).await.unwrap();
    bed.ready("ServiceIdentity", Some(namespace), &name).await;
}

async fn reports(bed: &Bed, broker: &str, text: &str) {
    let refused = ("False", "BrokerUnreachable");
    let object = bed.condition("BrokerConnection", None, broker, "Connected", refused).await;
    let status = object.data["status"].to_string();
    assert!(status.contains(text), "{broker}: {status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_answer_of_a_broker_ends_the_operator() {
    let bed = Bed::open().await;
    let victim = Victim::new(&bed, "bytes").await;
    let endings = [
        // Length, correlation ID, error, and the number of elements: 23 bytes.
        (ApiKey::ApiVersions, many(&[0; 2]), "cannot read the answer to ApiVersions"),
        (ApiKey::ApiVersions, Reply::Raw(vec![0x7f, 0xff, 0xff, 0xff]), "and at most 262144 are read"),
        (ApiKey::ApiVersions, Reply::Raw(vec![0xff; 4]), "and at most 262144 are read"),
        (ApiKey::ApiVersions, Reply::Raw(vec![0, 0, 0, 9, 0]), "the server closed the connection"),
        (ApiKey::ApiVersions, Reply::Raw(vec![]), "the server closed the connection"),
        (ApiKey::ApiVersions, Reply::OtherRequest, "the answer belongs to another request"),
        (ApiKey::ApiVersions, Reply::Endless(i32::MAX), "and at most 262144 are read"),
        (ApiKey::ApiVersions, Reply::Endless(256 << 10), "the answer belongs to another request"),
        (ApiKey::DescribeCluster, many(&[0, 0, 0, 0, 0, 0, 0, 2, b'x', 0, 0, 0, 0]), "the answer to DescribeCluster"),
        (ApiKey::DescribeCluster, Reply::Body(vec![0xff; 64]), "cannot read the answer to DescribeCluster"),
        (ApiKey::DescribeAcls, many(&[0; 7]), "cannot read the answer to DescribeAcls"),
        (ApiKey::DescribeAcls, many(&[0, 0, 0, 0, 0, 0, 0, 2, 2, 2, b'x', 3]), "the answer to DescribeAcls"),
        (ApiKey::DescribeAcls, Reply::Endless(64 << 20), "the answer belongs to another request"),
    ];
    let cases = endings.map(|(request, reply, text)| {
        let (bed, name) = (&bed, unique("bytes"));
        async move {
            let peer = Peer::start().await;
            peer.answer(request, reply);
            peer.connect(bed, &name).await;
            reports(bed, &name, text).await;
            (peer, name)
        }
    });
    let peers = join_all(cases).await;
    operator_works(&bed, &victim.namespace).await;
    victim.is_well(&bed).await;
    let recoveries = peers.iter().map(|(peer, name)| {
        peer.behave();
        bed.ready("BrokerConnection", None, name)
    });
    join_all(recoveries).await;
    join_all(peers.iter().map(|(_, name)| bed.delete("BrokerConnection", None, name))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_to_changes_end_no_operator_either() {
    let bed = Bed::open().await;
    let victim = Victim::new(&bed, "changes").await;
    let (peer, broker) = (Peer::start().await, unique("changes"));
    peer.connect(&bed, &broker).await;
    bed.ready("BrokerConnection", None, &broker).await;
    let namespace = bed.namespace("changes").await;
    bed.apply(identity(&namespace, "app", &[&broker])).await.unwrap();
    bed.ready("ServiceIdentity", Some(&namespace), "app").await;

    peer.answer(ApiKey::CreateAcls, many(&[0; 4]));
    let wanted = with(policy(&namespace, "app", "sandbox.changes", publish("app")), "/spec/broker", json!(broker));
    bed.apply(wanted).await.unwrap();
    reports(&bed, &broker, "cannot read the answer to CreateAcls").await;
    operator_works(&bed, &victim.namespace).await;
    peer.behave();
    bed.ready("TopicPolicy", Some(&namespace), "app").await;

    peer.answer(ApiKey::DeleteAcls, many(&[0, 0, 0, 0, 2, 0, 0, 0]));
    bed.delete("TopicPolicy", Some(&namespace), "app").await;
    reports(&bed, &broker, "cannot read the answer to DeleteAcls").await;
    operator_works(&bed, &victim.namespace).await;
    peer.behave();
    until("the policy to be deleted", || async {
        let left = bed.get("TopicPolicy", Some(&namespace), "app").await;
        left.map_or(Ok(()), |left| Err(left.data["status"].to_string()))
    })
    .await;
    victim.is_well(&bed).await;
    bed.delete("BrokerConnection", None, &broker).await;
}

/// An endpoint that writes to a topic of this broker.
fn to_topic(namespace: &str, broker: &str) -> Value {
    let kafka = json!({"broker": broker, "serviceIdentity": "app", "topic": "sandbox.bytes", "attempts": 1});
    let spec = json!({"path": format!("/{namespace}/tok"), "verification": {"standardWebhooks": {}},
        "target": {"kafka": kafka}});
    manifest("WebhookEndpoint", Some(namespace), "tok", spec)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_answer_of_a_broker_ends_the_edge() {
    let bed = Bed::open().await;
    let (peer, broker) = (Peer::start().await, unique("edge-bytes"));
    peer.connect(&bed, &broker).await;
    bed.ready("BrokerConnection", None, &broker).await;
    let namespace = bed.namespace("edge-bytes").await;
    bed.apply(identity(&namespace, "app", &[&broker])).await.unwrap();
    bed.ready("ServiceIdentity", Some(&namespace), "app").await;
    bed.apply(to_topic(&namespace, &broker)).await.unwrap();
    bed.ready("WebhookEndpoint", Some(&namespace), "tok").await;
    let (key, sender) = (signing_key(&bed, &namespace, "tok").await, Sender::new(&bed, bed.env("EDGE_URL")));
    let path = format!("/{namespace}/tok");
    // The edge has no connection for reserve: a new one begins with ApiVersions, then Metadata, then another with Produce.
    let partitions = [0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 2, 0, 0, 2, b'x', 0];
    for (index, (request, reply)) in [
        (ApiKey::ApiVersions, many(&[0; 2])),
        (ApiKey::ApiVersions, Reply::Raw(vec![0x7f, 0xff, 0xff, 0xff])),
        (ApiKey::ApiVersions, Reply::Endless(i32::MAX)),
        (ApiKey::ApiVersions, Reply::OtherRequest),
        (ApiKey::Metadata, many(&[0; 4])),
        (ApiKey::Metadata, many(&[0, 0, 0, 0, 1, 0, 0, 0, 0, 0])),
        (ApiKey::Metadata, many(&partitions)),
        (ApiKey::Metadata, Reply::Endless(4 << 20)),
        (ApiKey::Produce, many(&[])),
        (ApiKey::Produce, many(&[2, 2, b'x'])),
        (ApiKey::Produce, Reply::Raw(vec![0, 0, 0, 9, 0])),
    ]
    .into_iter()
    .enumerate()
    {
        peer.answer(request, reply);
        let status = sender.send(&path, &key, &format!("hostile-{index}"), "{}").await.unwrap();
        assert_eq!(status, 502, "{request:?} {index}");
        // What an unreadable answer teaches is used for a moment.
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    peer.behave();
    let status = sender.send(&path, &key, "good", "{}").await.unwrap();
    assert_eq!((status.as_u16(), peer.written()), (200, 1));
    bed.delete("WebhookEndpoint", Some(&namespace), "tok").await;
    bed.delete("ServiceIdentity", Some(&namespace), "app").await;
    bed.delete("BrokerConnection", None, &broker).await;
}
