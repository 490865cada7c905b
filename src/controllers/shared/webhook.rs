//! What the two kinds of webhooks have in common, and where they differ.

use crate::api::{
    KafkaTarget, Kind, ReplayStore, RotationTargetKind, ServiceTarget, Verification, WebhookDestination,
    WebhookEndpoint, WebhookKeyAlgorithm, WebhookKeys, WebhookSource, WebhookStatus, WebhookTarget,
};
use crate::contract::route::Spec;

/// Label that the owner of a Secret puts on it to allow its use for webhooks.
pub const EXTERNAL_LABEL: &str = "credence.dev/webhook-keys";

/// Says that certificates with a pinned DNS name are verified as before there were bundles.
const DNS_NAMES_WITHOUT_BUNDLE: &str = "source.clientCertificate.dnsNames without caBundle are verified by the trust bundle until \
     0.4.0; add caBundle with the authorities of the caller";

/// Says that every subject of an issuer may send, as before a subject was required.
const TOKEN_WITHOUT_SUBJECT: &str =
    "verification.jwt without subject accepts every subject of the issuer until 0.4.0; add subject";

/// Says that signatures are verified with the host that the caller names, as before the external URL was required.
const SIGNATURES_WITHOUT_URL: &str = "verification.httpMessageSignatures without externalURL believes the host that the caller names \
     until 0.4.0; add externalURL";

/// Where the keys of a webhook come from.
pub enum KeySource<'a> {
    /// The operator generates them, with this algorithm.
    Generated(WebhookKeyAlgorithm),
    /// Their owner provides them in this Secret.
    External(&'a str),
}

/// Name of the Secret with the keys that the operator generates.
#[must_use]
pub fn key_secret<W: Webhook>(webhook: &W) -> String {
    format!("{}-{}", webhook.meta().name.as_deref().unwrap_or_default(), W::KEY_SECRET)
}

/// A kind whose objects the edge serves, each under a path and with a key set.
pub trait Webhook: Kind<Status = WebhookStatus> {
    /// The kind, as rotation policies name it.
    const ROTATION: RotationTargetKind;
    /// The end of the name of the Secret with its keys. Objects of two kinds may have one name.
    const KEY_SECRET: &'static str;

    /// Whether the edge signs with its keys, or verifies with them.
    const SIGNS: bool;

    /// Its path at the edge.
    fn path(&self) -> &str;
    /// Its key set, as the spec says.
    fn keys(&self) -> Option<&WebhookKeys>;
    /// Who may call.
    fn source(&self) -> Option<&WebhookSource>;
    /// Where it delivers within the cluster, if it does.
    fn target(&self) -> Option<&WebhookTarget>;
    /// Its spec, as the edge gets it.
    fn route_spec(&self) -> Spec;
    /// Whether its keys are written as Standard Webhooks writes them.
    fn has_standard_keys(&self) -> bool;
    /// What its verification protects against, in words.
    fn protection(&self) -> &'static str;
    /// Whether each replica of the edge has its own delivery history.
    fn has_local_history(&self) -> bool;
    /// What it does when it is Ready, in words.
    fn purpose(&self) -> String;

    /// What of its verification goes on from before a rule was tightened, each with what to do about it.
    fn verification_remarks(&self) -> Vec<&'static str>;

    /// What of it goes on from before a rule was tightened, each with what to do about it.
    fn remarks(&self) -> Vec<&'static str> {
        let pin = self.source().and_then(|source| source.client_certificate.as_ref());
        let lacks_bundle = pin.is_some_and(|pin| !pin.dns_names.is_empty() && pin.ca_bundle.is_none());
        lacks_bundle.then_some(DNS_NAMES_WITHOUT_BUNDLE).into_iter().chain(self.verification_remarks()).collect()
    }

    /// Where its keys come from.
    fn key_source(&self) -> KeySource<'_> {
        match self.keys() {
            Some(WebhookKeys { external: Some(external), .. }) => KeySource::External(&external.secret_ref.name),
            keys => {
                let generated = keys.and_then(|keys| keys.generated.as_ref());
                KeySource::Generated(generated.and_then(|it| it.algorithm).unwrap_or_default())
            }
        }
    }

    /// The Secret with the keys of the issuer whose tokens callers must send.
    fn source_secret(&self) -> Option<&str> {
        Some(&self.source()?.jwt.as_ref()?.secret_ref.name)
    }

    /// The topic that it writes to, if it does.
    fn kafka(&self) -> Option<&KafkaTarget> {
        self.target()?.kafka.as_ref()
    }

    /// The Service that it delivers to, if it does.
    fn service(&self) -> Option<&ServiceTarget> {
        self.target()?.service.as_ref()
    }

    /// The Secret with the keys that its target shares with the edge.
    fn assertion_secret(&self) -> Option<&str> {
        Some(&self.service()?.assertion.as_ref()?.hs256.secret_ref.name)
    }
}

impl Webhook for WebhookEndpoint {
    const ROTATION: RotationTargetKind = RotationTargetKind::WebhookEndpoint;
    const KEY_SECRET: &'static str = "webhook-keys";
    const SIGNS: bool = false;

    fn path(&self) -> &str {
        &self.spec.path
    }

    fn keys(&self) -> Option<&WebhookKeys> {
        self.spec.keys.as_ref()
    }

    fn source(&self) -> Option<&WebhookSource> {
        self.spec.source.as_ref()
    }

    fn target(&self) -> Option<&WebhookTarget> {
        Some(&self.spec.target)
    }

    fn route_spec(&self) -> Spec {
        Spec::Endpoint(Box::new(self.spec.clone()))
    }

    fn has_standard_keys(&self) -> bool {
        self.spec.verification.standard_webhooks.is_some()
    }

    fn protection(&self) -> &'static str {
        match &self.spec.verification {
            Verification { gitlab: Some(_), .. } => {
                "nothing is signed: the token is a password; freshness and replay protection rely on the delivery history of the body"
            }
            Verification { github: Some(_), .. } | Verification { shopify: Some(_), .. } => {
                "the body is signed, no timestamp: freshness and replay protection rely on the delivery history of the body"
            }
            Verification { twilio: Some(_), .. } => {
                "URL and parameters are signed, no timestamp: freshness and replay protection rely on the delivery history"
            }
            Verification { hmac: Some(hmac), .. } if hmac.parts.iter().all(|part| part.timestamp.is_none()) => {
                "body signed, no timestamp: freshness and replay protection rely on the delivery history"
            }
            _ => "body and timestamp are signed; replay protection relies on the delivery history",
        }
    }

    fn verification_remarks(&self) -> Vec<&'static str> {
        let Verification { jwt, http_message_signatures, .. } = &self.spec.verification;
        let lacks_subject = jwt.as_ref().is_some_and(|jwt| jwt.subject.is_none());
        let lacks_url = http_message_signatures.is_some() && self.spec.external_url.is_none();
        let remarks = [(lacks_subject, TOKEN_WITHOUT_SUBJECT), (lacks_url, SIGNATURES_WITHOUT_URL)];
        remarks.into_iter().filter(|(applies, _)| *applies).map(|(_, remark)| remark).collect()
    }

    fn has_local_history(&self) -> bool {
        let store = self.spec.replay.as_ref().and_then(|replay| replay.store).unwrap_or_default();
        store == ReplayStore::Memory
    }

    fn purpose(&self) -> String {
        format!("deliveries to {} go to their target", self.spec.path)
    }
}

impl Webhook for WebhookDestination {
    const ROTATION: RotationTargetKind = RotationTargetKind::WebhookDestination;
    const KEY_SECRET: &'static str = "webhook-signing-keys";
    const SIGNS: bool = true;

    fn path(&self) -> &str {
        &self.spec.path
    }

    fn keys(&self) -> Option<&WebhookKeys> {
        self.spec.keys.as_ref()
    }

    fn source(&self) -> Option<&WebhookSource> {
        Some(&self.spec.source)
    }

    fn target(&self) -> Option<&WebhookTarget> {
        self.spec.dead_letter.as_ref()
    }

    fn route_spec(&self) -> Spec {
        Spec::Destination(Box::new(self.spec.clone()))
    }

    fn has_standard_keys(&self) -> bool {
        true
    }

    fn protection(&self) -> &'static str {
        match (self.spec.target.public_keys.is_empty(), self.spec.dead_letter.is_some()) {
            (true, true) => {
                "signed with every live key; pinned to the host; undelivered messages go to the dead letter"
            }
            (true, false) => {
                "signed with every live key; pinned to the host; undelivered messages are not queued; the sender must retry"
            }
            (false, true) => {
                "signed with every live key; pinned to the host and its public key; undelivered messages go to \
                 the dead letter"
            }
            (false, false) => {
                "signed with every live key; pinned to the host and its public key; undelivered messages are not \
                 queued; the sender must retry"
            }
        }
    }

    fn verification_remarks(&self) -> Vec<&'static str> {
        Vec::new()
    }

    fn has_local_history(&self) -> bool {
        false
    }

    fn purpose(&self) -> String {
        format!("what is posted to {} is signed and goes to {}", self.spec.path, self.spec.target.url)
    }
}
