//! The edge: the data plane, which faces callers outside of the cluster. Nothing in here asks the API server while it serves a
//! request, unless an object there is the target.
//!
//! ```text
//!   front ──▶ http ──▶ webhook, tokens
//! ```
//!
//! - [`front`] accepts connections, and authorizes nothing.
//! - [`http`] stands on the front, and serves whatever speaks HTTP.
//! - [`webhook`] is the webhook gateway.
//! - [`tokens`] is the issuer of access tokens.
//!
//! Each role of the edge runs as a process of its own (`credence edge --serve <role>`), so that one that faces the Internet holds
//! no other role's keys; [`role`] is what they have in common. A further role is a sibling of `webhook`: one that speaks HTTP
//! implements [`Role`](crate::edge::role::Role), any other implements [`Protocol`](crate::edge::front::Protocol).

pub mod certificates;
mod encoding;
pub mod front;
pub mod http;
pub mod jose;
mod report;
pub mod role;
pub mod tokens;
pub mod webhook;
mod work;
