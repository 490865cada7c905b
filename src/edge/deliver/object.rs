//! A Kubernetes object as a target. It is created with the rights of a `ServiceAccount` of the endpoint's namespace; the
//! edge has none to create anything.

use arc_swap::ArcSwapOption;
use http::{HeaderValue, Method, Request, StatusCode, header};
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::APIResourceList;
use kube::{Api, Client};
use serde::de::{DeserializeOwned, IgnoredAny};
use tokio::sync::Semaphore;

use super::super::outcome::Why;
use super::super::replay::Identity;
use super::refusal::Refusal;
use super::template::Template;
use super::token::Token;
use super::{Answer, Explained, Parcel, Patience};
use crate::api::ObjectTarget;
use crate::contract::route::WebhookReference;
use crate::domain::identity::hex;

/// How many objects of one endpoint are being created at once; the others wait, and nobody else does.
const AT_ONCE: usize = 32;
/// How long a name may be for every kind: that of a Job becomes the value of a label.
const LONGEST_NAME: usize = 63;
/// How many digits of the digest are in a name.
const DIGITS: usize = 20;
/// Name of the edge's own `ServiceAccount`, as the chart has it.
pub(super) const EDGE: &str = "credence-edge";
/// An answer need not repeat what was sent.
const BRIEF: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json";

/// A template with whatever it takes to create objects from it.
pub struct Object {
    /// The kind in this namespace, as `<kind>.<namespace>`: the audience of assertions.
    pub audience: String,
    /// How it is tried.
    pub patience: Patience,
    /// What is filled with a delivery.
    pub template: Template,
    /// Whose target it is.
    pub(super) endpoint: WebhookReference,
    /// The `ServiceAccount`.
    pub(super) account: String,
    pub(super) api_version: String,
    pub(super) kind: String,
    token: Token,
    /// What the API server calls the kind in paths.
    plural: ArcSwapOption<String>,
    turns: Semaphore,
    explained: Explained,
}

impl Object {
    /// Compiles the target of an endpoint.
    ///
    /// # Errors
    /// Says what is wrong.
    pub fn compile(endpoint: &WebhookReference, target: &ObjectTarget) -> Result<Self, String> {
        let ObjectTarget { service_account_name, template, attempts } = target;
        Ok(Self {
            audience: format!("{}.{}", template.kind.to_lowercase(), endpoint.namespace),
            patience: Patience::compile("object", attempts)?,
            template: Template::compile(template).map_err(|why| format!("object.template: {why}"))?,
            endpoint: endpoint.clone(),
            account: service_account_name.clone(),
            api_version: template.api_version.clone(),
            kind: template.kind.clone(),
            token: Token::default(),
            plural: ArcSwapOption::empty(),
            turns: Semaphore::new(AT_ONCE),
            explained: Explained::default(),
        })
    }

    /// The path of a group and version in the API server, and below it.
    fn path(&self, below: &str) -> String {
        let root = if self.api_version.contains('/') { "apis" } else { "api" };
        format!("/{root}/{}{below}", self.api_version)
    }
}

/// The same for the same delivery, and of no other endpoint: neither of a namesake that is created later.
fn name(endpoint: &str, identity: &Identity) -> String {
    let kept = endpoint.get(..LONGEST_NAME - DIGITS - 1).unwrap_or(endpoint).trim_end_matches(['-', '.']);
    format!("{kept}-{}", &hex(identity)[..DIGITS])
}

/// Creates objects.
pub struct Objects {
    /// With the edge's own rights: for tokens.
    own: Client,
    /// Without any: each request brings the token that it is made with.
    bare: Client,
    /// Namespace of the edge.
    namespace: String,
}

impl Objects {
    /// For an edge in this namespace, with its own client.
    ///
    /// # Errors
    /// When the configuration does not make a client.
    pub fn new(mut config: kube::Config, own: Client, namespace: &str) -> Result<Self, String> {
        config.auth_info = kube::config::AuthInfo::default();
        // Attempts are counted here.
        config.default_retry = false;
        let bare = Client::try_from(config).map_err(|error| error.to_string())?;
        Ok(Self { own, bare, namespace: namespace.to_owned() })
    }

    /// Tries once.
    pub(super) async fn attempt(&self, target: &Object, parcel: &Parcel) -> Answer {
        let Ok(_turn) = target.turns.acquire().await else { return Answer::last(Why::TargetTimeout, None) };
        let name = name(&target.endpoint.name, &parcel.identity);
        let object = match target.template.fill(&name, &target.endpoint.namespace, parcel) {
            Ok(object) => object.to_string(),
            Err(why) => return Answer::last(why, None),
        };
        match self.create(target, object).await {
            Ok(()) => Answer::last(Why::Delivered, Some(StatusCode::CREATED.as_u16())),
            Err(refusal) => {
                let answer = refusal.answer();
                if answer.why != Why::Delivered && target.explained.is_due() {
                    refusal.explain(target, &self.namespace);
                }
                answer
            }
        }
    }

    async fn create(&self, target: &Object, object: String) -> Result<(), Refusal> {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.own.clone(), &target.endpoint.namespace);
        let token = target.token.get(&accounts, &target.account).await.map_err(Refusal::Token)?;
        let created = self.create_with(target, &token, object).await;
        match &created {
            Err(Refusal::Object(kube::Error::Api(status))) if status.code == 401 => target.token.forget(&token).await,
            // The kind may have been defined anew under another name.
            Err(Refusal::Object(kube::Error::Api(status))) if status.code == 404 => target.plural.store(None),
            _ => {}
        }
        created
    }

    async fn create_with(&self, target: &Object, token: &HeaderValue, object: String) -> Result<(), Refusal> {
        let plural = self.plural(target, token).await?;
        let path = target.path(&format!("/namespaces/{}/{plural}?fieldManager={EDGE}", target.endpoint.namespace));
        let created = self.request::<IgnoredAny>(Method::POST, path, token, object.into_bytes()).await;
        created.map(|_| ()).map_err(Refusal::Object)
    }

    /// What the API server calls the kind in paths.
    async fn plural(&self, target: &Object, token: &HeaderValue) -> Result<String, Refusal> {
        if let Some(plural) = target.plural.load_full() {
            return Ok((*plural).clone());
        }
        let listed = self.request::<APIResourceList>(Method::GET, target.path(""), token, Vec::new()).await;
        let resources = listed.map_err(Refusal::Object)?.resources.into_iter();
        let mut fitting = resources.filter(|it| it.kind == target.kind && it.namespaced && !it.name.contains('/'));
        let plural = fitting.next().ok_or(Refusal::Kind)?.name;
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
        let accepts = if method == Method::POST { BRIEF } else { "application/json" };
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
        assert_eq!(name(&"a".repeat(253), &identity).len(), LONGEST_NAME);
    }
}
