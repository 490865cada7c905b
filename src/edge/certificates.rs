//! The certificates of a role: its own, and those that callers are shown. Both are followed in the Secrets of its namespace.

use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::runtime::watcher::watcher;

use super::front::{certificate, serving};
use super::http::Http;
use super::role::{CertificateSecrets, Role};
use crate::kubernetes::health::Health;
use crate::kubernetes::watch::{Interruptions, config};

/// The watches, as readiness and metrics name them.
const CERTIFICATE: &str = "certificate";
const SERVING_CERTIFICATES: &str = "serving_certificates";
/// The watches that must have listed everything before a role is ready. It is ready without a serving certificate that is missing or
/// invalid: the others, and callers that know the role's own certificate, need not wait for it.
pub const PARTS: [&str; 2] = [CERTIFICATE, SERVING_CERTIFICATES];
/// The type of the Secrets with serving certificates.
const TLS_SECRETS: &str = "type=kubernetes.io/tls";

/// Follows the certificates for ever.
pub async fn follow<R: Role>(
    role: &R,
    secrets: Api<Secret>,
    names: &CertificateSecrets,
    interruptions: Interruptions,
    health: &Health,
) {
    let named = config().fields(&format!("metadata.name={}", names.own));
    let watched = secrets.clone();
    let own = interruptions.clone().retry_forever(CERTIFICATE, move || watcher(watched.clone(), named.clone()));
    tokio::join!(
        certificate::follow(own, |loaded| role.use_certificate(loaded), || health.started(CERTIFICATE)),
        follow_serving(role, secrets, &names.serving, interruptions, health),
    );
}

async fn follow_serving<R: Role>(
    role: &R,
    secrets: Api<Secret>,
    names: &[String],
    interruptions: Interruptions,
    health: &Health,
) {
    let listed = || health.started(SERVING_CERTIFICATES);
    if names.is_empty() {
        return listed();
    }
    let front = role.front();
    for name in names {
        front.expect(name);
    }
    let show = |place: usize, chain: &[u8], key: &[u8]| front.show::<Http<R>>(place, &names[place], chain, key);
    let events = interruptions
        .retry_forever(SERVING_CERTIFICATES, move || watcher(secrets.clone(), config().fields(TLS_SECRETS)));
    serving::follow(events, names, show, listed).await;
}
