//! One endpoint, compiled: what the operator hands to the edge, and what the edge makes of it. Pure.

use std::net::IpAddr;
use std::time::Duration;

use http::HeaderName;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::deliver::object::Object;
use super::deliver::service::Service;
use super::deliver::template::LONGEST_BODY;
use super::keys::Key;
use super::source::Pin;
use super::verify::{Material, Scheme, Window};
use crate::api::{ReplayStore, WebhookEndpointSpec, WebhookTarget};
use crate::domain::schedule::parse_duration;

/// What the operator compiles for the edge: the content of one route Secret.
#[derive(Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct KeyDocument {
    /// ID of the key.
    pub id: String,
    /// The key, as its Secret has it.
    pub material: String,
    /// From when on it is accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Timestamp>,
    /// Until when it is accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Timestamp>,
}

/// One endpoint with its keys. It has no `Debug`, since it holds them.
#[derive(Clone, Serialize, Deserialize, PartialEq)]
pub struct RouteDocument {
    /// Which endpoint this is.
    pub endpoint: Endpoint,
    /// Digest of all the rest: two that have the same serve the same.
    pub digest: String,
    /// Its spec.
    pub spec: WebhookEndpointSpec,
    /// Its keys.
    pub keys: Vec<KeyDocument>,
}

/// Which endpoint, and which generation of it.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Endpoint {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID: a namesake that was created later is another endpoint.
    pub uid: String,
    /// Generation of the spec.
    pub generation: i64,
}

/// Where deliveries go.
pub enum Target {
    /// To a Service.
    Service(Service),
    /// Into an object of its own each. Larger than the other, and one for many deliveries.
    Object(Box<Object>),
}

impl Target {
    fn compile(endpoint: &Endpoint, target: &WebhookTarget, surroundings: &Surroundings) -> Result<Self, String> {
        match target {
            WebhookTarget { service: Some(service), .. } => {
                Service::compile(endpoint, service, surroundings).map(Self::Service)
            }
            WebhookTarget { object: Some(object), .. } => {
                Object::compile(endpoint, object).map(|object| Self::Object(Box::new(object)))
            }
            _ => Err("target: set exactly one".to_owned()),
        }
    }

    /// Whom assertions are for.
    #[must_use]
    pub fn audience(&self) -> &str {
        match self {
            Self::Service(service) => &service.audience,
            Self::Object(object) => &object.audience,
        }
    }

    /// How long a delivery may take in all.
    #[must_use]
    pub fn takes(&self) -> Duration {
        match self {
            Self::Service(service) => service.patience.takes(),
            Self::Object(object) => object.patience.takes(),
        }
    }

    /// The largest body that the target can take.
    fn takes_bytes(&self) -> usize {
        match self {
            Self::Object(object) if object.template.wants_body => LONGEST_BODY,
            _ => usize::MAX,
        }
    }
}

/// What bounds an endpoint.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Largest body, in bytes.
    pub body: usize,
    /// Deliveries per second.
    pub per_second: u32,
    /// Deliveries per second from one address.
    pub per_source_per_second: u32,
}

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

/// An endpoint as the edge serves it.
pub struct Route {
    /// Which endpoint.
    pub endpoint: Endpoint,
    /// Digest of the document.
    pub digest: String,
    /// Its path.
    pub path: String,
    /// The URL as callers know it.
    pub external_url: Option<String>,
    /// How deliveries are verified.
    pub scheme: Scheme,
    /// All keys, live or not.
    pub keys: Vec<Key>,
    /// How far a timestamp may be from the clock.
    pub window: Window,
    /// Who may call.
    pub pin: Pin,
    /// How a delivery that comes twice is recognized.
    pub replay: ReplayRules,
    /// Where deliveries go.
    pub target: Target,
    /// Headers that travel on.
    pub forward: Vec<HeaderName>,
    /// What bounds it.
    pub limits: Limits,
}

/// How the edge reaches Services.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// Domain of the cluster's Services.
    pub cluster_domain: String,
    /// Where every Service is reached instead, in a cluster without a network.
    pub service_address: Option<IpAddr>,
}

impl Route {
    /// Compiles a document.
    ///
    /// # Errors
    /// Says what is wrong, and what to write instead.
    pub fn compile(document: &RouteDocument, surroundings: &Surroundings) -> Result<Self, String> {
        let RouteDocument { endpoint, digest, spec, keys } = document;
        let scheme = Scheme::new(&spec.verification)?;
        let tolerance = spec.tolerance.clone().unwrap_or_default();
        let window = Window {
            past: duration("tolerance.past", tolerance.past.as_deref(), SignedDuration::from_mins(5))?,
            future: duration("tolerance.future", tolerance.future.as_deref(), SignedDuration::from_mins(1))?,
        };
        let replay = spec.replay.clone().unwrap_or_default();
        let remembered = duration("replay.window", replay.window.as_deref(), SignedDuration::from_hours(24))?;
        if remembered < window.past + window.future {
            return Err("replay.window: it must be as long as tolerance.past and tolerance.future together, or a \
                        delivery would be new again while it is still fresh"
                .to_owned());
        }
        let limits = spec.limits.clone().unwrap_or_default();
        let per_second = limits.per_second.unwrap_or(200);
        let target = Target::compile(endpoint, &spec.target, surroundings)?;
        Ok(Self {
            digest: digest.clone(),
            path: spec.path.clone(),
            external_url: spec.external_url.clone(),
            keys: keys.iter().map(|key| compile_key(&scheme, key)).collect::<Result<_, _>>()?,
            scheme,
            window,
            pin: Pin::new(spec.source.as_ref())?,
            replay: ReplayRules {
                window: remembered.unsigned_abs(),
                store: replay.store.unwrap_or_default(),
                idempotency_key: replay.idempotency_key,
            },
            forward: spec.forward_headers.iter().map(|name| header(name)).collect::<Result<_, _>>()?,
            limits: Limits {
                body: bytes(limits.body.as_deref().unwrap_or("256Ki"))?.min(target.takes_bytes()),
                per_second,
                per_source_per_second: limits.per_source_per_second.unwrap_or(per_second),
            },
            target,
            endpoint: endpoint.clone(),
        })
    }
}

fn compile_key(scheme: &Scheme, key: &KeyDocument) -> Result<Key, String> {
    let material =
        Material::parse(scheme, key.material.as_bytes()).map_err(|why| format!("the key {}: {why}", key.id))?;
    Ok(Key { id: key.id.clone(), not_before: key.not_before, not_after: key.not_after, material })
}

/// A duration of the spec.
pub(super) fn duration(field: &str, text: Option<&str>, default: SignedDuration) -> Result<SignedDuration, String> {
    text.map_or(Ok(default), |text| parse_duration(text).map_err(|why| format!("{field}: {why}")))
}

fn header(name: &str) -> Result<HeaderName, String> {
    HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("forwardHeaders: {name} is not the name of a header"))
}

/// A number of bytes, plain or with `Ki` or `Mi`.
fn bytes(text: &str) -> Result<usize, String> {
    let (digits, unit) = match (text.strip_suffix("Ki"), text.strip_suffix("Mi")) {
        (Some(digits), _) => (digits, 1 << 10),
        (_, Some(digits)) => (digits, 1 << 20),
        _ => (text, 1),
    };
    let number = digits.parse::<usize>().ok().and_then(|number| number.checked_mul(unit));
    number.ok_or_else(|| format!("limits.body: {text} is not a number of bytes such as 4096, 256Ki or 1Mi"))
}
