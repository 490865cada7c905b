//! Integration tests on real parts: an API server, Kafka, the operator and the edge, as `make test` starts them.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod admission;
mod argocd;
mod assertion;
#[allow(dead_code, reason = "shared with the other tests")]
mod authority;
#[allow(dead_code, reason = "shared with the other tests")]
mod bed;
mod beds;
#[allow(dead_code, reason = "shared with the other tests")]
mod calls;
mod federation;
mod flooding_targets;
#[allow(dead_code, reason = "shared with the other tests")]
mod hooks;
mod hostile;
mod identity;
mod identity_provider;
mod install;
mod leadership;
mod manifests;
mod monitoring;
mod operations;
mod outbound;
mod readme;
mod redis_tls;
mod restart;
mod rotation;
mod serving;
mod stalled_output;
mod tokens;
mod topic_policy;
mod trust_domain;
mod users;
mod webhook;
mod webhook_kafka;
mod webhook_objects;
mod webhook_rules;
