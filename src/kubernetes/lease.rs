//! Leader election with a Lease: one replica leads, the others are standby replicas, and a replica that loses
//! the lease stops writing.
//!
//! The protocol is that of client-go. A standby replica measures with its own clock how long the lease was not renewed, so the
//! clocks of the replicas may differ.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{Api, ObjectMeta, PostParams};
use thiserror::Error;
use tokio::time::{sleep, timeout};

use super::answer;
use super::error::has_code;
use crate::domain::fence::Fence;

/// Name of the Lease in the operator's namespace.
const NAME: &str = "credence";

/// Why the lease could be neither read nor written.
#[derive(Debug, Error)]
enum LeaseError {
    #[error("the API server did not answer in time")]
    Timeout,
    #[error("{}", answer::describe(.0))]
    Api(#[from] kube::Error),
}

/// Who holds the lease.
enum Holder {
    /// This process.
    Own,
    /// Another process, by its name.
    Other(String),
}

/// A candidate for leadership.
pub struct Candidate {
    api: Api<Lease>,
    /// The name of this replica. A process that restarts under the same name takes its lease over at once.
    identity: String,
    duration: Duration,
    fence: Fence,
    /// The last observed version of the lease of another replica, and when it was first observed.
    seen: Option<(String, Instant)>,
}

impl Candidate {
    /// A candidate. `identity` must be unique among running processes, as the name of a pod is. `client` must not be fenced.
    #[must_use]
    pub fn new(client: kube::Client, namespace: &str, identity: String, duration: Duration, fence: Fence) -> Self {
        Self { api: Api::namespaced(client, namespace), identity, duration, fence, seen: None }
    }

    /// Waits until this replica holds the lease.
    pub async fn lead(&mut self) {
        let mut logged = None;
        loop {
            match self.attempt().await {
                Ok(Holder::Own) => {
                    tracing::info!(identity = self.identity, "leading");
                    return;
                }
                Ok(Holder::Other(holder)) if logged.as_ref() != Some(&holder) => {
                    tracing::info!(identity = self.identity, holder, "standing by");
                    logged = Some(holder);
                }
                Ok(Holder::Other(_)) => {}
                Err(error) => {
                    tracing::warn!(identity = self.identity, %error, "failed to read or write the lease; retrying");
                }
            }
            sleep(self.pause()).await;
        }
    }

    /// Renews the lease until it is lost.
    pub async fn hold(&mut self) {
        while self.fence.holds() {
            sleep(self.pause()).await;
            match self.attempt().await {
                Ok(Holder::Own) => {}
                Ok(Holder::Other(holder)) => {
                    tracing::error!(identity = self.identity, holder, "another replica took the lease");
                    self.fence.fall();
                }
                Err(error) => {
                    tracing::warn!(identity = self.identity, %error, "failed to renew the lease; retrying");
                }
            }
        }
        tracing::error!(identity = self.identity, "lost leadership; writes are fenced off");
    }

    /// Releases the lease, so that another replica need not wait until it expires.
    pub async fn release(&mut self) {
        self.fence.fall();
        let release = async {
            let Some(mut lease) = self.api.get_opt(NAME).await? else { return Ok(()) };
            let spec = lease.spec.get_or_insert_default();
            if spec.holder_identity.as_deref() != Some(self.identity.as_str()) {
                return Ok(());
            }
            spec.holder_identity = None;
            self.api.replace(NAME, &PostParams::default(), &lease).await.map(|_| ())
        };
        if let Ok(Err(error)) = timeout(self.pause(), release).await {
            tracing::warn!(
                identity = self.identity,
                error = answer::describe(&error),
                "failed to release the lease; another replica takes over when it expires"
            );
        }
    }

    fn pause(&self) -> Duration {
        self.duration / 5
    }

    /// Takes or renews the lease if no other process holds it.
    async fn attempt(&mut self) -> Result<Holder, LeaseError> {
        let asked = Instant::now();
        let result = timeout(self.duration / 3, self.claim(asked)).await;
        let holder = result.map_err(|_| LeaseError::Timeout)??;
        if matches!(holder, Holder::Own) {
            // Other replicas count from when they observe the renewal, which is later than when it was requested.
            self.fence.extend(asked + self.duration * 9 / 10);
        }
        Ok(holder)
    }

    async fn claim(&mut self, now: Instant) -> Result<Holder, kube::Error> {
        let found = self.api.get_opt(NAME).await?;
        let before = found.as_ref().and_then(|lease| lease.spec.clone()).unwrap_or_default();
        let holder = before.holder_identity.clone().filter(|holder| !holder.is_empty());
        let is_ours = holder.as_deref() == Some(self.identity.as_str());
        if let (Some(lease), Some(holder), false) = (&found, &holder, is_ours) {
            let version = lease.metadata.resource_version.clone().unwrap_or_default();
            let since = match &self.seen {
                Some((known, since)) if *known == version => *since,
                _ => now,
            };
            self.seen = Some((version, since));
            let lasts = u64::try_from(before.lease_duration_seconds.unwrap_or(0)).unwrap_or(0);
            if now.duration_since(since) < Duration::from_secs(lasts) {
                return Ok(Holder::Other(holder.clone()));
            }
        }
        let written = match &found {
            None => self.api.create(&PostParams::default(), &self.lease(ObjectMeta::default(), before, false)).await,
            Some(lease) => {
                let fresh = self.lease(lease.metadata.clone(), before, is_ours);
                self.api.replace(NAME, &PostParams::default(), &fresh).await
            }
        };
        match written {
            Ok(_) => Ok(Holder::Own),
            Err(error) if has_code(&error, 409) => Ok(Holder::Other("a replica that wrote it just now".to_owned())),
            Err(error) => Err(error),
        }
    }

    fn lease(&self, metadata: ObjectMeta, before: LeaseSpec, is_ours: bool) -> Lease {
        let now = MicroTime(Timestamp::now());
        let transitions = before.lease_transitions.unwrap_or(0);
        Lease {
            metadata: ObjectMeta { name: Some(NAME.to_owned()), managed_fields: None, ..metadata },
            spec: Some(LeaseSpec {
                holder_identity: Some(self.identity.clone()),
                lease_duration_seconds: i32::try_from(self.duration.as_secs()).ok(),
                acquire_time: if is_ours { before.acquire_time } else { Some(now.clone()) },
                renew_time: Some(now),
                lease_transitions: Some(if is_ours { transitions } else { transitions.saturating_add(1) }),
                ..LeaseSpec::default()
            }),
        }
    }
}
