//! Shared by the tests of webhooks: targets, endpoints, and a sender that signs with a third-party library.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Request, StatusCode};
use axum::routing::post;
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::client::{Resumption, WantsClientCert};
use rustls::{ClientConfig, ConfigBuilder, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::{Value, json};
use standardwebhooks::Webhook;
use tokio::net::TcpListener;

use crate::bed::{Bed, manifest};

/// The requests that a target has received.
pub type Received = Arc<Mutex<Vec<(HeaderMap, Bytes)>>>;

/// A target that answers with a configurable status, and records the requests.
pub struct Target {
    pub port: u16,
    pub received: Received,
    pub status: Arc<Mutex<StatusCode>>,
}

impl Target {
    pub async fn start() -> Self {
        Self::at(0).await
    }

    /// Starts it at this port.
    pub async fn at(port: u16) -> Self {
        type Shared = (Received, Arc<Mutex<StatusCode>>);
        let receive = |State((received, status)): State<Shared>, headers: HeaderMap, body: Bytes| async move {
            received.lock().unwrap().push((headers, body));
            *status.lock().unwrap()
        };
        let (received, status) = (Received::default(), Arc::new(Mutex::new(StatusCode::OK)));
        let router = Router::new().route("/hooks", post(receive)).with_state((received.clone(), status.clone()));
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { port, received, status }
    }

    pub fn count(&self) -> usize {
        self.received.lock().unwrap().len()
    }
}

pub fn endpoint(namespace: &str, name: &str, target: &Target, verification: Value) -> Value {
    manifest(
        "WebhookEndpoint",
        Some(namespace),
        name,
        json!({
            "path": format!("/{namespace}/{name}"),
            "verification": verification,
            "target": {"service": {"name": name, "port": target.port, "path": "/hooks", "attempts": 1}},
            "forwardHeaders": ["content-type"],
        }),
    )
}

/// The key that the sender has to sign with.
pub async fn signing_key(bed: &Bed, namespace: &str, name: &str) -> String {
    let secret = bed.secret(namespace, &format!("{name}-webhook-keys")).await.unwrap();
    String::from_utf8(secret.data.unwrap()["signing-key"].0.clone()).unwrap()
}

pub fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

/// An HTTP and HTTPS client that trusts the edge. It reuses connections, and resumes no TLS session.
pub type HttpsClient = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// TLS settings of a client that trusts the edge, but for its own certificate.
pub fn tls_builder(bed: &Bed) -> ConfigBuilder<ClientConfig, WantsClientCert> {
    let mut roots = RootCertStore::empty();
    for authority in CertificateDer::pem_file_iter(bed.env("EDGE_CA")).unwrap() {
        roots.add(authority.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    tls.with_root_certificates(roots)
}

/// TLS settings of a client of the edge without a certificate; no session is resumed.
pub fn tls(bed: &Bed) -> ClientConfig {
    let mut tls = tls_builder(bed).with_no_client_auth();
    tls.resumption = Resumption::disabled();
    tls
}

/// See [`HttpsClient`].
pub fn https(mut tls: ClientConfig) -> HttpsClient {
    tls.resumption = Resumption::disabled();
    let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().build();
    Client::builder(TokioExecutor::new()).build(connector)
}

/// The same, from an address of its own.
pub fn https_from(bed: &Bed, address: Ipv4Addr) -> HttpsClient {
    let mut http = HttpConnector::new();
    http.set_local_address(Some(address.into()));
    http.enforce_http(false);
    let connector = HttpsConnectorBuilder::new().with_tls_config(tls(bed)).https_only().enable_http1();
    Client::builder(TokioExecutor::new()).build(connector.wrap_connector(http))
}

/// A delivery that the Rust library of Standard Webhooks signs with the current time.
pub fn signed(url: &str, key: &str, id: &str, body: &str) -> Request<Full<Bytes>> {
    let at = now();
    let signature = Webhook::new(key).unwrap().sign(id, at, body.as_bytes()).unwrap();
    Request::post(url)
        .header("host", "localhost")
        .header("webhook-id", id)
        .header("webhook-timestamp", at.to_string())
        .header("webhook-signature", signature)
        .body(Full::new(Bytes::from(body.to_owned())))
        .unwrap()
}

/// A sender that reuses connections and signs with the Rust library of Standard Webhooks.
#[derive(Clone)]
pub struct Sender {
    client: HttpsClient,
    url: String,
}

impl Sender {
    /// Sends to an edge at this URL, such as `https://localhost:8443`.
    pub fn new(bed: &Bed, url: &str) -> Self {
        Self::with_tls(tls(bed), url)
    }

    /// The same with TLS settings of its own.
    pub fn with_tls(tls: ClientConfig, url: &str) -> Self {
        Self { client: https(tls), url: url.to_owned() }
    }

    /// Signs a delivery with the current time, sends it, and returns the status of the response.
    pub async fn send(&self, path: &str, key: &str, id: &str, body: &str) -> Result<StatusCode, String> {
        let request = signed(&format!("{}{path}", self.url), key, id, body);
        self.client.request(request).await.map(|answer| answer.status()).map_err(|error| format!("{error:?}"))
    }
}
