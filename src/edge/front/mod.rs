//! What stands before every protocol that the edge speaks: the accept loop, the TLS handshake with the edge's certificate,
//! limits on connections, idle connections, the stop, and the writer of the audit log.
//!
//! The front authorizes nothing. It hands a bounded [`Connection`] to a [`Protocol`], together with the peer's address and the
//! certificate chain that the peer presented; the protocol decides what the peer may do.
//!
//! ```text
//! accept ─▶ quota ─▶ worker: TLS handshake ─▶ Connection { stream, peer, lifetime } ─▶ Protocol::serve
//! ```

mod audit;
pub mod certificate;
mod connection;
mod lifetime;
mod limits;
mod metrics;
mod names;
mod serve;
mod workers;

pub use audit::{AuditLog, AuditOptions, FLUSH_TIMEOUT, WhenFull};
pub use certificate::{CertificateError, LoadedCertificate, TlsCertificate};
pub use connection::{Connection, Protocol, TlsStream};
pub use lifetime::{BusyGuard, Lifetime};
pub use limits::{Permit, ProcessLimits, Quota};
pub use metrics::FrontMetrics;
pub use names::CertificateNames;
pub use serve::{DRAIN_TIMEOUT, Front};
pub use workers::{PerWorker, Workers};
