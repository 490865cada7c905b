//! A service that others call with access tokens (RFC 9068), and that calls others itself.
//!
//! To build it, and to run it:
//!
//! ```text
//! cargo build
//! target/debug/service serve PORT SCOPE            answers callers whose token has this scope, over HTTPS on 127.0.0.1
//! target/debug/service call URL AUDIENCE [SCOPE]   asks for a token, and calls a service whose SPIFFE ID is AUDIENCE
//! ```
//!
//! `IDENTITY` is a folder with `tls.crt`, `tls.key` and `ca.crt` of the service's ServiceIdentity, `SPIFFE_ID` is its
//! SPIFFE ID, `ISSUER` the URL of the issuer of tokens, and `ISSUER_CA` a file with the authorities that vouch for the
//! issuer's host. `TOKEN` is a token for `call`, which then asks for none.

mod issuer;
mod tls;
mod verifier;

use std::convert::Infallible;
use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use reqwest::Client;
use reqwest::redirect::Policy;
use rustls::ClientConfig;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use verifier::{Refused, Verifier};

const TIMEOUT: Duration = Duration::from_secs(10);

type Fallible<T> = Result<T, Box<dyn Error + Send + Sync>>;

#[tokio::main]
async fn main() -> ExitCode {
    let Err(error) = run().await else { return ExitCode::SUCCESS };
    eprintln!("{error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        eprintln!("  because: {error}");
        cause = error.source();
    }
    ExitCode::FAILURE
}

async fn run() -> Fallible<()> {
    let service = Service {
        identity: environment("IDENTITY")?.into(),
        spiffe_id: environment("SPIFFE_ID")?,
        issuer: environment("ISSUER")?,
        issuer_authorities: environment("ISSUER_CA")?.into(),
    };
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve", port, scope] => service.serve(port.parse()?, scope).await,
        ["call", url, audience] => service.call(url, audience, "").await,
        ["call", url, audience, scope] => service.call(url, audience, scope).await,
        _ => Err("usage: service serve PORT SCOPE | service call URL AUDIENCE [SCOPE]".into()),
    }
}

fn environment(name: &str) -> Fallible<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty()).ok_or_else(|| format!("{name} is not set").into())
}

struct Service {
    identity: PathBuf,
    spiffe_id: String,
    issuer: String,
    issuer_authorities: PathBuf,
}

impl Service {
    async fn serve(&self, port: u16, scope: &str) -> Fallible<()> {
        let client = client(tls::to_issuer(&self.issuer_authorities, None)?)?;
        let keys = issuer::metadata(&client, &self.issuer).await?.jwks_uri;
        let verifier = Arc::new(Verifier::new(client, keys, &self.issuer, &self.spiffe_id));
        let acceptor = TlsAcceptor::from(Arc::new(tls::from_services(&self.identity)?));
        let scope: Arc<str> = scope.into();
        let listener = TcpListener::bind(("127.0.0.1", port)).await?;
        println!("serving on {}", listener.local_addr()?);
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    tokio::spawn(answer_all(stream, acceptor.clone(), verifier.clone(), scope.clone()));
                }
                // There may be too many open files. Connections that end make room.
                Err(_) => sleep(Duration::from_secs(1)).await,
            }
        }
    }

    async fn call(&self, url: &str, audience: &str, scope: &str) -> Fallible<()> {
        let token = if let Ok(token) = environment("TOKEN") {
            token
        } else {
            let client = client(tls::to_issuer(&self.issuer_authorities, Some(&self.identity))?)?;
            issuer::token(&client, &self.issuer, &self.spiffe_id, audience, scope).await?
        };
        let client = client(tls::to_service(&self.identity, audience)?)?;
        let response = client.get(url).bearer_auth(token).send().await?;
        println!("{} {}", response.status().as_u16(), response.text().await?);
        Ok(())
    }
}

/// A client that sends nothing in plain text, because anybody could read the token, and follows no redirects, because
/// the token is for one service and no other address.
fn client(tls: ClientConfig) -> reqwest::Result<Client> {
    Client::builder().tls_backend_preconfigured(tls).https_only(true).redirect(Policy::none()).timeout(TIMEOUT).build()
}

/// Answers the requests of one connection.
async fn answer_all(stream: TcpStream, acceptor: TlsAcceptor, verifier: Arc<Verifier>, scope: Arc<str>) {
    // An error of the handshake, or of the connection below, concerns this peer only, which sees it as well.
    let Ok(Ok(stream)) = timeout(TIMEOUT, acceptor.accept(stream)).await else { return };
    // The SPIFFE ID of the peer, and the digest of its certificate.
    let chain = stream.get_ref().1.peer_certificates();
    let peer = tls::peer(chain).zip(tls::thumbprint(chain));
    let service = service_fn(async |request: Request<Incoming>| {
        let (status, body) = match answer(&request, peer.as_ref(), &verifier, &scope).await {
            Ok(welcome) => (StatusCode::OK, welcome),
            Err(Refused(status, message)) => (status, json!({"error": message})),
        };
        let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Ok::<_, Infallible>(response)
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(TIMEOUT);
    let _ = server.serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(
    request: &Request<Incoming>,
    peer: Option<&(String, String)>,
    verifier: &Verifier,
    scope: &str,
) -> Result<serde_json::Value, Refused> {
    if request.method() != Method::GET {
        return Err(Refused(StatusCode::METHOD_NOT_ALLOWED, "only GET is allowed".to_owned()));
    }
    let (peer, thumbprint) = peer.ok_or_else(|| Refused::unauthorized("the certificate has no SPIFFE ID"))?;
    let authorization: Vec<_> = request.headers().get_all(AUTHORIZATION).iter().collect();
    let scopes = verifier.verify(&authorization, peer, thumbprint).await?;
    if !scopes.iter().any(|granted| granted == scope) {
        return Err(Refused(StatusCode::FORBIDDEN, format!("the token has no scope {scope}")));
    }
    Ok(json!({"caller": peer, "scopes": scopes}))
}
