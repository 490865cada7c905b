//! The way out: what a service of the cluster posts is signed and brought to its destination; what the destination does not take
//! goes to the dead letter.

use aws_lc_rs::rand;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use jiff::Timestamp;

use super::Edge;
use super::assertion::Claims;
use super::audit::Attempt;
use super::deliver::destination::Destination;
use super::deliver::target::Target;
use super::deliver::{Answer, Parcel};
use super::handle::Received;
use super::outcome::Why;
use super::replay;
use super::route::Invalid;
use super::route::Surroundings;
use super::signing::{SigningKey, sign};
use super::table::Served;
use super::verify::delivery_id;
use crate::api::WebhookDestinationSpec;
use crate::contract::route::RouteDocument;
use crate::domain::identity::hex;

const ID: HeaderName = HeaderName::from_static("webhook-id");
const TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");
/// Tells a dead letter why the destination did not take it.
const FAILURE: HeaderName = HeaderName::from_static("credence-failure");
const USER_AGENT: HeaderValue = HeaderValue::from_static(concat!("credence/", env!("CARGO_PKG_VERSION")));
/// How many keys there may be: each makes a signature, and receivers bound how many they look at.
const MOST_KEYS: usize = 8;

/// What a `WebhookDestination` has beyond what both kinds of webhooks have.
pub struct Outbound {
    /// All keys, live or not.
    pub keys: Vec<SigningKey>,
    /// Where deliveries go.
    pub destination: Destination,
    /// Where they go that the destination did not take.
    pub dead_letter: Option<Target>,
}

/// A delivery that is to go out.
pub(super) struct Letter {
    id: String,
    /// Headers of the sender that travel on.
    headers: HeaderMap,
    endpoint: String,
    source: Option<String>,
    body_sha256: [u8; 32],
    body: Bytes,
}

impl Outbound {
    /// Compiles a document.
    ///
    /// # Errors
    /// Says what is wrong, and what to write instead.
    pub fn compile(
        document: &RouteDocument,
        spec: &WebhookDestinationSpec,
        surroundings: &Surroundings,
    ) -> Result<Self, Invalid> {
        if document.keys.len() > MOST_KEYS {
            return Err(Invalid::Keys(format!("there are more than {MOST_KEYS} keys; remove those that have ended")));
        }
        let dead_letter = spec.dead_letter.as_ref();
        let dead_letter = dead_letter.map(|target| Target::compile("deadLetter", document, target, surroundings));
        let keys: Result<_, String> = document.keys.iter().map(SigningKey::parse).collect();
        Ok(Self {
            keys: keys.map_err(Invalid::Keys)?,
            destination: Destination::compile(&spec.target, &surroundings.destinations)?,
            dead_letter: dead_letter.transpose()?,
        })
    }

    /// Makes of what was received what goes out.
    pub(super) fn accept(
        &self,
        served: &Served,
        received: &Received<'_>,
        attempt: &mut Attempt,
    ) -> Result<Letter, Why> {
        let id = match delivery_id(&received.parts.headers, &ID).map_err(|_| Why::WrongDeliveryId)? {
            Some(id) => id,
            None => new_id().ok_or(Why::NotReady)?,
        };
        attempt.delivery = Some(id.clone());
        if !self.keys.iter().any(|key| key.is_live(Timestamp::now())) {
            return Err(Why::NoKey);
        }
        Ok(Letter {
            id,
            headers: received.forwarded(&served.route),
            endpoint: received.endpoint.clone(),
            source: attempt.source_identity.clone(),
            body_sha256: received.body_sha256,
            body: received.body.clone(),
        })
    }

    /// Brings a delivery to its destination, or else to the dead letter.
    pub(super) async fn deliver(&self, edge: &Edge, served: &Served, letter: Letter, attempt: &mut Attempt) -> Why {
        attempt.target = Some(self.destination.audience.clone());
        let Some(_turn) = self.destination.turn() else { return Why::TargetBusy };
        let patience = self.destination.patience;
        let (why, status) = patience.exhaust(&edge.stopping, || self.attempt(&letter)).await;
        attempt.target_status = status;
        let signed: Vec<&str> = self.live_keys(Timestamp::now()).collect();
        attempt.key = (!signed.is_empty()).then(|| signed.join(","));
        if why == Why::Delivered {
            for key in signed {
                served.used_now(key);
            }
            return why;
        }
        let Some(dead_letter) = &self.dead_letter else { return why };
        attempt.failure = Some(why);
        let Ok(parcel) = letter.into_parcel(edge, served, dead_letter, why) else { return why };
        match edge.targets.deliver(dead_letter, &parcel).await {
            (Why::Delivered, _) => Why::DeadLettered,
            (failed, status) => {
                let endpoint = parcel.endpoint;
                tracing::warn!(
                    endpoint,
                    delivery = parcel.delivery,
                    reason = failed.as_str(),
                    status,
                    "a dead letter was not taken"
                );
                why
            }
        }
    }

    /// Signs anew for each attempt: receivers refuse what was signed long ago.
    async fn attempt(&self, letter: &Letter) -> Answer {
        let headers = self.sign(letter, Timestamp::now());
        match headers {
            Some(headers) => self.destination.attempt(headers, letter.body.clone()).await,
            None => Answer::last(Why::NoKey, None),
        }
    }

    fn sign(&self, letter: &Letter, now: Timestamp) -> Option<HeaderMap> {
        let signed = sign(&self.keys, &letter.id, &letter.body, now)?;
        let mut headers = letter.headers.clone();
        headers.insert(ID, HeaderValue::from_str(&letter.id).ok()?);
        headers.insert(TIMESTAMP, HeaderValue::from_str(&signed.timestamp).ok()?);
        headers.insert(SIGNATURE, HeaderValue::from_str(&signed.signatures).ok()?);
        headers.insert(header::USER_AGENT, USER_AGENT);
        Some(headers)
    }

    fn live_keys(&self, now: Timestamp) -> impl Iterator<Item = &str> {
        self.keys.iter().filter(move |key| key.is_live(now)).map(|key| key.id.as_str())
    }
}

impl Letter {
    fn into_parcel(self, edge: &Edge, served: &Served, dead_letter: &Target, failure: Why) -> Result<Parcel, Why> {
        let claims = Claims {
            audience: dead_letter.audience(),
            delivery: &self.id,
            endpoint: &self.endpoint,
            key_id: None,
            failure: Some(failure.as_str()),
            source: self.source.as_deref(),
            body_sha256: URL_SAFE_NO_PAD.encode(self.body_sha256),
        };
        let mut headers = self.headers;
        headers.insert(FAILURE, HeaderValue::from_static(failure.as_str()));
        Ok(Parcel {
            headers,
            identity: replay::identity(&served.route.endpoint, self.id.as_bytes()),
            assertion: edge.sign_assertion(&claims)?,
            endpoint: self.endpoint,
            delivery: self.id,
            body_sha256: self.body_sha256,
            body: self.body,
        })
    }
}

/// An ID for a delivery whose sender gave it none.
fn new_id() -> Option<String> {
    let mut random = [0; 16];
    rand::fill(&mut random).ok()?;
    Some(format!("msg_{}", hex(&random)))
}
