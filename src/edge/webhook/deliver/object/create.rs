//! Creates the objects.

use http::{HeaderValue, Method, Request, StatusCode, header};
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::APIResourceList;
use kube::{Api, Client};
use serde::de::{DeserializeOwned, IgnoredAny};

use super::super::delivery::Delivery;
use super::super::retry::Answer;
use super::error::CreateError;
use super::target::{EDGE, Object};
use crate::domain::identity::hex;
use crate::edge::webhook::outcome::Reason;
use crate::edge::webhook::replay::Identity;

/// Maximum length of a name: the name of a Job becomes the value of a label.
const MAX_NAME: usize = 63;
/// Number of hexadecimal digits of the identity in a name.
const DIGEST_DIGITS: usize = 20;
/// Asks for the metadata only: the answer need not repeat the object.
const METADATA_ONLY: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json";

/// The name of a delivery's object: the same at every attempt, and of no other endpoint, not even of a later one with the same name.
fn name(endpoint: &str, identity: &Identity) -> String {
    let kept = endpoint.get(..MAX_NAME - DIGEST_DIGITS - 1).unwrap_or(endpoint).trim_end_matches(['-', '.']);
    format!("{kept}-{}", &hex(identity)[..DIGEST_DIGITS])
}

/// Creates objects.
pub struct Objects {
    /// With the edge's own permissions, to get tokens.
    own: Client,
    /// Without credentials: each request has the token of its ServiceAccount.
    bare: Client,
    /// Namespace of the edge.
    namespace: String,
}

impl Objects {
    /// For an edge in this namespace, with a client of its own.
    ///
    /// # Errors
    /// When the configuration does not make a client.
    pub fn new(mut config: kube::Config, own: Client, namespace: &str) -> Result<Self, kube::Error> {
        config.auth_info = kube::config::AuthInfo::default();
        // The retry policy of the target counts the attempts.
        config.default_retry = false;
        let bare = Client::try_from(config)?;
        Ok(Self { own, bare, namespace: namespace.to_owned() })
    }

    /// Makes one attempt.
    pub async fn attempt(&self, target: &Object, delivery: &Delivery) -> Answer {
        let Ok(_slot) = target.slots.acquire().await else { return Answer::permanent(Reason::TargetTimeout, None) };
        let name = name(&target.endpoint.name, &delivery.identity);
        let object = match target.template.fill(&name, &target.endpoint.namespace, delivery) {
            Ok(object) => object.to_string(),
            Err(why) => return Answer::permanent(why, None),
        };
        match self.create(target, object).await {
            Ok(()) => Answer::permanent(Reason::Delivered, Some(StatusCode::CREATED.as_u16())),
            Err(error) => {
                let answer = error.answer();
                if answer.reason != Reason::Delivered && target.log_throttle.is_due() {
                    error.log(target, &self.namespace);
                }
                answer
            }
        }
    }

    async fn create(&self, target: &Object, object: String) -> Result<(), CreateError> {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.own.clone(), &target.endpoint.namespace);
        let token = target.token.get(&accounts, &target.account).await.map_err(CreateError::Token)?;
        let created = self.create_with(target, &token, object).await;
        match &created {
            Err(CreateError::Object(kube::Error::Api(status))) if status.code == 401 => {
                target.token.forget(&token).await;
            }
            // The kind may have been redefined with another plural.
            Err(CreateError::Object(kube::Error::Api(status))) if status.code == 404 => target.plural.store(None),
            _ => {}
        }
        created
    }

    async fn create_with(&self, target: &Object, token: &HeaderValue, object: String) -> Result<(), CreateError> {
        let plural = self.plural(target, token).await?;
        let path = target.path(&format!("/namespaces/{}/{plural}?fieldManager={EDGE}", target.endpoint.namespace));
        let created = self.request::<IgnoredAny>(Method::POST, path, token, object.into_bytes()).await;
        created.map(|_| ()).map_err(CreateError::Object)
    }

    /// The plural of the kind, as paths in the API server have it.
    async fn plural(&self, target: &Object, token: &HeaderValue) -> Result<String, CreateError> {
        if let Some(plural) = target.plural.load_full() {
            return Ok((*plural).clone());
        }
        let listed = self.request::<APIResourceList>(Method::GET, target.path(""), token, Vec::new()).await;
        let resources = listed.map_err(CreateError::Object)?.resources.into_iter();
        let mut fitting = resources.filter(|it| it.kind == target.kind && it.namespaced && !it.name.contains('/'));
        let plural = fitting.next().ok_or(CreateError::Kind)?.name;
        target.plural.store(Some(plural.clone().into()));
        Ok(plural)
    }

    async fn request<T: DeserializeOwned>(
        &self,
        method: Method,
        path: String,
        token: &HeaderValue,
        body: Vec<u8>,
    ) -> Result<T, kube::Error> {
        let accepts = if method == Method::POST { METADATA_ONLY } else { "application/json" };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::AUTHORIZATION, token)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, accepts)
            .body(body)
            .map_err(kube::Error::HttpError)?;
        self.bare.request(request).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_fits_every_kind() {
        let identity = [0xab; 32];
        assert_eq!(name("payments", &identity), format!("payments-{}", "ab".repeat(10)));
        let long = format!("{}.{}", "a".repeat(41), "b".repeat(200));
        assert_eq!(name(&long, &identity), format!("{}-{}", "a".repeat(41), "ab".repeat(10)));
        assert_eq!(name(&"a".repeat(253), &identity).len(), MAX_NAME);
    }
}
