//! Whether a broker accepts a credential: found out by logging in with it.

use k8s_openapi::api::core::v1::Secret;

use super::super::Context;
use crate::api::Reason;
use crate::brokers::BrokerFailure;
use crate::brokers::kafka;
use crate::brokers::registry::Broker;
use crate::issuers::pem::PrivateKeyPem;
use crate::kubernetes::error::Error;

/// Logs in with the credential in a Secret.
///
/// # Errors
/// When the Secret cannot be read. That the broker refuses is an answer, not an error.
pub async fn verify(
    context: &Context,
    broker: &Broker,
    namespace: &str,
    secret: &str,
) -> Result<Result<(), BrokerFailure>, Error> {
    let connection = broker.session.state().borrow().connection.clone();
    match connection {
        Some(Ok(_)) => {}
        Some(Err(failure)) => return Ok(Err(failure)),
        None => {
            let message = "the broker has not answered yet".to_owned();
            return Ok(Err(BrokerFailure { reason: Reason::BrokerNotReady, message }));
        }
    }
    let Some(Secret { data: Some(data), .. }) = context.secrets.read(namespace, secret).await? else {
        let message = format!("the Secret {secret} is gone");
        return Ok(Err(BrokerFailure { reason: Reason::IssueFailed, message }));
    };
    let text =
        |key: &str| data.get(key).map(|value| String::from_utf8_lossy(&value.0).into_owned()).unwrap_or_default();
    Ok(kafka::login(&broker.access, &text("tls.crt"), &PrivateKeyPem::new(text("tls.key"))).await)
}
