//! Why an object was not created: what that means for the delivery, and what somebody has to do about it.

use kube::core::Status;

use super::super::outcome::Why;
use super::Answer;
use super::object::{EDGE, Object};

/// Why an object was not created.
pub enum Refusal {
    /// The edge was not given a token.
    Token(kube::Error),
    /// The API server has no such kind that belongs to namespaces.
    Kind,
    /// It was not created.
    Object(kube::Error),
}

impl Refusal {
    /// What it means for the delivery.
    pub fn answer(&self) -> Answer {
        let status = match self {
            Self::Kind => return Answer::last(Why::TargetRefused, None),
            Self::Token(kube::Error::Api(status)) | Self::Object(kube::Error::Api(status)) => status,
            Self::Token(_) | Self::Object(_) => {
                return Answer { why: Why::TargetUnreachable, status: None, is_passing: true };
            }
        };
        let why = match status.code {
            // An earlier attempt has created it, whose answer was lost.
            409 if status.reason == "AlreadyExists" && matches!(self, Self::Object(_)) => Why::Delivered,
            403 => Why::TargetForbidden,
            _ => Why::TargetRefused,
        };
        // The token may have ended early, and two writers of a quota get in each other's way.
        let is_passing = matches!(status.code, 401 | 409 | 429 | 500..) && why != Why::Delivered;
        Answer { why, status: Some(status.code), is_passing }
    }

    /// Says what to do about it. What the API server says of an object may quote the delivery, so only its reason and
    /// the names of fields are told.
    pub fn explain(&self, target: &Object, edge_namespace: &str) {
        let (namespace, account) = (&target.endpoint.namespace, &target.account);
        let endpoint = format!("{namespace}/{}", target.endpoint.name);
        let what = format!("{} of {}", target.kind, target.api_version);
        match self {
            Self::Token(kube::Error::Api(status)) if status.code == 403 => tracing::warn!(
                endpoint,
                "the edge may not act as the ServiceAccount {account}; let it with: kubectl create role \
                 credence-edge-{account} --namespace {namespace} --verb=create --resource=serviceaccounts/token \
                 --resource-name={account} && kubectl create rolebinding credence-edge-{account} --namespace \
                 {namespace} --role=credence-edge-{account} --serviceaccount={edge_namespace}:{EDGE}"
            ),
            Self::Token(error) => {
                tracing::warn!(endpoint, %error, "there is no token of the ServiceAccount {account}");
            }
            Self::Kind => tracing::warn!(endpoint, "there is no {what} that belongs to namespaces"),
            Self::Object(kube::Error::Api(status)) if status.code == 403 => tracing::warn!(
                endpoint,
                "the ServiceAccount {account} may not create a {what} in {namespace}, or a quota or a policy is in the way"
            ),
            Self::Object(kube::Error::Api(status)) => {
                let (code, reason, fields) = (status.code, &status.reason, fields(status));
                tracing::warn!(endpoint, code, reason, fields, "the API server did not take a {what}");
            }
            Self::Object(error) => tracing::warn!(endpoint, %error, "the API server cannot be reached"),
        }
    }
}

fn fields(status: &Status) -> String {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    causes.map(|cause| format!("{} {}", cause.field, cause.reason)).collect::<Vec<_>>().join(", ")
}
