//! Reason an object was not created: what that means for the delivery, and what somebody has to do about it.

use kube::core::Status;

use super::super::retry::Answer;
use super::target::{EDGE, Object};
use crate::edge::webhook::outcome::Reason;

/// Reason an object was not created.
pub enum CreateError {
    /// The edge was not given a token.
    Token(kube::Error),
    /// The API server has no such kind that belongs to namespaces.
    Kind,
    /// It was not created.
    Object(kube::Error),
}

impl CreateError {
    /// What it means for the delivery.
    pub fn answer(&self) -> Answer {
        let status = match self {
            Self::Kind => return Answer::permanent(Reason::TargetRefused, None),
            Self::Token(kube::Error::Api(status)) | Self::Object(kube::Error::Api(status)) => status,
            Self::Token(_) | Self::Object(_) => {
                return Answer::retryable(Reason::TargetUnreachable);
            }
        };
        let why = match status.code {
            // An earlier attempt has created it, whose answer was lost.
            409 if status.reason == "AlreadyExists" && matches!(self, Self::Object(_)) => Reason::Delivered,
            403 => Reason::TargetForbidden,
            _ => Reason::TargetRefused,
        };
        // The token may have ended early, and two writers of a quota get in each other's way.
        let is_retryable = matches!(status.code, 401 | 409 | 429 | 500..) && why != Reason::Delivered;
        Answer { reason: why, status: Some(status.code), is_retryable }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_pass_is_tried_again_and_nothing_else() {
        let said = |code, reason| kube::Error::Api(Status::failure("", reason).with_code(code).boxed());
        for (code, reason, why, is_retryable) in [
            (400, "BadRequest", Reason::TargetRefused, false),
            (401, "Unauthorized", Reason::TargetRefused, true),
            (403, "Forbidden", Reason::TargetForbidden, false),
            (404, "NotFound", Reason::TargetRefused, false),
            (409, "AlreadyExists", Reason::Delivered, false),
            (409, "Conflict", Reason::TargetRefused, true),
            (422, "Invalid", Reason::TargetRefused, false),
            (429, "TooManyRequests", Reason::TargetRefused, true),
            (500, "InternalError", Reason::TargetRefused, true),
            (504, "Timeout", Reason::TargetRefused, true),
        ] {
            let answer = CreateError::Object(said(code, reason)).answer();
            assert_eq!(
                (answer.reason, answer.is_retryable, answer.status),
                (why, is_retryable, Some(code)),
                "{code} {reason}"
            );
        }
        assert_eq!(
            CreateError::Token(said(409, "AlreadyExists")).answer().reason,
            Reason::TargetRefused,
            "that is no object"
        );
        assert_eq!(CreateError::Kind.answer().reason, Reason::TargetRefused);
    }
}
