//! The keys of identity providers: given by the platform, or fetched from a URL. They are fetched in the background and kept, so that
//! no request waits for a provider, and a provider that is away for a while stops nobody.

use std::collections::HashMap;
use std::error::Error;
use std::io;
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http::header::ACCEPT;
use http::{HeaderValue, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use parking_lot::Mutex;
use rustls::ClientConfig;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::contract::report::{FetchProblem, KeySetReport};
use crate::contract::tokens::{KeySetUrl, MAX_KEY_SET};
use crate::domain::address_policy::AddressPolicy;
use crate::domain::invalid_field::InvalidField;
use crate::edge::jose::KeySet;
use crate::network::bounded::BoundedConnector;
use crate::network::http::{PolicyConnector, authorities, public_web};
use crate::network::{causes, refusal};

/// How often a key set is fetched.
const REFRESH_INTERVAL: Duration = Duration::from_secs(300);
/// How soon it is fetched again at the earliest, when a token names a key that is not in it.
const MIN_REFRESH_INTERVAL: Duration = Duration::from_secs(15);
/// How soon a fetch that failed is repeated at first; then after twice the time, and so on up to [`REFRESH_INTERVAL`].
const INITIAL_RETRY: Duration = Duration::from_secs(2);
/// For how long a key set is used that cannot be fetched any more.
const MAX_AGE: Duration = Duration::from_secs(24 * 60 * 60);
/// How long a fetch may take.
const TIMEOUT: Duration = Duration::from_secs(10);
const MEDIA_TYPES: HeaderValue = HeaderValue::from_static("application/jwk-set+json, application/json");

/// The keys of an identity provider.
pub enum Keys {
    /// The platform gave them.
    Given(KeySet),
    /// They are fetched.
    Fetched(Arc<Fetched>),
}

impl Keys {
    /// Calls `verify` with the keys; `None` while there are none.
    pub fn verify(&self, key_id: Option<&str>, verify: impl FnOnce(&KeySet) -> bool) -> Option<bool> {
        match self {
            Self::Given(keys) => Some(verify(keys)),
            Self::Fetched(fetched) => {
                let cached = fetched.cached()?;
                if !cached.keys.has(key_id) {
                    fetched.refresh.notify_one();
                }
                Some(verify(&cached.keys))
            }
        }
    }

    /// What to report of them, if something is wrong.
    pub fn report(&self) -> Option<KeySetReport> {
        match self {
            Self::Given(_) => None,
            Self::Fetched(fetched) => {
                let problem = (*fetched.problem.lock())?;
                Some(KeySetReport { problem, cached: fetched.cached().is_some() })
            }
        }
    }
}

/// The key set at a URL.
pub struct Fetched {
    url: Uri,
    client: Client<HttpsConnector<BoundedConnector>, Empty<Bytes>>,
    last: ArcSwapOption<Cached>,
    problem: Mutex<Option<FetchProblem>>,
    /// A token names a key that is not in the set.
    refresh: Arc<Notify>,
}

/// A key set that was fetched.
struct Cached {
    keys: KeySet,
    at: Instant,
}

impl Fetched {
    /// A key set that is not fetched yet.
    ///
    /// # Errors
    /// Names the field that is invalid.
    pub fn new(source: &KeySetUrl, policy: &AddressPolicy) -> Result<Self, InvalidField> {
        let url: Uri =
            source.url.parse().map_err(|_| InvalidField::new("keys.url", format!("{} is not a URL", source.url)))?;
        let roots = match &source.ca_bundle {
            None => public_web(),
            Some(pem) => authorities("keys.caBundle", pem)?,
        };
        let tls = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_only().enable_http1();
        let client = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(0)
            .build(connector.wrap_connector(BoundedConnector(PolicyConnector::new(policy.clone()))));
        Ok(Self { url, client, last: ArcSwapOption::empty(), problem: Mutex::default(), refresh: Arc::default() })
    }

    fn cached(&self) -> Option<Arc<Cached>> {
        self.last.load_full().filter(|cached| cached.at.elapsed() < MAX_AGE)
    }

    /// Fetches the key set once. What was fetched before is kept when that fails.
    async fn fetch(&self) -> Result<(), FetchProblem> {
        let fetched = timeout(TIMEOUT, self.request()).await.unwrap_or(Err(FetchProblem::Unreachable));
        let fetched = fetched.map(|keys| self.last.store(Some(Arc::new(Cached { keys, at: Instant::now() }))));
        let problem = fetched.err();
        if std::mem::replace(&mut *self.problem.lock(), problem) != problem {
            let url = &self.url;
            match problem {
                Some(problem) => tracing::warn!(%url, problem = problem.describe(), "cannot fetch a key set; retrying"),
                None => tracing::info!(%url, "fetched a key set"),
            }
        }
        fetched
    }

    async fn request(&self) -> Result<KeySet, FetchProblem> {
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = self.url.clone();
        request.headers_mut().insert(ACCEPT, MEDIA_TYPES);
        let answer = self.client.request(request).await.map_err(|error| problem_of(&error))?;
        if answer.status() != StatusCode::OK {
            return Err(FetchProblem::WrongStatus);
        }
        let body = Limited::new(answer.into_body(), MAX_KEY_SET).collect().await;
        let body = body.map_err(|error| {
            let is_too_long = error.is::<http_body_util::LengthLimitError>();
            if is_too_long { FetchProblem::TooLong } else { FetchProblem::Unreachable }
        })?;
        KeySet::parse(&body.to_bytes()).map_err(|_| FetchProblem::Unusable)
    }
}

/// Why there is no answer.
fn problem_of(error: &(dyn Error + 'static)) -> FetchProblem {
    let known = causes(error).find_map(|cause| match (cause.downcast_ref(), cause.downcast_ref::<io::Error>()) {
        (Some(rustls::Error::InvalidCertificate(_)), _) => Some(FetchProblem::Untrusted),
        (_, Some(error)) if refusal(error).is_some() => Some(FetchProblem::AddressRefused),
        _ => None,
    });
    known.unwrap_or(FetchProblem::Unreachable)
}

/// All key sets that are fetched, each once, for as long as somebody uses it.
pub struct KeySets {
    addresses: AddressPolicy,
    known: Mutex<HashMap<KeySetUrl, Weak<Fetched>>>,
}

impl KeySets {
    /// Nothing is fetched yet. Connections are made to these addresses only.
    #[must_use]
    pub fn new(addresses: AddressPolicy) -> Self {
        Self { addresses, known: Mutex::default() }
    }

    /// The key set at a URL. It is fetched in the background from now on.
    ///
    /// # Errors
    /// Names the field that is invalid.
    pub fn get(&self, source: &KeySetUrl) -> Result<Arc<Fetched>, InvalidField> {
        let mut known = self.known.lock();
        known.retain(|_, fetched| fetched.strong_count() > 0);
        if let Some(fetched) = known.get(source).and_then(Weak::upgrade) {
            return Ok(fetched);
        }
        let fetched = Arc::new(Fetched::new(source, &self.addresses)?);
        known.insert(source.clone(), Arc::downgrade(&fetched));
        tokio::spawn(follow(Arc::downgrade(&fetched), fetched.refresh.clone()));
        Ok(fetched)
    }
}

/// Fetches a key set again and again, until nobody uses it.
async fn follow(fetched: Weak<Fetched>, refresh: Arc<Notify>) {
    let mut retry = INITIAL_RETRY;
    loop {
        let earliest = Instant::now() + MIN_REFRESH_INTERVAL;
        let Some(fetched) = fetched.upgrade() else { return };
        let pause = match fetched.fetch().await {
            Ok(()) => {
                retry = INITIAL_RETRY;
                REFRESH_INTERVAL
            }
            Err(_) => {
                let pause = retry;
                retry = (retry * 2).min(REFRESH_INTERVAL);
                pause
            }
        };
        drop(fetched);
        let requested = async {
            refresh.notified().await;
            sleep_until(earliest).await;
        };
        tokio::select! {
            () = requested => {}
            () = sleep(pause) => {}
        }
    }
}
