//! One webhook, compiled: what the operator hands to the edge, and what the edge makes of it. Pure.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use http::HeaderName;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::deliver::kafka::Kafka;
use super::deliver::object::Object;
use super::deliver::service::Service;
use super::deliver::template::LONGEST_BODY;
use super::inbound::Inbound;
use super::keys::Key;
use super::outbound::Outbound;
use super::reach::Reach;
use super::replay::Identity;
use super::source::{Pin, TokenPin};
use super::verify::{Material, Window};
use crate::api::{Tolerance, WebhookDestinationSpec, WebhookEndpointSpec, WebhookLimits, WebhookSource, WebhookTarget};
use crate::domain::schedule::parse_duration;

/// Changes when the form of documents does: routes of before are then written anew.
pub const FORMAT: &str = "2";

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

/// The spec of a webhook, of either kind.
#[derive(Clone, Serialize, Deserialize, PartialEq)]
pub enum Spec {
    /// What others call.
    #[serde(rename = "endpoint")]
    Endpoint(Box<WebhookEndpointSpec>),
    /// What services send out.
    #[serde(rename = "destination")]
    Destination(Box<WebhookDestinationSpec>),
}

/// One webhook with its keys. It has no `Debug`, since it holds them.
#[derive(Clone, Serialize, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RouteDocument {
    /// Which webhook this is.
    pub endpoint: Endpoint,
    /// Digest of all the rest: two that have the same serve the same.
    pub digest: String,
    /// Its spec.
    pub spec: Spec,
    /// Its keys.
    pub keys: Vec<KeyDocument>,
    /// The account that its target needs at a broker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<AccountDocument>,
    /// The keys of `source.jwt`: each a JWKS.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub source_keys: Vec<KeyDocument>,
}

/// What the Secret of a broker account holds. It has no `Debug`, since the key is in it.
#[derive(Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct AccountDocument {
    /// Servers to start from, each as `host:port`.
    pub bootstrap_servers: Vec<String>,
    /// Whom the broker takes it for.
    pub principal: String,
    /// Its certificate and those above it, in PEM.
    pub chain: String,
    /// Its private key, in PEM.
    pub key: String,
    /// Authorities of the brokers' certificates, in PEM.
    pub ca: String,
}

/// Which webhook, and which generation of it.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Endpoint {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID: a namesake that was created later is another one.
    pub uid: String,
    /// Generation of the spec.
    pub generation: i64,
}

impl Endpoint {
    /// What makes a delivery the same when it comes again: what identifies it within its webhook, and the webhook.
    #[must_use]
    pub fn identity(&self, within: &[u8]) -> Identity {
        let text = [self.uid.as_bytes(), b"\0", within].concat();
        let mut identity = [0; 32];
        identity.copy_from_slice(digest(&SHA256, &text).as_ref());
        identity
    }
}

/// Where deliveries go within the cluster.
pub enum Target {
    /// To a Service.
    Service(Service),
    /// Into an object of its own each. Larger than the other, and one for many deliveries.
    Object(Box<Object>),
    /// To a topic of Kafka, as one record each.
    Kafka(Box<Kafka>),
}

impl Target {
    /// Compiles the target of a webhook.
    ///
    /// # Errors
    /// Says what is wrong.
    pub fn compile(
        document: &RouteDocument,
        target: &WebhookTarget,
        surroundings: &Surroundings,
    ) -> Result<Self, String> {
        let RouteDocument { endpoint, account, .. } = document;
        match target {
            WebhookTarget { service: Some(service), .. } => {
                Service::compile(endpoint, service, surroundings).map(Self::Service)
            }
            WebhookTarget { object: Some(object), .. } => {
                Object::compile(endpoint, object).map(|object| Self::Object(Box::new(object)))
            }
            WebhookTarget { kafka: Some(kafka), .. } => {
                Kafka::compile(endpoint, kafka, account.as_ref()).map(|kafka| Self::Kafka(Box::new(kafka)))
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
            Self::Kafka(kafka) => &kafka.audience,
        }
    }

    /// How long a delivery may take in all.
    #[must_use]
    pub fn takes(&self) -> Duration {
        match self {
            Self::Service(service) => service.patience.takes(),
            Self::Object(object) => object.patience.takes(),
            Self::Kafka(kafka) => kafka.patience.takes(),
        }
    }

    /// The largest body that the target can take.
    #[must_use]
    pub fn takes_bytes(&self) -> usize {
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
    pub endpoint: Endpoint,
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
    pub fn compile(document: &RouteDocument, surroundings: &Surroundings) -> Result<Self, String> {
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
            endpoint: document.endpoint.clone(),
            digest: document.digest.clone(),
            path: common.path.to_owned(),
            pin: Pin::new(common.source)?,
            token: token_pin(common.source, &document.source_keys, window(common.tolerance)?)?,
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

/// How far a signed timestamp may be from the clock.
pub(super) fn window(tolerance: Option<&Tolerance>) -> Result<Window, String> {
    let Tolerance { past, future } = tolerance.cloned().unwrap_or_default();
    Ok(Window {
        past: duration("tolerance.past", past.as_deref(), SignedDuration::from_mins(5))?,
        future: duration("tolerance.future", future.as_deref(), SignedDuration::from_mins(1))?,
    })
}

/// The keys that verify.
pub(super) fn compile_keys(
    documents: &[KeyDocument],
    parse: impl Fn(&[u8]) -> Result<Material, String>,
) -> Result<Vec<Key>, String> {
    let compile = |KeyDocument { id, material, not_before, not_after }: &KeyDocument| {
        let material = parse(material.as_bytes()).map_err(|why| format!("the key {id}: {why}"))?;
        Ok(Key { id: id.clone(), not_before: *not_before, not_after: *not_after, material })
    };
    documents.iter().map(compile).collect()
}

/// Most sets of keys that a token is tried with: each costs an asymmetric verification.
const MOST_SETS: usize = 16;

fn token_pin(source: Option<&WebhookSource>, keys: &[KeyDocument], window: Window) -> Result<Option<TokenPin>, String> {
    let Some(pin) = source.and_then(|source| source.jwt.as_ref()) else { return Ok(None) };
    let secret = &pin.secret_ref.name;
    if keys.is_empty() {
        return Err(format!(
            "the key Secret {secret} of source.jwt holds nothing to verify tokens with; add the issuer's JWKS under any \
             ID, and the label credence.dev/webhook-keys: \"true\""
        ));
    }
    if keys.len() > MOST_SETS {
        return Err(format!("the key Secret {secret} of source.jwt holds too many JWKS; keep at most {MOST_SETS}"));
    }
    Ok(Some(TokenPin::new(pin, compile_keys(keys, Material::jwks)?, window)))
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const JWKS: &str = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

    /// An endpoint that asks for a token of the caller.
    fn asking(source_keys: &Value) -> RouteDocument {
        let pin = json!({"issuer": "i", "audience": "a", "subjects": ["s"], "secretRef": {"name": "issuer"}});
        document(Some(pin), source_keys)
    }

    fn document(pin: Option<Value>, source_keys: &Value) -> RouteDocument {
        serde_json::from_value(json!({
            "endpoint": {"namespace": "shop", "name": "one", "uid": "one", "generation": 1},
            "digest": "one",
            "spec": {"endpoint": {
                "path": "/shop/one",
                "verification": {"github": {}},
                "source": pin.map(|pin| json!({"jwt": pin})),
                "target": {"service": {"name": "payments", "port": 80}},
            }},
            "keys": [{"id": "first", "material": "0123456789abcdef0123456789abcdef"}],
            "sourceKeys": source_keys,
        }))
        .unwrap()
    }

    fn compile(document: &RouteDocument) -> Result<Route, String> {
        let destinations = Reach::Public(Arc::from([]));
        let surroundings = Surroundings { cluster_domain: "cluster.local".into(), service_address: None, destinations };
        Route::compile(document, &surroundings)
    }

    #[test]
    fn a_token_is_asked_for_only_with_keys_to_verify_it() {
        let keys = |count: usize| (0..count).map(|id| json!({"id": id.to_string(), "material": JWKS})).collect();
        let refused = |keys: Value| compile(&asking(&keys)).err().unwrap();
        let route = compile(&asking(&keys(MOST_SETS))).ok().unwrap();
        assert!(route.token.is_some() && route.way.key_ids().count() == 1);
        let none = refused(json!([]));
        assert!(none.starts_with("the key Secret issuer of source.jwt") && none.contains("add"), "{none}");
        assert!(refused(keys(MOST_SETS + 1)).contains("at most 16"));
        let secret = refused(json!([{"id": "x", "material": "0123456789abcdef"}]));
        assert!(secret.starts_with("the key x: not a JWK Set; write"), "{secret}");
    }

    #[test]
    fn a_document_without_keys_of_the_source_is_as_before() {
        let document = document(None, &json!([]));
        let text = serde_json::to_string(&document).unwrap();
        assert!(!text.contains("sourceKeys"), "{text}");
        assert!(compile(&serde_json::from_str(&text).unwrap()).is_ok_and(|route| route.token.is_none()));
    }
}
