//! One webhook, compiled: what the edge makes of a document. Pure.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use http::HeaderName;

use super::deliver::target::Target;
use super::inbound::Inbound;
use super::outbound::Outbound;
use super::reach::Reach;
use super::source::{Pin, TokenPin};
use super::verify::Window;
use crate::api::{Tolerance, WebhookLimits, WebhookSource};
use crate::contract::route::{RouteDocument, Spec, WebhookReference};

/// What bounds a webhook.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Largest body, in bytes.
    pub body: usize,
    /// Deliveries per second.
    pub per_second: u32,
    /// Deliveries per second from one address.
    pub per_source_per_second: u32,
}

/// Which way deliveries go.
pub enum Way {
    /// In, from others.
    Inbound(Arc<Inbound>),
    /// Out, from services of the cluster.
    Outbound(Arc<Outbound>),
}

impl Way {
    /// Its name in audit lines and metrics.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Inbound(_) => "Inbound",
            Self::Outbound(_) => "Outbound",
        }
    }

    /// IDs of all keys, live or not.
    pub fn key_ids(&self) -> impl Iterator<Item = &String> {
        let (verify, sign) = match self {
            Self::Inbound(inbound) => (inbound.keys.as_slice(), [].as_slice()),
            Self::Outbound(outbound) => ([].as_slice(), outbound.keys.as_slice()),
        };
        verify.iter().map(|key| &key.id).chain(sign.iter().map(|key| &key.id))
    }
}

/// A webhook as the edge serves it.
pub struct Route {
    /// Which webhook.
    pub endpoint: WebhookReference,
    /// Digest of the document.
    pub digest: String,
    /// Its path.
    pub path: String,
    /// Who may call.
    pub pin: Pin,
    /// Who a token must prove to be calling.
    pub token: Option<TokenPin>,
    /// Headers that travel on.
    pub forward: Vec<HeaderName>,
    /// What bounds it.
    pub limits: Limits,
    /// Which way deliveries go.
    pub way: Way,
}

/// How the edge reaches Services and destinations.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// Domain of the cluster's Services.
    pub cluster_domain: String,
    /// Where every Service is reached instead, in a cluster without a network.
    pub service_address: Option<IpAddr>,
    /// Where destinations may be.
    pub destinations: Reach,
}

/// What both kinds of webhooks have.
struct Common<'a> {
    path: &'a str,
    tolerance: Option<&'a Tolerance>,
    source: Option<&'a WebhookSource>,
    forward: &'a [String],
    limits: Option<&'a WebhookLimits>,
}

impl Route {
    /// Compiles a document.
    ///
    /// # Errors
    /// Says what is wrong, and what to write instead.
    pub fn compile(document: &RouteDocument, surroundings: &Surroundings) -> Result<Self, Invalid> {
        let (common, way, longest) = match &document.spec {
            Spec::Endpoint(spec) => {
                let inbound = Inbound::compile(document, spec, surroundings)?;
                let longest = inbound.target.takes_bytes();
                let (source, forward) = (spec.source.as_ref(), spec.forward_headers.as_slice());
                let (tolerance, limits) = (spec.tolerance.as_ref(), spec.limits.as_ref());
                let common = Common { path: &spec.path, tolerance, source, forward, limits };
                (common, Way::Inbound(Arc::new(inbound)), longest)
            }
            Spec::Destination(spec) => {
                let outbound = Outbound::compile(document, spec, surroundings)?;
                let longest = outbound.dead_letter.as_ref().map_or(usize::MAX, Target::takes_bytes);
                let (source, forward) = (Some(&spec.source), spec.forward_headers.as_slice());
                let common =
                    Common { path: &spec.path, tolerance: None, source, forward, limits: spec.limits.as_ref() };
                (common, Way::Outbound(Arc::new(outbound)), longest)
            }
        };
        let limits = common.limits.cloned().unwrap_or_default();
        let per_second = limits.per_second.unwrap_or(200);
        Ok(Self {
            endpoint: document.webhook.clone(),
            digest: document.digest.clone(),
            path: common.path.to_owned(),
            pin: Pin::new(common.source)?,
            token: TokenPin::compile(common.source, &document.source_keys, Window::compile(common.tolerance)?)?,
            forward: common.forward.iter().map(|name| header(name)).collect::<Result<_, _>>()?,
            limits: Limits {
                body: bytes(limits.body.as_deref().unwrap_or("256Ki"))?.min(longest),
                per_second,
                per_source_per_second: limits.per_source_per_second.unwrap_or(per_second),
            },
            way,
        })
    }
}

/// Why a document cannot be served, with what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Invalid {
    /// The spec says something that cannot be.
    Spec(String),
    /// A key cannot be used.
    Keys(String),
}

impl From<String> for Invalid {
    fn from(why: String) -> Self {
        Self::Spec(why)
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Spec(why) | Self::Keys(why)) = self;
        formatter.write_str(why)
    }
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
