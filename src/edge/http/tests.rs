//! A service behind a real front, over real connections.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use rcgen::{CertificateParams, KeyPair};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, HandshakeKind, RootCertStore, SupportedProtocolVersion};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use time::OffsetDateTime;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::source::SourcePolicy;
use super::{Caller, Http, RequestError, Service};
use crate::api::KeyAlgorithm;
use crate::domain::identity::{SpiffeId, Subject};
use crate::edge::front::{
    AuditLog, AuditOptions, Authorities, Front, FrontMetrics, LoadedCertificate, ProcessLimits, WhenFull, Workers,
};
use crate::issuers::authority::{Leaf, LeafRequest, SigningAuthority};
use crate::issuers::pem;
use crate::issuers::self_signed::{make_intermediate, make_root};

/// Answers with the version of HTTP, and who the caller is.
struct WhoAmI {
    trust_domain: ArcSwap<Authorities>,
    refused: Mutex<Vec<RequestError>>,
}

impl Service for WhoAmI {
    async fn call(self: Arc<Self>, caller: Arc<Caller>, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let proven = SourcePolicy::default().prove(&caller, Some(&self.trust_domain.load()), Timestamp::now());
        let answer = format!("{:?} {}", request.version(), proven.identity().unwrap_or("-"));
        Response::new(Full::new(answer.into()))
    }

    fn head_refused(self: Arc<Self>, _caller: &Caller, error: RequestError) {
        self.refused.lock().push(error);
    }

    fn stop(&self) {}

    async fn finished(&self) {}
}

struct Scene {
    address: SocketAddr,
    service: Arc<WhoAmI>,
    roots: RootCertStore,
    leaf: Leaf,
    stop: watch::Sender<bool>,
    serving: JoinHandle<()>,
}

impl Scene {
    async fn new() -> Self {
        let now = Timestamp::now();
        let root = make_root("demo", KeyAlgorithm::Ecdsa, now).unwrap();
        let intermediate =
            make_intermediate("demo", 1, KeyAlgorithm::Ecdsa, &root.certificate, &root.key, now).unwrap();
        let authority =
            SigningAuthority::new(vec![intermediate.certificate], &intermediate.key, vec![root.certificate], now);
        let authority = authority.unwrap();
        let request = LeafRequest {
            spiffe_id: SpiffeId::new("demo", "shop", "orders").unwrap(),
            subject: Subject::new("demo", "shop", "orders"),
            dns_names: vec!["localhost".into()],
            key_algorithm: KeyAlgorithm::Ecdsa,
            lifetime: SignedDuration::from_hours(1),
        };
        let leaf = authority.issue(&request, now).unwrap();
        let bundle = authority.bundle_pem.as_bytes();
        let loaded = LoadedCertificate::parse(leaf.chain_pem.as_bytes(), leaf.key.expose().as_bytes(), bundle).unwrap();
        let workers = Workers::start(NonZeroUsize::MIN, &FrontMetrics::default()).unwrap();
        let file = Some("/dev/null".into());
        let audit = AuditLog::open(AuditOptions { file, max_queued: 1 << 20, when_full: WhenFull::Refuse }).unwrap();
        let front = Arc::new(Front::new(ProcessLimits::read(), audit, FrontMetrics::default(), workers));
        front.install::<Http<WhoAmI>>(&loaded).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopping) = watch::channel(false);
        let service = Arc::new(WhoAmI { trust_domain: loaded.authorities.clone().into(), refused: Mutex::default() });
        let serving = tokio::spawn(front.serve(Http::new(service.clone()), listener, stopping));
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(CertificateDer::pem_slice_iter(bundle).flatten());
        Self { address, service, roots, leaf, stop, serving }
    }

    /// TLS of a client, which presents a certificate or none.
    fn tls(&self, with_certificate: bool) -> ClientConfig {
        self.tls_with(with_certificate.then_some(&self.leaf), rustls::ALL_VERSIONS)
    }

    fn tls_with(&self, leaf: Option<&Leaf>, versions: &[&'static SupportedProtocolVersion]) -> ClientConfig {
        let builder = ClientConfig::builder_with_protocol_versions(versions).with_root_certificates(self.roots.clone());
        let Some(leaf) = leaf else { return builder.with_no_client_auth() };
        let chain = CertificateDer::pem_slice_iter(leaf.chain_pem.as_bytes()).flatten().collect();
        let key = PrivateKeyDer::from_pem_slice(leaf.key.expose().as_bytes()).unwrap();
        builder.with_client_auth_cert(chain, key).unwrap()
    }

    async fn connect(&self, tls: &Arc<ClientConfig>) -> TlsStream<TcpStream> {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(tls.clone()).connect(name, stream).await.unwrap()
    }

    async fn ask(&self, tls: ClientConfig, http2: bool) -> String {
        let builder = HttpsConnectorBuilder::new().with_tls_config(tls).https_only();
        let connector = if http2 { builder.enable_http2().build() } else { builder.enable_http1().build() };
        let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).http2_only(http2).build(connector);
        let uri: Uri = format!("https://localhost:{}/", self.address.port()).parse().unwrap();
        let answer = client.get(uri).await.unwrap().into_body().collect().await.unwrap();
        String::from_utf8(answer.to_bytes().to_vec()).unwrap()
    }

    /// Sends bytes over TLS, and reads the answer to its end.
    async fn send(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect(&Arc::new(self.tls(false))).await;
        // The edge may answer, and close the connection, before it has read everything.
        let _ = stream.write_all(bytes).await;
        let mut answer = Vec::new();
        // The edge may close the connection without a goodbye.
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    }
}

/// Makes a request on a connection, and returns the answer, if there is one.
async fn answer(stream: &mut TlsStream<TcpStream>) -> Option<String> {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.ok()?;
    let mut buffer = [0; 1024];
    let length = stream.read(&mut buffer).await.ok()?;
    let answer = String::from_utf8_lossy(&buffer[..length]).into_owned();
    answer.starts_with("HTTP/1.1 200").then_some(answer)
}

async fn is_answered(stream: &mut TlsStream<TcpStream>) -> bool {
    answer(stream).await.is_some()
}

#[tokio::test]
async fn a_service_learns_who_calls_over_either_version() {
    let scene = Scene::new().await;
    let id = "spiffe://demo/ns/shop/sa/orders";
    assert_eq!(scene.ask(scene.tls(true), false).await, format!("HTTP/1.1 {id}"));
    assert_eq!(scene.ask(scene.tls(true), true).await, format!("HTTP/2.0 {id}"));
    assert_eq!(scene.ask(scene.tls(false), false).await, "HTTP/1.1 -");
}

#[tokio::test]
async fn a_head_that_cannot_be_read_is_answered_and_reported() {
    let scene = Scene::new().await;
    assert!(scene.send(b"POST / HTTP/1.1\r\nA: b\nC: d\r\n\r\n").await.starts_with("HTTP/1.1 400"));
    let long = format!("POST / HTTP/1.1\r\nA: {}\r\n\r\n", "b".repeat(64 << 10));
    assert!(scene.send(long.as_bytes()).await.starts_with("HTTP/1.1 431"));
    let expected = [RequestError::Malformed, RequestError::HeadTooLarge];
    // It is reported on the thread of the connection, after the answer.
    for _ in 0..500 {
        if *scene.service.refused.lock() == expected {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("reported: {:?}", scene.service.refused.lock());
}

#[tokio::test]
async fn a_stop_ends_idle_connections() {
    let scene = Scene::new().await;
    scene.ask(scene.tls(false), true).await;
    scene.stop.send_replace(true);
    tokio::time::timeout(std::time::Duration::from_secs(5), scene.serving).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_connection_ends_with_the_certificate_of_its_caller() {
    let scene = Scene::new().await;
    // The handshake takes any certificate whose key the caller has.
    let mut params = CertificateParams::new(["caller.example".to_owned()]).unwrap();
    params.not_after = OffsetDateTime::now_utc() + time::Duration::seconds(4);
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let short = || {
        let builder = ClientConfig::builder().with_root_certificates(scene.roots.clone());
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        Arc::new(builder.with_client_auth_cert(vec![certificate.der().clone()], key).unwrap())
    };
    let mut with = scene.connect(&short()).await;
    let mut without = scene.connect(&Arc::new(scene.tls(false))).await;
    assert!(is_answered(&mut with).await);
    // The connections are never idle: only the end of the certificate closes one of them.
    while is_answered(&mut with).await {
        assert!(is_answered(&mut without).await);
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert!(is_answered(&mut without).await);
    // With TLS 1.3 a refused certificate shows at the first read.
    assert!(!is_answered(&mut scene.connect(&short()).await).await, "an expired certificate opens no connection");
}

#[tokio::test]
async fn a_root_that_is_removed_counts_at_the_next_request() {
    let scene = Scene::new().await;
    let mut stream = scene.connect(&Arc::new(scene.tls(true))).await;
    assert!(answer(&mut stream).await.unwrap().ends_with("spiffe://demo/ns/shop/sa/orders"));
    let other = make_root("other", KeyAlgorithm::Ecdsa, Timestamp::now()).unwrap();
    let pem = pem::encode(&other.certificate.der);
    scene.service.trust_domain.store(Arc::new(Authorities::parse(pem.as_bytes(), 1).unwrap()));
    assert!(answer(&mut stream).await.unwrap().ends_with(" -"));
}

#[tokio::test]
async fn only_sessions_without_a_certificate_are_resumed() {
    let scene = Scene::new().await;
    for version in [&TLS12, &TLS13] {
        for (leaf, expected) in [(None, HandshakeKind::Resumed), (Some(&scene.leaf), HandshakeKind::Full)] {
            let tls = Arc::new(scene.tls_with(leaf, &[version]));
            let mut kinds = Vec::new();
            for _ in 0..2 {
                let mut stream = scene.connect(&tls).await;
                assert!(is_answered(&mut stream).await);
                kinds.extend(stream.get_ref().1.handshake_kind());
            }
            assert_eq!(kinds, [HandshakeKind::Full, expected], "{version:?}, {}", leaf.is_some());
        }
    }
}
