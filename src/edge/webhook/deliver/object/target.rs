//! An object as a target: its template, and the account that creates it.

use arc_swap::ArcSwapOption;
use tokio::sync::Semaphore;

use super::super::retry::{LogThrottle, RetryPolicy};
use super::template::Template;
use super::token::TokenCache;
use crate::api::ObjectTarget;
use crate::contract::route::WebhookReference;
use crate::domain::invalid_field::InvalidField;

/// Name of the edge's own `ServiceAccount`, as the chart has it.
pub(super) const EDGE: &str = "credence-edge";
/// How many objects of one endpoint are being created at the same time; further ones wait, and nobody else does.
const MAX_CONCURRENT: usize = 32;

/// A template with whatever it takes to create objects from it.
pub struct Object {
    /// The kind in this namespace, as `<kind>.<namespace>`: the audience of assertions.
    pub audience: String,
    /// How it is tried.
    pub retry: RetryPolicy,
    /// What is filled with a delivery.
    pub template: Template,
    /// Whose target it is.
    pub(super) endpoint: WebhookReference,
    /// The `ServiceAccount`.
    pub(super) account: String,
    pub(super) api_version: String,
    pub(super) kind: String,
    pub(super) token: TokenCache,
    /// What the API server calls the kind in paths.
    pub(super) plural: ArcSwapOption<String>,
    pub(super) slots: Semaphore,
    pub(super) log_throttle: LogThrottle,
}

impl Object {
    /// Compiles the target of an endpoint.
    ///
    /// # Errors
    /// Says what is wrong.
    pub fn compile(endpoint: &WebhookReference, target: &ObjectTarget) -> Result<Self, InvalidField> {
        let ObjectTarget { service_account_name, template, attempts } = target;
        Ok(Self {
            audience: format!("{}.{}", template.kind.to_lowercase(), endpoint.namespace),
            retry: RetryPolicy::compile("object", attempts)?,
            template: Template::compile(template)
                .map_err(|error| InvalidField::new("object.template", error.to_string()))?,
            endpoint: endpoint.clone(),
            account: service_account_name.clone(),
            api_version: template.api_version.clone(),
            kind: template.kind.clone(),
            token: TokenCache::default(),
            plural: ArcSwapOption::empty(),
            slots: Semaphore::new(MAX_CONCURRENT),
            log_throttle: LogThrottle::default(),
        })
    }

    /// The path of a group and version in the API server, and below it.
    pub(super) fn path(&self, below: &str) -> String {
        let root = if self.api_version.contains('/') { "apis" } else { "api" };
        format!("/{root}/{}{below}", self.api_version)
    }
}
