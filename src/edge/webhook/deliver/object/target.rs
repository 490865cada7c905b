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
/// How many objects of one endpoint are being created at the same time; others wait, and deliveries of other endpoints do not.
const MAX_CONCURRENT: usize = 32;

/// An object target: the template, the account, and what is known about the kind.
pub struct Object {
    /// The kind in this namespace, as `<kind>.<namespace>`: the audience of assertions.
    pub audience: String,
    /// How often it is tried.
    pub retry: RetryPolicy,
    /// The template.
    pub template: Template,
    /// The endpoint that it belongs to.
    pub(super) endpoint: WebhookReference,
    /// Name of the `ServiceAccount` that creates the objects.
    pub(super) account: String,
    pub(super) api_version: String,
    pub(super) kind: String,
    pub(super) token: TokenCache,
    /// The plural of the kind, once it is known.
    pub(super) plural: ArcSwapOption<String>,
    pub(super) slots: Semaphore,
    pub(super) log_throttle: LogThrottle,
}

impl Object {
    /// Compiles the target of an endpoint.
    ///
    /// # Errors
    /// Names the field that is invalid.
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

    /// A path below the group and version of the kind in the API server.
    pub(super) fn path(&self, below: &str) -> String {
        let root = if self.api_version.contains('/') { "apis" } else { "api" };
        format!("/{root}/{}{below}", self.api_version)
    }
}
