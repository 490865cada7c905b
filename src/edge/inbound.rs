//! The way in: what is called by others is verified, claimed, and handed to its target.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header;
use http::uri::Authority;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::Edge;
use super::assertion::Claims;
use super::audit::Attempt;
use super::deliver::Parcel;
use super::deliver::target::Target;
use super::handle::Received;
use super::keys::{self, Key};
use super::outcome::Why;
use super::replay::{self, Identity};
use super::route::Invalid;
use super::route::Surroundings;
use super::table::Served;
use super::verify::{Delivery, Material, Scheme, Verified, Window, verify};
use crate::api::{ReplayStore, WebhookEndpointSpec};
use crate::contract::route::{RouteDocument, WebhookReference};
use crate::domain::identity::hex;
use crate::domain::schedule::duration;

/// How a delivery that comes twice is recognized.
#[derive(Clone, Debug)]
pub struct ReplayRules {
    /// How long it is remembered.
    pub window: Duration,
    /// Where.
    pub store: ReplayStore,
    /// JSON Pointer to the idempotency key in the body.
    pub idempotency_key: Option<String>,
}

/// What a `WebhookEndpoint` has beyond what both kinds of webhooks have.
pub struct Inbound {
    /// The URL as callers know it.
    pub external_url: Option<String>,
    /// How deliveries are verified.
    pub scheme: Scheme,
    /// All keys, live or not.
    pub keys: Vec<Key>,
    /// How far a timestamp may be from the clock.
    pub window: Window,
    /// How a delivery that comes twice is recognized.
    pub replay: ReplayRules,
    /// Where deliveries go.
    pub target: Target,
}

impl Inbound {
    /// Compiles a document.
    ///
    /// # Errors
    /// Says what is wrong, and what to write instead.
    pub fn compile(
        document: &RouteDocument,
        spec: &WebhookEndpointSpec,
        surroundings: &Surroundings,
    ) -> Result<Self, Invalid> {
        let scheme = Scheme::new(&spec.verification)?;
        let window = Window::compile(spec.tolerance.as_ref())?;
        let replay = spec.replay.clone().unwrap_or_default();
        let remembered = duration("replay.window", replay.window.as_deref(), SignedDuration::from_hours(24))?;
        if remembered < window.past + window.future {
            return Err("replay.window: it must be as long as tolerance.past and tolerance.future together, or a \
                        delivery would be new again while it is still fresh"
                .to_owned()
                .into());
        }
        Ok(Self {
            external_url: spec.external_url.clone(),
            keys: keys::compile(&document.keys, |text| Material::parse(&scheme, text))?,
            scheme,
            window,
            replay: ReplayRules {
                window: remembered.unsigned_abs(),
                store: replay.store.unwrap_or_default(),
                idempotency_key: replay.idempotency_key,
            },
            target: Target::compile("target", document, &spec.target, surroundings)?,
        })
    }

    /// Verifies what was received, and makes of it what the target gets.
    pub(super) fn accept(
        &self,
        edge: &Edge,
        served: &Served,
        received: &Received<'_>,
        attempt: &mut Attempt,
    ) -> Result<Parcel, Why> {
        let route = &served.route;
        let verified = self.check_signature(received)?;
        attempt.key = Some(verified.key_id.clone());
        let identity = self.identity(&route.endpoint, &verified, &received.body)?;
        let delivery = verified.delivery_id.clone().unwrap_or_else(|| hex(&identity[..16]));
        attempt.delivery = Some(delivery.clone());
        served.used_now(&verified.key_id);
        let claims = Claims {
            audience: self.target.audience(),
            delivery: &delivery,
            endpoint: &received.endpoint,
            key_id: Some(&verified.key_id),
            failure: None,
            source: attempt.source_identity.as_deref(),
            body_sha256: URL_SAFE_NO_PAD.encode(received.body_sha256),
        };
        Ok(Parcel {
            headers: received.forwarded(route),
            identity,
            assertion: edge.sign_assertion(&claims)?,
            endpoint: received.endpoint.clone(),
            delivery,
            body_sha256: received.body_sha256,
            body: received.body.clone(),
        })
    }

    /// Claims the delivery, and brings it to the target.
    pub(super) async fn deliver(&self, edge: &Edge, parcel: Parcel, attempt: &mut Attempt) -> Why {
        let claimed = edge.replays.claim(self.replay.store, parcel.identity, self.target.takes()).await;
        let claim = match claimed {
            Ok(claim) => claim,
            Err(why) => return why.into(),
        };
        attempt.target = Some(self.target.audience().to_owned());
        let (why, status) = edge.targets.deliver(&self.target, &parcel).await;
        attempt.target_status = status;
        if why == Why::Delivered {
            edge.replays.keep(claim, self.replay.window).await;
        } else {
            edge.replays.give_back(claim).await;
        }
        why
    }

    fn check_signature(&self, received: &Received<'_>) -> Result<Verified, Why> {
        let parts = received.parts;
        let host = || parts.headers.get(header::HOST).and_then(|host| host.to_str().ok());
        let authority = parts.uri.authority().map(Authority::as_str).or_else(host);
        let delivery = Delivery {
            method: &parts.method,
            uri: &parts.uri,
            authority: authority.unwrap_or_default(),
            external_url: self.external_url.as_deref(),
            headers: &parts.headers,
            body: &received.body,
        };
        Ok(verify(&self.scheme, &self.keys, &delivery, &self.window, Timestamp::now())?)
    }

    /// What makes a delivery the same when it comes again: within its endpoint, what is signed, or the idempotency key in it.
    fn identity(&self, endpoint: &WebhookReference, verified: &Verified, body: &[u8]) -> Result<Identity, Why> {
        let Some(pointer) = &self.replay.idempotency_key else {
            return Ok(replay::identity(endpoint, &verified.identity));
        };
        let value: Value = serde_json::from_slice(body).map_err(|_| Why::NoIdempotencyKey)?;
        match value.pointer(pointer) {
            Some(Value::String(key)) if !key.is_empty() => Ok(replay::identity(endpoint, key.as_bytes())),
            Some(Value::Number(key)) => Ok(replay::identity(endpoint, key.to_string().as_bytes())),
            _ => Err(Why::NoIdempotencyKey),
        }
    }
}
