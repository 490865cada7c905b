//! An HTTP gateway in front of the API server that can refuse requests. The operator connects without a credential, and
//! the gateway uses the operator's credential towards the API server.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use kube::config::{KubeConfigOptions, Kubeconfig};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::bed::Bed;

/// The status of refused requests, and that one in how many requests is refused.
pub type Refusal = Option<(u16, u64)>;

pub struct Gateway {
    /// A kubeconfig that points to the gateway.
    pub kubeconfig: String,
    refusal: Arc<watch::Sender<Refusal>>,
    serving: JoinHandle<()>,
}

struct Shared {
    client: kube::Client,
    refusal: watch::Receiver<Refusal>,
    count: std::sync::atomic::AtomicU64,
}

impl Gateway {
    pub async fn open(bed: &Bed) -> Self {
        let kubeconfig = Kubeconfig::read_from(bed.env("OPERATOR_KUBECONFIG")).unwrap();
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
        let refusal = Arc::new(watch::Sender::new(None));
        let shared = Shared {
            client: kube::Client::try_from(config).unwrap(),
            refusal: refusal.subscribe(),
            count: std::sync::atomic::AtomicU64::new(0),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(answer).with_state(Arc::new(shared));
        let serving = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let path = format!("{}/gateway.kubeconfig", bed.env("BED_DIR"));
        let text = format!(
            "{{apiVersion: v1, kind: Config, current-context: g, contexts: [{{name: g, context: {{cluster: g, user: \
             g}}}}], clusters: [{{name: g, cluster: {{server: 'http://{address}'}}}}], users: [{{name: g, user: {{}}}}]}}"
        );
        std::fs::write(&path, text).unwrap();
        Self { kubeconfig: path, refusal, serving }
    }

    pub fn set(&self, refusal: Refusal) {
        self.refusal.send_replace(refusal);
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let number = shared.count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let refusal = *shared.refusal.borrow();
    if let Some((status, one_in)) = refusal
        && number.is_multiple_of(one_in)
    {
        let status = StatusCode::from_u16(status).unwrap();
        return (status, [("retry-after", "1")], "no").into_response();
    }
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 4 << 20).await.unwrap();
    let mut forwarded =
        axum::http::Request::builder().method(head.method).uri(head.uri.path_and_query().unwrap().as_str());
    for (name, value) in head.headers.iter().filter(|(name, _)| !["host", "content-length"].contains(&name.as_str())) {
        forwarded = forwarded.header(name, value);
    }
    match shared.client.send(forwarded.body(kube::client::Body::from(body.to_vec())).unwrap()).await {
        Ok(answer) => answer.map(Body::new),
        Err(error) => (StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
    }
}
