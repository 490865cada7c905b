//! What went wrong with a request to the API server, in words of our own. Its texts come from webhooks and other parts of the cluster,
//! quote objects, and differ from attempt to attempt; only the names of quotas, webhooks and policies are taken from them.

use std::error::Error as _;

use kube::core::Status;
use kube::core::response::StatusCause;

use super::client::{NoAnswer, NotLeading};
use crate::domain::text::foreign;

/// Why a request failed, for people: the cause and the next step.
pub fn describe(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => refused(status),
        kube::Error::SerdeError(_) | kube::Error::LinesCodecMaxLineLengthExceeded => {
            "the answer of the API server cannot be read; check for a proxy between".to_owned()
        }
        kube::Error::Service(cause) if cause.is::<NotLeading>() => NotLeading.to_string(),
        kube::Error::Service(cause) if cause.is::<NoAnswer>() => NoAnswer.to_string(),
        _ => "the API server cannot be reached; retrying".to_owned(),
    }
}

fn refused(status: &Status) -> String {
    let (text, code) = (status.message.as_str(), status.code);
    if let Some(quota) = named(text, "exceeded quota: ", ',') {
        return format!("the ResourceQuota{quota} is used up; raise it, or delete something that it counts");
    }
    if text.contains("failed quota: ") {
        return "a ResourceQuota limits what this object does not state; change the quota".to_owned();
    }
    if let Some(webhook) = named(text, "admission webhook \"", '"').filter(|_| text.contains("denied the request")) {
        return format!("the admission webhook{webhook} refuses it (code {code}); change its rules, or the object");
    }
    if let Some(webhook) = named(text, "failed calling webhook \"", '"') {
        return format!("the admission webhook{webhook} does not answer (code {code}); check whether it runs");
    }
    if let Some(policy) = named(text, "ValidatingAdmissionPolicy '", '\'') {
        return format!(
            "the ValidatingAdmissionPolicy{policy} refuses it (code {code}); change its rules, or the object"
        );
    }
    let is_terminating = |cause: &StatusCause| cause.reason == "NamespaceTerminating";
    if status.details.iter().flat_map(|details| &details.causes).any(is_terminating) {
        return "the namespace is being deleted, and nothing can be created in it".to_owned();
    }
    let (cause, step) = match code {
        400 | 415 => ("the API server cannot read the request", "report this as a defect of Credence"),
        401 => ("the API server does not accept the token of the ServiceAccount", "retrying with a new one"),
        403 => ("the ServiceAccount of Credence may not do this", "compare its roles with those of the chart"),
        404 => ("the object, its namespace or its kind does not exist", "retrying"),
        409 => ("somebody else changed it at the same time", "retrying"),
        413 => ("the object is too large", "make it smaller"),
        422 => ("the API server finds the object invalid", "compare the installed CRDs with those of this version"),
        429 => ("the API server has too many requests", "retrying"),
        500.. => ("the API server failed", "retrying"),
        _ => ("the API server refuses it", "retrying"),
    };
    format!("{cause} (code {code}); {step}")
}

/// The name that stands after `before` and ends with `end`, with a space in front; empty when it is no name of Kubernetes (RFC 1123).
/// `None` when `before` does not occur.
fn named(text: &str, before: &str, end: char) -> Option<String> {
    let (_, rest) = text.split_once(before)?;
    let name = rest.split(end).next().unwrap_or_default();
    let is_name = !name.is_empty()
        && name.len() <= 253
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte));
    Some(if is_name { format!(" {name}") } else { String::new() })
}

/// The error as the API server or a library puts it, for the log. The client's own text is not used: it has a debug form in it.
pub fn detail(error: &kube::Error) -> String {
    let text = match error {
        kube::Error::Api(status) => format!("{} {}: {}", status.code, status.reason, status.message),
        error => error.source().map_or_else(|| "no cause".to_owned(), ToString::to_string),
    };
    foreign(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(code: u16, text: &str) -> String {
        describe(&kube::Error::Api(Status::failure(text, "Any").with_code(code).boxed()))
    }

    #[test]
    fn the_cause_is_ours_and_only_names_are_theirs() {
        for (code, text, wanted) in [
            (
                403,
                r#"secrets "a" is forbidden: exceeded quota: small, requested: secrets=1, used: secrets=1"#,
                "the ResourceQuota small is used up",
            ),
            (
                400,
                r#"admission webhook "sign.example" denied the request: 8f3a"#,
                "the admission webhook sign.example refuses",
            ),
            (400, r#"admission webhook "HIDDEN" denied the request: 8f3a"#, "the admission webhook refuses"),
            (
                500,
                r#"Internal error occurred: failed calling webhook "sign.example": failed to call webhook: HIDDEN"#,
                "the admission webhook sign.example does not answer",
            ),
            (
                422,
                "secrets \"a\" is forbidden: ValidatingAdmissionPolicy 'own' with binding 'own' denied request: HIDDEN",
                "the ValidatingAdmissionPolicy own refuses",
            ),
            (
                403,
                r#"secrets is forbidden: User "HIDDEN" cannot create"#,
                "the ServiceAccount of Credence may not do this",
            ),
            (503, "HIDDEN", "the API server failed (code 503)"),
            (418, "HIDDEN", "the API server refuses it (code 418)"),
        ] {
            let described = answered(code, text);
            assert!(described.starts_with(wanted), "{described}");
            assert!(!described.contains("HIDDEN") && !described.contains("8f3a"), "{described}");
        }
    }

    #[test]
    fn a_namespace_that_is_being_deleted_is_recognized() {
        let causes = serde_json::json!({"causes": [{"reason": "NamespaceTerminating"}]});
        let mut status = Status::failure("", "Forbidden").with_code(403);
        status.details = serde_json::from_value(causes).unwrap();
        assert!(refused(&status).starts_with("the namespace is being deleted"));
    }
}
