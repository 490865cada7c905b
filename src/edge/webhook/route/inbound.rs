//! The part of a route that only `WebhookEndpoint` has.

use std::time::Duration;

use jiff::SignedDuration;

use crate::api::{ReplayStore, WebhookEndpointSpec};
use crate::contract::route::RouteDocument;
use crate::domain::invalid_field::InvalidField;
use crate::domain::schedule::duration;
use crate::edge::webhook::assertion::SharedKeys;
use crate::edge::webhook::deliver::target::Target;
use crate::edge::webhook::invalid::InvalidRoute;
use crate::edge::webhook::keys;
use crate::edge::webhook::replay::KeyPointer;
use crate::edge::webhook::routing::RoutingConfig;
use crate::edge::webhook::verify::keys::Key;
use crate::edge::webhook::verify::{Scheme, Window};

/// For how long a delivery is remembered when the spec does not say.
const DEFAULT_REPLAY_WINDOW: SignedDuration = SignedDuration::from_hours(24);

/// Maximum number of keys that a delivery is verified with: each costs a pass over its body.
pub(super) const MAX_KEYS: usize = 32;
/// How many times as long as hashing it parsing JSON takes.
const PARSING: usize = 16;

/// How a delivery that was accepted before is recognized.
#[derive(Clone, Debug)]
pub struct ReplayRules {
    /// For how long it is remembered.
    pub window: Duration,
    /// Where.
    pub store: ReplayStore,
    /// Where the idempotency key is in the body.
    pub idempotency_key: Option<KeyPointer>,
}

/// The part of a route that only `WebhookEndpoint` has.
pub struct InboundRoute {
    /// The URL as callers know it.
    pub external_url: Option<String>,
    /// How deliveries are verified.
    pub scheme: Scheme,
    /// All keys, valid now or not.
    pub keys: Vec<Key>,
    /// How far a signed timestamp may be from the clock.
    pub window: Window,
    /// How a delivery that was accepted before is recognized.
    pub replay: ReplayRules,
    /// Where deliveries go.
    pub target: Target,
    /// The keys that the target shares, if assertions are made with them.
    pub shared_keys: Option<SharedKeys>,
}

impl InboundRoute {
    /// What a request with a body of this length takes at most, in bytes that are hashed in the same time: a pass over the body
    /// for every key, two for its digest and its identity, and as many more to find the idempotency key in it as that is slower.
    #[must_use]
    pub fn work(&self, length: usize) -> usize {
        let keys: usize = self.keys.iter().map(|key| key.verifier.work(length)).sum();
        let parsed = if self.replay.idempotency_key.is_some() { PARSING * length } else { 0 };
        keys + 2 * length + parsed
    }

    /// Compiles a document.
    ///
    /// # Errors
    /// Names the field or the key that is invalid, and says what to write instead.
    pub fn compile(
        document: &RouteDocument,
        spec: &WebhookEndpointSpec,
        routing: &RoutingConfig,
    ) -> Result<Self, InvalidRoute> {
        let scheme = Scheme::new(&spec.verification)?;
        let window = Window::compile(spec.tolerance.as_ref())?;
        let replay = spec.replay.clone().unwrap_or_default();
        let remembered = duration("replay.window", replay.window.as_deref(), DEFAULT_REPLAY_WINDOW)?;
        if remembered < window.past + window.future {
            let message = "it must be as long as tolerance.past and tolerance.future together, or a delivery would be \
                           new again while it is still fresh";
            return Err(InvalidField::new("replay.window", message).into());
        }
        Ok(Self {
            external_url: spec.external_url.clone(),
            // The operator writes no more, but did so once.
            keys: keys::compile(&document.keys[..MAX_KEYS.min(document.keys.len())], |text| scheme.parse_key(text))?,
            scheme,
            window,
            replay: ReplayRules {
                window: remembered.unsigned_abs(),
                store: replay.store.unwrap_or_default(),
                idempotency_key: replay.idempotency_key.as_deref().map(KeyPointer::new),
            },
            target: Target::compile("target", document, &spec.target, routing)?,
            shared_keys: SharedKeys::compile(&spec.target, &document.assertion_keys)?,
        })
    }
}
