//! The part of a route that only `WebhookDestination` has.

use crate::api::WebhookDestinationSpec;
use crate::contract::route::RouteDocument;
use crate::edge::webhook::assertion::SharedKeys;
use crate::edge::webhook::deliver::destination::Destination;
use crate::edge::webhook::deliver::target::Target;
use crate::edge::webhook::invalid::InvalidRoute;
use crate::edge::webhook::keys::InvalidKeys;
use crate::edge::webhook::routing::RoutingConfig;
use crate::edge::webhook::signing::SigningKey;

/// Maximum number of keys: each makes a signature, and receivers limit how many they look at.
pub(super) const MAX_KEYS: usize = 8;

/// The part of a route that only `WebhookDestination` has.
pub struct OutboundRoute {
    /// All keys, valid now or not.
    pub keys: Vec<SigningKey>,
    /// Where deliveries go.
    pub destination: Destination,
    /// Where deliveries go that the destination did not accept.
    pub dead_letter: Option<Target>,
    /// The keys that the target of dead letters shares, if assertions are made with them.
    pub shared_keys: Option<SharedKeys>,
}

impl OutboundRoute {
    /// What signing a body of this length takes at most, in bytes that are hashed in the same time.
    #[must_use]
    pub fn work(&self, length: usize) -> usize {
        2 * self.keys.len() * length
    }

    /// Compiles a document.
    ///
    /// # Errors
    /// Names the field or the key that is invalid, and says what to write instead.
    pub fn compile(
        document: &RouteDocument,
        spec: &WebhookDestinationSpec,
        routing: &RoutingConfig,
    ) -> Result<Self, InvalidRoute> {
        if document.keys.len() > MAX_KEYS {
            return Err(InvalidKeys::TooMany { max: MAX_KEYS }.into());
        }
        let target = spec.dead_letter.as_ref();
        let dead_letter = target.map(|target| Target::compile("deadLetter", document, target, routing));
        let shared_keys = target.map(|target| SharedKeys::compile(target, &document.assertion_keys)).transpose()?;
        Ok(Self {
            keys: document.keys.iter().map(SigningKey::parse).collect::<Result<_, _>>()?,
            destination: Destination::compile(&spec.target, &routing.destinations.of(&document.webhook.namespace))?,
            dead_letter: dead_letter.transpose()?,
            shared_keys: shared_keys.flatten(),
        })
    }
}
