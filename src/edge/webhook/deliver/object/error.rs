//! Why an object was not created: what that means for the delivery, and what to do about it.

use kube::core::Status;

use super::super::retry::Answer;
use super::target::{EDGE, Object};
use crate::domain::text::foreign;
use crate::edge::webhook::outcome::Reason;
use crate::kubernetes::answer;

/// Why an object was not created.
pub enum CreateError {
    /// The edge did not get a token of the ServiceAccount.
    Token(kube::Error),
    /// The API server has no such namespaced kind.
    Kind,
    /// The API server did not create it.
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
            // An earlier attempt, whose answer was lost, has created it.
            409 if status.reason == "AlreadyExists" && matches!(self, Self::Object(_)) => Reason::Delivered,
            403 => Reason::TargetForbidden,
            _ => Reason::TargetRefused,
        };
        // The token may have expired early, and two writers of a quota may have conflicted.
        let is_retryable = matches!(status.code, 401 | 409 | 429 | 500..) && why != Reason::Delivered;
        Answer { reason: why, status: Some(status.code), is_retryable }
    }

    /// Logs why the object was not created, with the next step. The API server's own text is left out: it may quote the
    /// delivery. Only its reason and the names of fields are logged.
    pub fn log(&self, target: &Object, edge_namespace: &str) {
        let (namespace, account) = (&target.endpoint.namespace, &target.account);
        let endpoint = format!("{namespace}/{}", target.endpoint.name);
        let (api_version, kind) = (&target.api_version, &target.kind);
        match self {
            Self::Token(kube::Error::Api(status)) if status.code == 403 => {
                let grant = format!(
                    "kubectl create role credence-edge-{account} --namespace {namespace} --verb=create \
                     --resource=serviceaccounts/token --resource-name={account} && kubectl create rolebinding \
                     credence-edge-{account} --namespace {namespace} --role=credence-edge-{account} \
                     --serviceaccount={edge_namespace}:{EDGE}"
                );
                tracing::warn!(
                    endpoint,
                    service_account = account,
                    %grant,
                    "not authorized to act as the ServiceAccount; grant it with the command in `grant`"
                );
            }
            Self::Token(error) => {
                let error = answer::describe(error);
                tracing::warn!(
                    endpoint,
                    service_account = account,
                    error,
                    "failed to get a token of the ServiceAccount"
                );
            }
            Self::Kind => {
                tracing::warn!(
                    endpoint,
                    api_version,
                    kind,
                    "no such namespaced kind; correct the template of the target"
                );
            }
            Self::Object(kube::Error::Api(status)) if status.code == 403 => tracing::warn!(
                endpoint,
                service_account = account,
                api_version,
                kind,
                "the ServiceAccount may not create the object; check its permissions, quotas and admission policies"
            ),
            Self::Object(kube::Error::Api(status)) => {
                let (code, reason, fields) = (status.code, foreign(&status.reason), foreign(fields(status)));
                tracing::warn!(
                    endpoint, api_version, kind, code, %reason, %fields, "the API server rejected the object"
                );
            }
            Self::Object(error) => {
                tracing::warn!(endpoint, error = answer::describe(error), "failed to reach the API server");
            }
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
            "a token is no object"
        );
        assert_eq!(CreateError::Kind.answer().reason, Reason::TargetRefused);
    }
}
