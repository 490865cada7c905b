//! A broker that the test plays: it speaks Kafka's protocol, has no ACLs, and refuses to create any, each time with another text.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::create_acls_response::AclCreationResult;
use kafka_protocol::messages::{
    ApiKey, ApiVersionsResponse, CreateAclsRequest, CreateAclsResponse, DeleteAclsRequest, DescribeAclsRequest,
    DescribeAclsResponse, DescribeClusterRequest, DescribeClusterResponse, RequestHeader, ResponseHeader,
};
use kafka_protocol::protocol::{Decodable, Encodable, Message, StrBytes};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls_pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

pub struct RefusingBroker {
    pub address: String,
    /// The data of an admin Secret that connects to it.
    pub admin: Value,
    /// How often it was asked to create ACLs.
    pub asked: Arc<AtomicU32>,
}

impl RefusingBroker {
    pub async fn start() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = params.self_signed(&key).unwrap();
        let issuer = Issuer::new(params, key);
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
        let private = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = ServerConfig::builder().with_no_client_auth();
        let config = config.with_single_cert(vec![leaf.der().clone()], private).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("localhost:{}", listener.local_addr().unwrap().port());
        let (acceptor, asked) = (TlsAcceptor::from(Arc::new(config)), Arc::new(AtomicU32::new(0)));
        let counted = asked.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, asked) = (acceptor.clone(), counted.clone());
                tokio::spawn(async move {
                    let stream = acceptor.accept(stream).await?;
                    serve(stream, &asked).await
                });
            }
        });
        let encoded = |pem: String| json!(STANDARD.encode(pem));
        let admin = json!({
            "tls.crt": encoded(leaf.pem()), "tls.key": encoded(key.serialize_pem()), "ca.crt": encoded(root.pem()),
        });
        Self { address, admin, asked }
    }

    pub fn asked(&self) -> u32 {
        self.asked.load(Ordering::Relaxed)
    }
}

/// Another text each time, with a line break and a control sequence of terminals.
fn rage() -> StrBytes {
    let text = format!("request {:016x} failed\n\u{1b}[31m{}", fastrand::u64(..), "x".repeat(5000));
    StrBytes::from_string(text)
}

async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, asked: &AtomicU32) -> std::io::Result<()> {
    loop {
        let size = stream.read_i32().await?;
        let mut request = vec![0; usize::try_from(size).unwrap()];
        stream.read_exact(&mut request).await?;
        let (key, version) =
            (i16::from_be_bytes([request[0], request[1]]), i16::from_be_bytes([request[2], request[3]]));
        let (key, mut request) = (ApiKey::try_from(key).unwrap(), Bytes::from(request));
        let header = RequestHeader::decode(&mut request, key.request_header_version(version)).unwrap();
        let mut answer = BytesMut::new();
        let own = ResponseHeader::default().with_correlation_id(header.correlation_id);
        own.encode(&mut answer, key.response_header_version(version)).unwrap();
        match key {
            ApiKey::ApiVersions => versions().encode(&mut answer, version).unwrap(),
            ApiKey::DescribeCluster => {
                let cluster = DescribeClusterResponse::default().with_cluster_id(StrBytes::from_static_str("hostile"));
                cluster.with_cluster_authorized_operations(i32::MAX).encode(&mut answer, version).unwrap();
            }
            ApiKey::DescribeAcls => DescribeAclsResponse::default().encode(&mut answer, version).unwrap(),
            ApiKey::CreateAcls => {
                asked.fetch_add(1, Ordering::Relaxed);
                let wanted = CreateAclsRequest::decode(&mut request, version).unwrap().creations.len();
                let refused = AclCreationResult::default().with_error_code(-1);
                let results = (0..wanted).map(|_| refused.clone().with_error_message(Some(rage()))).collect();
                CreateAclsResponse::default().with_results(results).encode(&mut answer, version).unwrap();
            }
            other => panic!("{other:?} was not expected"),
        }
        let mut frame = BytesMut::new();
        frame.put_i32(i32::try_from(answer.len()).unwrap());
        frame.extend_from_slice(&answer);
        stream.write_all(&frame).await?;
    }
}

fn versions() -> ApiVersionsResponse {
    let version = |key: ApiKey, max: i16| {
        ApiVersion::default().with_api_key(key as i16).with_min_version(0).with_max_version(max)
    };
    ApiVersionsResponse::default().with_api_keys(vec![
        version(ApiKey::ApiVersions, 3),
        version(ApiKey::DescribeCluster, DescribeClusterRequest::VERSIONS.max),
        version(ApiKey::DescribeAcls, DescribeAclsRequest::VERSIONS.max),
        version(ApiKey::CreateAcls, CreateAclsRequest::VERSIONS.max),
        version(ApiKey::DeleteAcls, DeleteAclsRequest::VERSIONS.max),
    ])
}
