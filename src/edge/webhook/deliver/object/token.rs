//! Tokens of the `ServiceAccount` that creates objects. A namespace must grant the edge to request them.

use std::time::{Duration, Instant};

use http::HeaderValue;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Api;
use kube::api::PostParams;
use tokio::sync::Mutex;

/// Requested lifetime of a token, in seconds: the shortest that the API server grants.
const LIFETIME: u64 = 600;
/// How long before its expiry a token is replaced.
const MARGIN: Duration = Duration::from_secs(60);

/// A token, as a header, and until when it is used.
struct CachedToken {
    header: HeaderValue,
    until: Instant,
}

/// The cached token of one endpoint. It belongs to the route, so there are no more tokens than routes.
#[derive(Default)]
pub struct TokenCache(Mutex<Option<CachedToken>>);

impl TokenCache {
    /// The token. Without a cached one it is requested; concurrent callers wait for the same answer.
    ///
    /// # Errors
    /// The error of the API server.
    pub async fn get(&self, accounts: &Api<ServiceAccount>, account: &str) -> Result<HeaderValue, kube::Error> {
        let mut held = self.0.lock().await;
        if let Some(held) = held.as_ref().filter(|held| Instant::now() < held.until) {
            return Ok(held.header.clone());
        }
        // Counted from before the request, by the duration that the server says: clocks need not agree.
        let asked = Instant::now();
        let made = ask(accounts, account).await?;
        let lasts = made.spec.and_then(|spec| spec.expiration_seconds).and_then(|seconds| seconds.try_into().ok());
        let lasts = Duration::from_secs(lasts.unwrap_or(LIFETIME));
        let token = made.status.and_then(|status| status.token).unwrap_or_default();
        let header = HeaderValue::try_from(format!("Bearer {token}"));
        let mut header = header.map_err(|error| kube::Error::HttpError(error.into()))?;
        header.set_sensitive(true);
        let until = asked + lasts.saturating_sub(MARGIN);
        *held = Some(CachedToken { header: header.clone(), until });
        Ok(header)
    }

    /// Removes a token that the API server did not accept.
    pub async fn forget(&self, header: &HeaderValue) {
        let mut held = self.0.lock().await;
        if held.as_ref().is_some_and(|held| held.header == header) {
            *held = None;
        }
    }
}

async fn ask(accounts: &Api<ServiceAccount>, account: &str) -> Result<TokenRequest, kube::Error> {
    let spec = TokenRequestSpec { expiration_seconds: Some(LIFETIME.cast_signed()), ..TokenRequestSpec::default() };
    let request = TokenRequest { spec: Some(spec), ..TokenRequest::default() };
    accounts.create_token_request(account, &PostParams::default(), &request).await
}
