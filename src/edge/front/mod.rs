//! What stands before every protocol that the edge speaks: the accept loop, the TLS handshake with the edge's certificate,
//! limits on connections, idle connections, the stop, and the writer of the audit log.
//!
//! The front authorizes nothing. It hands a bounded [`Connection`] to a [`Protocol`], together with the peer's address and the
//! certificate that the peer presented. The handshake proves possession of its key only; the protocol asks [`Authorities`]
//! whether they vouch for it, and decides what the peer may do.
//!
//! ```text
//! accept ─▶ quota ─▶ worker: TLS handshake ─▶ Connection { stream, peer, lifetime } ─▶ Protocol::serve
//! ```

mod audit;
mod authorities;
pub mod certificate;
mod client_certificate;
mod connection;
mod lifetime;
mod limits;
mod metrics;
mod names;
mod possession;
mod serve;
pub mod serving;
mod stalls;
mod tls;
mod turns;
mod workers;

pub use audit::{AuditLog, AuditOptions, FLUSH_TIMEOUT, WhenFull};
pub use authorities::{Authorities, InvalidAuthorities};
pub use certificate::{CertificateError, LoadedCertificate};
pub use client_certificate::ClientCertificate;
pub use connection::{Connection, Protocol, TlsStream};
pub use lifetime::{BusyGuard, DRAIN_TIMEOUT, Lifetime};
pub use limits::{Permit, ProcessLimits, Quota, network_of};
pub use metrics::FrontMetrics;
pub use names::CertificateNames;
pub use serve::Front;
pub use serving::ServingCertificate;
pub use stalls::{OnWorker, measured};
pub use turns::{Party, Turns};
pub use workers::{PerWorker, Workers};
