//! A Kafka broker that a test plays: it answers as a broker does, except for requests whose answer the test sets.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::create_acls_request::AclCreation;
use kafka_protocol::messages::create_acls_response::AclCreationResult;
use kafka_protocol::messages::delete_acls_response::DeleteAclsFilterResult;
use kafka_protocol::messages::describe_acls_response::{AclDescription, DescribeAclsResource};
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
use kafka_protocol::messages::{
    ApiKey, ApiVersionsResponse, CreateAclsRequest, CreateAclsResponse, DeleteAclsRequest, DeleteAclsResponse,
    DescribeAclsResponse, DescribeClusterResponse, MetadataRequest, MetadataResponse, ProduceRequest, ProduceResponse,
    RequestHeader, ResponseHeader,
};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use parking_lot::Mutex;
use rcgen::{CertificateParams, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use crate::bed::{Bed, broker_connection, with};

/// The bytes after the correlation ID that are sent in place of a good answer.
#[derive(Clone)]
pub enum Reply {
    /// A frame with this body.
    Body(Vec<u8>),
    /// These bytes instead of a frame; then the connection is closed.
    Raw(Vec<u8>),
    /// A frame of this length that holds nothing but zeros, for as long as somebody reads.
    Endless(i32),
    /// A good answer to another request.
    OtherRequest,
}

#[derive(Default)]
struct Shared {
    /// The request that is not answered well, and how it is.
    hostile: Mutex<Option<(ApiKey, Reply)>>,
    /// The address that metadata announces for the only broker; the peer's own if there is none.
    announced: Mutex<Option<(String, u16)>>,
    acls: Mutex<Vec<AclCreation>>,
    written: AtomicU32,
}

pub struct Peer {
    pub port: u16,
    ca: String,
    admin: (String, String),
    shared: Arc<Shared>,
}

impl Peer {
    pub async fn start() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let ca = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        let issue = || {
            let key = KeyPair::generate().unwrap();
            let params = CertificateParams::new(vec!["127.0.0.1".to_owned(), "localhost".to_owned()]).unwrap();
            (params.signed_by(&key, &issuer).unwrap(), key)
        };
        let ((certificate, key), (admin, admin_key)) = (issue(), issue());
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (acceptor, shared) = (TlsAcceptor::from(Arc::new(tls)), Arc::new(Shared::default()));
        let served = shared.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(acceptor.clone(), stream, served.clone(), port));
            }
        });
        Self { port, ca, admin: (admin.pem(), admin_key.serialize_pem()), shared }
    }

    /// Makes a `BrokerConnection` of this name to it, with its Secret.
    pub async fn connect(&self, bed: &Bed, name: &str) {
        self.connect_at(bed, name, &format!("127.0.0.1:{}", self.port)).await;
    }

    /// Makes a `BrokerConnection` with its credentials to this address.
    pub async fn connect_at(&self, bed: &Bed, name: &str, address: &str) {
        let encode = |text: &str| STANDARD.encode(text);
        bed.apply(json!({"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
            "metadata": {"name": name, "namespace": "credence-system"},
            "data": {"tls.crt": encode(&self.admin.0), "tls.key": encode(&self.admin.1), "ca.crt": encode(&self.ca)}}))
            .await
            .unwrap();
        let connection = broker_connection(name, address);
        bed.apply(with(connection, "/spec/kafka/adminSecretRef/name", json!(name))).await.unwrap();
    }

    /// Answers a request in this way from now on, and every other one well.
    pub fn answer(&self, request: ApiKey, reply: Reply) {
        *self.shared.hostile.lock() = Some((request, reply));
    }

    /// Answers every request well from now on.
    pub fn behave(&self) {
        *self.shared.hostile.lock() = None;
    }

    /// Announces this address in metadata.
    pub fn announce(&self, host: &str, port: u16) {
        *self.shared.announced.lock() = Some((host.to_owned(), port));
    }

    /// How many batches of records were accepted.
    pub fn written(&self) -> u32 {
        self.shared.written.load(Ordering::Relaxed)
    }
}

async fn serve(acceptor: TlsAcceptor, stream: TcpStream, shared: Arc<Shared>, port: u16) {
    let Ok(mut stream) = acceptor.accept(stream).await else { return };
    while let Ok(size) = stream.read_u32().await {
        let mut request = vec![0; size as usize];
        if stream.read_exact(&mut request).await.is_err() {
            return;
        }
        let mut request = Bytes::from(request);
        let (key, version) = ((&request[..2]).get_i16(), (&request[2..4]).get_i16());
        let key = ApiKey::try_from(key).unwrap();
        let header = RequestHeader::decode(&mut request, key.request_header_version(version)).unwrap();
        let hostile = shared.hostile.lock().clone().filter(|(asked, _)| *asked == key).map(|(_, reply)| reply);
        let (mut correlation, mut body) = (header.correlation_id, BytesMut::new());
        match hostile {
            Some(Reply::Raw(bytes)) => {
                let _ = stream.write_all(&bytes).await;
                let _ = stream.shutdown().await;
                return;
            }
            Some(Reply::Endless(length)) => {
                let _ = stream.write_i32(length).await;
                // As many bytes as nobody may keep, or until the other side has enough.
                let zeros = vec![0; 1 << 16];
                for _ in 0..4096 {
                    let sent = timeout(Duration::from_secs(5), stream.write_all(&zeros)).await;
                    if !matches!(sent, Ok(Ok(()))) {
                        return;
                    }
                }
                return;
            }
            Some(Reply::Body(bytes)) => body.extend_from_slice(&bytes),
            Some(Reply::OtherRequest) => {
                correlation ^= 1;
                good(&shared, port, key, version, &mut request, &mut body);
            }
            None => good(&shared, port, key, version, &mut request, &mut body),
        }
        let mut frame = BytesMut::new();
        ResponseHeader::default()
            .with_correlation_id(correlation)
            .encode(&mut frame, key.response_header_version(version))
            .unwrap();
        frame.extend_from_slice(&body);
        let mut sent = BytesMut::new();
        sent.put_u32(u32::try_from(frame.len()).unwrap());
        sent.extend_from_slice(&frame);
        if stream.write_all(&sent).await.is_err() {
            return;
        }
    }
}

/// Writes the body of a good answer.
fn good(shared: &Shared, port: u16, key: ApiKey, version: i16, request: &mut Bytes, body: &mut BytesMut) {
    let text = |text: &str| StrBytes::from_string(text.to_owned());
    match key {
        ApiKey::ApiVersions => {
            let api =
                |key: ApiKey| ApiVersion::default().with_api_key(key as i16).with_min_version(0).with_max_version(12);
            let keys = [
                ApiKey::Produce,
                ApiKey::Metadata,
                ApiKey::DescribeAcls,
                ApiKey::CreateAcls,
                ApiKey::DeleteAcls,
                ApiKey::DescribeCluster,
            ];
            ApiVersionsResponse::default().with_api_keys(keys.map(api).into()).encode(body, version).unwrap();
        }
        ApiKey::DescribeCluster => {
            let answer = DescribeClusterResponse::default().with_cluster_id(text("peer"));
            answer.with_cluster_authorized_operations(-1).encode(body, version).unwrap();
        }
        ApiKey::DescribeAcls => {
            let listed = |acl: &AclCreation| {
                let description = AclDescription::default()
                    .with_principal(acl.principal.clone())
                    .with_host(acl.host.clone())
                    .with_operation(acl.operation)
                    .with_permission_type(acl.permission_type);
                DescribeAclsResource::default()
                    .with_resource_type(acl.resource_type)
                    .with_resource_name(acl.resource_name.clone())
                    .with_pattern_type(acl.resource_pattern_type)
                    .with_acls(vec![description])
            };
            let resources = shared.acls.lock().iter().map(listed).collect();
            DescribeAclsResponse::default().with_resources(resources).encode(body, version).unwrap();
        }
        ApiKey::CreateAcls => {
            let creations = CreateAclsRequest::decode(request, version).unwrap().creations;
            let results = vec![AclCreationResult::default(); creations.len()];
            shared.acls.lock().extend(creations);
            CreateAclsResponse::default().with_results(results).encode(body, version).unwrap();
        }
        ApiKey::DeleteAcls => {
            let filters = DeleteAclsRequest::decode(request, version).unwrap().filters;
            shared.acls.lock().retain(|acl| {
                !filters.iter().any(|filter| {
                    filter.principal_filter.as_ref() == Some(&acl.principal)
                        && filter.resource_name_filter.as_ref() == Some(&acl.resource_name)
                        && filter.operation == acl.operation
                })
            });
            let results = vec![DeleteAclsFilterResult::default(); filters.len()];
            DeleteAclsResponse::default().with_filter_results(results).encode(body, version).unwrap();
        }
        ApiKey::Metadata => {
            let name = MetadataRequest::decode(request, version).unwrap().topics.unwrap().remove(0).name;
            let (host, port) = shared.announced.lock().clone().unwrap_or_else(|| ("127.0.0.1".to_owned(), port));
            let broker = MetadataResponseBroker::default().with_node_id(1.into()).with_host(text(&host));
            let partition = MetadataResponsePartition::default().with_leader_id(1.into());
            let topic = MetadataResponseTopic::default().with_name(name).with_partitions(vec![partition]);
            let answer = MetadataResponse::default().with_brokers(vec![broker.with_port(port.into())]);
            answer.with_topics(vec![topic]).encode(body, version).unwrap();
        }
        ApiKey::Produce => {
            let topic = ProduceRequest::decode(request, version).unwrap().topic_data.remove(0);
            let partition = PartitionProduceResponse::default().with_index(topic.partition_data[0].index);
            let topic = TopicProduceResponse::default().with_name(topic.name).with_partition_responses(vec![partition]);
            shared.written.fetch_add(1, Ordering::Relaxed);
            ProduceResponse::default().with_responses(vec![topic]).encode(body, version).unwrap();
        }
        other => panic!("{other:?} is not expected"),
    }
}
