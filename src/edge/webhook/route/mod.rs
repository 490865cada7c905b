//! A route: one webhook, compiled from its document. Pure.

mod inbound;
mod key_use;
mod outbound;

use std::net::IpAddr;
use std::sync::Arc;

use http::HeaderName;

pub use self::inbound::{InboundRoute, ReplayRules};
pub use self::key_use::KeyUse;
pub use self::outbound::OutboundRoute;
use super::caller_token::CallerTokenPolicy;
use super::deliver::target::Target;
use super::invalid::InvalidRoute;
use super::routing::RoutingConfig;
use super::source;
use super::verify::Window;
use crate::api::{Tolerance, WebhookLimits, WebhookSource};
use crate::contract::route::{RouteDocument, Spec, WebhookReference};
use crate::domain::invalid_field::InvalidField;
use crate::edge::front::{Party, network_of};
use crate::edge::http::source::SourcePolicy;

/// Largest body in the absence of `limits.body`.
const DEFAULT_BODY: &str = "256Ki";
/// Deliveries per second in the absence of `limits.perSecond`.
const DEFAULT_PER_SECOND: u32 = 200;

/// The limits of a webhook.
#[derive(Clone, Copy, Debug)]
pub struct RouteLimits {
    /// Largest body, in bytes.
    pub body: usize,
    /// Deliveries per second.
    pub per_second: u32,
    /// Deliveries per second from one address.
    pub per_source_per_second: u32,
}

/// In which direction deliveries go.
pub enum Direction {
    /// Into the cluster, from callers outside.
    Inbound(Arc<InboundRoute>),
    /// Out of the cluster, from its services.
    Outbound(Arc<OutboundRoute>),
}

impl Direction {
    /// Its name in audit lines and metrics.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Inbound(_) => "Inbound",
            Self::Outbound(_) => "Outbound",
        }
    }

    /// IDs of all keys, valid now or not.
    pub fn key_ids(&self) -> impl Iterator<Item = &String> {
        let (verify, sign) = match self {
            Self::Inbound(inbound) => (inbound.keys.as_slice(), [].as_slice()),
            Self::Outbound(outbound) => ([].as_slice(), outbound.keys.as_slice()),
        };
        verify.iter().map(|key| &key.id).chain(sign.iter().map(|key| &key.id))
    }
}

/// A webhook as the gateway serves it.
pub struct Route {
    /// Which webhook.
    pub webhook: WebhookReference,
    /// The same as `namespace/name`.
    pub endpoint: Arc<str>,
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Digest of the document.
    pub digest: String,
    /// The webhook's path.
    pub path: String,
    /// Which callers are allowed, by address and certificate.
    pub source: SourcePolicy,
    /// Which callers are allowed, by a token that they send.
    pub caller_token: Option<CallerTokenPolicy>,
    /// Headers that are forwarded.
    pub forward: Vec<HeaderName>,
    /// The webhook's limits.
    pub limits: RouteLimits,
    /// In which direction deliveries go.
    pub direction: Direction,
}

/// What the specs of both kinds of webhooks have in common.
struct Common<'a> {
    path: &'a str,
    tolerance: Option<&'a Tolerance>,
    source: Option<&'a WebhookSource>,
    forward: &'a [String],
    limits: Option<&'a WebhookLimits>,
}

impl Route {
    /// What a request with a body of this length takes at most, in bytes that are hashed in the same time.
    #[must_use]
    pub fn work(&self, length: usize) -> usize {
        match &self.direction {
            Direction::Inbound(inbound) => inbound.work(length),
            Direction::Outbound(_) => length,
        }
    }

    /// For whom the edge works when this caller has sent something.
    #[must_use]
    pub fn party(&self, source: IpAddr) -> Party {
        Party { namespace: self.namespace.clone(), network: network_of(source) }
    }

    /// Compiles a document.
    ///
    /// # Errors
    /// Names the field or the key that is invalid, and says what to write instead.
    pub fn compile(document: &RouteDocument, routing: &RoutingConfig) -> Result<Self, InvalidRoute> {
        let (common, direction, max_body) = match &document.spec {
            Spec::Endpoint(spec) => {
                let inbound = InboundRoute::compile(document, spec, routing)?;
                let max_body = inbound.target.max_body();
                let (source, forward) = (spec.source.as_ref(), spec.forward_headers.as_slice());
                let (tolerance, limits) = (spec.tolerance.as_ref(), spec.limits.as_ref());
                let common = Common { path: &spec.path, tolerance, source, forward, limits };
                (common, Direction::Inbound(Arc::new(inbound)), max_body)
            }
            Spec::Destination(spec) => {
                let outbound = OutboundRoute::compile(document, spec, routing)?;
                let max_body = outbound.dead_letter.as_ref().map_or(usize::MAX, Target::max_body);
                let (source, forward) = (Some(&spec.source), spec.forward_headers.as_slice());
                let common =
                    Common { path: &spec.path, tolerance: None, source, forward, limits: spec.limits.as_ref() };
                (common, Direction::Outbound(Arc::new(outbound)), max_body)
            }
        };
        let limits = common.limits.cloned().unwrap_or_default();
        let per_second = limits.per_second.unwrap_or(DEFAULT_PER_SECOND);
        let window = Window::compile(common.tolerance)?;
        Ok(Self {
            webhook: document.webhook.clone(),
            endpoint: format!("{}/{}", document.webhook.namespace, document.webhook.name).into(),
            namespace: document.webhook.namespace.as_str().into(),
            digest: document.digest.clone(),
            path: common.path.to_owned(),
            source: source::compile(common.source)?,
            caller_token: CallerTokenPolicy::compile(common.source, &document.source_keys, window)?,
            forward: common.forward.iter().map(|name| header(name)).collect::<Result<_, _>>()?,
            limits: RouteLimits {
                body: bytes(limits.body.as_deref().unwrap_or(DEFAULT_BODY))?.min(max_body),
                per_second,
                per_source_per_second: limits.per_source_per_second.unwrap_or(per_second),
            },
            direction,
        })
    }
}

fn header(name: &str) -> Result<HeaderName, InvalidField> {
    HeaderName::from_bytes(name.as_bytes())
        .map_err(|_| InvalidField::new("forwardHeaders", format!("{name} is not the name of a header")))
}

/// A number of bytes, plain or with `Ki` or `Mi`.
fn bytes(text: &str) -> Result<usize, InvalidField> {
    let (digits, unit) = match (text.strip_suffix("Ki"), text.strip_suffix("Mi")) {
        (Some(digits), _) => (digits, 1 << 10),
        (_, Some(digits)) => (digits, 1 << 20),
        _ => (text, 1),
    };
    let number = digits.parse::<usize>().ok().and_then(|number| number.checked_mul(unit));
    number.ok_or_else(|| {
        InvalidField::new("limits.body", format!("{text} is not a number of bytes such as 4096, 256Ki or 1Mi"))
    })
}
