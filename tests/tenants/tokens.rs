//! Access tokens: nobody gets one in another's name, or for a service that does not name it, or uses up another's room.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::{StreamExt, stream};
use http_body_util::Full;
use hyper::Request;
use kube::api::ListParams;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::bed::{Bed, manifest, unique, until};
use crate::calls::{Rule, Services, calling, id};
use crate::hooks::{https, tls_builder};
use crate::identity_provider::{Provider, SubjectIssuer, exchange};
use crate::tenant::Tenant;

/// What the status of an identity says about its first callee.
async fn told(bed: &Bed, namespace: &str, name: &str) -> Value {
    until("the calls to be described", || async {
        let found = bed.get("ServiceIdentity", Some(namespace), name).await.unwrap();
        let status = found.data["status"].clone();
        let is_current = status["observedGeneration"].as_i64() == found.metadata.generation;
        let call = status["calls"]["callees"][0].clone();
        if is_current && call.is_object() { Ok(call) } else { Err(status.to_string()) }
    })
    .await
}

#[tokio::test]
async fn a_tenant_gets_no_token_that_a_victim_does_not_grant() {
    let victim = Services::new("stolen").await;
    let tenant = Tenant::new("stealing").await;
    let (namespace, pay) = (tenant.namespace.as_str(), victim.pay.as_str());
    // It names the victim, with everything that it has, and grants itself what the victim would have to grant.
    let all: &[&str] = &["pay:read", "pay:write", "pay:audit"];
    let own = calling(namespace, "own", &[(pay, "payments", all)], &[(namespace, "own", all)]);
    tenant.own.apply(own).await.unwrap();
    let refused = told(&tenant.bed, namespace, "own").await;
    assert_eq!(refused["agreed"], false, "{refused}");
    let nobody = calling(namespace, "curious", &[(pay, "nobody", all)], &[]);
    tenant.own.apply(nobody).await.unwrap();
    let unknown = told(&tenant.bed, namespace, "curious").await;
    let same = |call: &Value, name: &str| call["message"].as_str().unwrap().replace(&format!("{pay}/{name}"), "");
    assert_eq!(same(&refused, "payments"), same(&unknown, "nobody"), "it does not learn who exists");
    tenant.bed.ready("ServiceIdentity", Some(namespace), "own").await;
    let folder = tenant.bed.mount(namespace, "own-mtls").await;
    let audience = victim.audience();
    let ask = |more: &[(&str, &str)]| {
        let form = [&[("grant_type", "client_credentials"), ("audience", audience.as_str())], more].concat();
        let (status, answer) = victim.ask(Some(&folder), &form);
        (status, answer["error"].as_str().unwrap_or_default().to_owned())
    };
    until("the issuer to know the tenant", || async {
        let answer = ask(&[]);
        if answer == (400, "invalid_target".to_owned()) { Ok(()) } else { Err(format!("{answer:?}")) }
    })
    .await;
    assert_eq!(ask(&[("client_id", &id(&victim.shop, "orders"))]), (401, "invalid_client".to_owned()));
    // Its own status says what it likes.
    let forged = json!({"status": {"calls": {"callees": [{"identity": format!("{pay}/payments"), "agreed": true, "scopes": all}]}}});
    let writer = tenant.with_status().await;
    let api = writer.api("ServiceIdentity", Some(namespace));
    let params = kube::api::PatchParams::default();
    api.patch_status("own", &params, &kube::api::Patch::Merge(&forged)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(ask(&[]), (400, "invalid_target".to_owned()));
    // The keys are the platform's, and so is what may be called.
    for attempt in [
        tenant.own.api("Secret", Some("credence-tokens")).list(&ListParams::default()).await.map(|_| ()),
        tenant.own.api("Secret", Some("credence-tokens")).get("issuer.demo").await.map(|_| ()),
    ] {
        assert!(attempt.unwrap_err().to_string().contains("forbidden"));
    }
    let tokens = json!({"kind": "TrustDomain", "name": "demo"});
    let turn = json!({"targets": [tokens], "issuedBefore": jiff::Timestamp::now().to_string()});
    let before = tenant.bed.get("TrustDomain", None, "demo").await.unwrap().metadata.generation;
    tenant.own.apply(manifest("RotationPolicy", Some(namespace), "turn", turn)).await.unwrap();
    let policy = tenant.bed.ready("RotationPolicy", Some(namespace), "turn").await;
    assert_eq!(
        policy.data["status"]["targets"].as_i64().unwrap_or_default(),
        0,
        "a tenant rotates no key of an issuer"
    );
    assert_eq!(tenant.bed.get("TrustDomain", None, "demo").await.unwrap().metadata.generation, before);
    victim.token("pay:read");
}

#[tokio::test]
async fn a_tenant_acts_for_no_user_who_has_called_a_victim() {
    let victim = Services::new("called").await;
    let tenant = Tenant::new("acting").await;
    let (namespace, orders, payments) = (tenant.namespace.as_str(), id(&victim.shop, "orders"), victim.audience());
    let provider = Provider::start(&tenant.bed, 0, "victims");
    let of_the_shop = json!([{"audience": "web-shop", "identity": {"namespace": victim.shop, "name": "orders"}}]);
    let issuer = SubjectIssuer::add(&tenant.bed, &provider.by_url(of_the_shop)).await;
    let own = id(namespace, "own");
    tenant.own.apply(calling(namespace, "own", &[(namespace, "own", &[])], &[(namespace, "own", &[])])).await.unwrap();
    issuer.known_to(&tenant.bed, namespace, "own").await;
    issuer.known_to(&tenant.bed, &victim.shop, "orders").await;
    let folder = tenant.bed.mount(namespace, "own-mtls").await;
    // Whatever the victim's user has sent or got: tokens that were made for the victim, or by it.
    let user = provider.login("alice", &json!("acme"), &orders);
    let (status, answer) = exchange(&victim, &victim.orders, &user["access_token"], &payments, "");
    assert_eq!(status, 200, "{answer}");
    for stolen in [&user["access_token"], &user["id_token"], &answer["access_token"]] {
        let (status, answer) = exchange(&victim, &folder, stolen, &own, "");
        assert_eq!((status, &answer["error"]), (400, &json!("invalid_request")), "{answer}");
        victim.audited(&own, "SubjectWrongAudience").await;
        let (_, answer) = exchange(&victim, &folder, stolen, &payments, "");
        assert_eq!(answer["error"], "invalid_target", "it has no call to the victim's callee");
    }
    // A user who calls the tenant is known to it, and to nobody else by that.
    let caller = provider.login("alice", &json!("acme"), &own);
    let (status, answer) = exchange(&victim, &folder, &caller["access_token"], &own, "");
    assert_eq!(status, 200, "{answer}");
    let (_, answer) = exchange(&victim, &victim.orders, &answer["access_token"], &payments, "");
    assert_eq!(answer["error"], "invalid_request");
    // Which providers there are is the platform's word.
    let mine = json!({"spec": {"subjectIssuers": []}});
    let params = kube::api::PatchParams::default();
    let domains = tenant.own.api("TrustDomain", None);
    let attempt = domains.patch("demo", &params, &kube::api::Patch::Merge(&mine)).await;
    assert!(attempt.unwrap_err().to_string().contains("forbidden"));
    // Many keys that nobody knows make the issuer ask the provider seldom, and cost the victim nothing.
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"ES256","kid":"nobody"}"#);
    let rest = caller["access_token"].as_str().unwrap().split_once('.').unwrap().1;
    let before = Instant::now();
    for _ in 0..20 {
        let (_, answer) = exchange(&victim, &folder, &json!(format!("{header}.{rest}")), &own, "");
        assert_eq!(answer["error"], "invalid_request");
    }
    let (status, answer) = exchange(&victim, &victim.orders, &user["access_token"], &payments, "");
    assert_eq!(status, 200, "{answer} after {:?}", before.elapsed());
    issuer.remove(&tenant.bed).await;
}

/// A key set with so many keys.
fn many_keys(count: usize) -> String {
    let key = |number| {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let (x, y) = key.public_key().as_ref()[1..].split_at(32);
        let [x, y] = [x, y].map(|coordinate| URL_SAFE_NO_PAD.encode(coordinate));
        json!({"kty": "EC", "crv": "P-256", "kid": format!("key-{number}"), "x": x, "y": y})
    };
    json!({"keys": (0..count).map(key).collect::<Vec<_>>()}).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_tokens_that_nobody_signed_delays_no_victim() {
    let victim = Services::new("patient").await;
    let tenant = Tenant::new("forging").await;
    let (bed, namespace, secret) = (&tenant.bed, tenant.namespace.as_str(), unique("many-keys"));
    let metadata = json!({"name": secret, "namespace": "credence-system"});
    let entry = json!({"jwks.json": many_keys(32)});
    bed.apply(json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": entry})).await.unwrap();
    let login = format!("https://{secret}.example");
    let keys = json!({"secretRef": {"name": secret}});
    let issuer = json!({"name": unique("idp"), "issuer": login, "namespaceSelector": {}, "keys": keys});
    let issuer = SubjectIssuer::add(bed, &issuer).await;
    let own = id(namespace, "own");
    tenant.own.apply(calling(namespace, "own", &[(namespace, "own", &[])], &[(namespace, "own", &[])])).await.unwrap();
    issuer.known_to(bed, namespace, "own").await;
    let folder = bed.mount(namespace, "own-mtls").await;
    // It names no key, so that all of them would have to be tried.
    let parts = [r#"{"alg":"ES256"}"#.to_owned(), json!({"iss": login}).to_string(), "x".repeat(64)];
    let forged = parts.map(|part| URL_SAFE_NO_PAD.encode(part)).join(".");
    let body = format!(
        "grant_type=urn:ietf:params:oauth:grant-type:token-exchange&audience={own}&subject_token={forged}\
         &subject_token_type=urn:ietf:params:oauth:token-type:jwt"
    );
    let chain = CertificateDer::pem_file_iter(folder.join("tls.crt")).unwrap().map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(folder.join("tls.key")).unwrap();
    let client = https(tls_builder(bed).with_client_auth_cert(chain, key).unwrap());
    let ended = Arc::new(AtomicBool::new(false));
    let url = format!("{}/token", bed.env("TOKENS_ISSUER"));
    let mut attackers = JoinSet::new();
    for _ in 0..16 {
        let (client, url, body, ended) = (client.clone(), url.clone(), body.clone(), ended.clone());
        attackers.spawn(async move {
            let mut refused = 0_usize;
            while !ended.load(Ordering::Relaxed) {
                let request = Request::post(&url).header("content-type", "application/x-www-form-urlencoded");
                let answer = client.request(request.body(Full::new(body.clone().into())).unwrap()).await.unwrap();
                assert!(answer.status().is_client_error(), "{}", answer.status());
                refused += 1;
            }
            refused
        });
    }
    let mut slowest = Duration::ZERO;
    for _ in 0..20 {
        let began = Instant::now();
        let asked = tokio::task::block_in_place(|| victim.token("pay:read"));
        assert!(!asked.is_empty());
        slowest = slowest.max(began.elapsed());
    }
    ended.store(true, Ordering::Relaxed);
    let refused: usize = attackers.join_all().await.into_iter().sum();
    assert!(slowest < Duration::from_secs(2), "{slowest:?} beside {refused} forged tokens");
    assert!(refused > 200, "the attack was no attack: {refused}");
    victim.audited(&own, "SubjectWrongSignature").await;
    issuer.remove(bed).await;
    bed.delete("Secret", Some("credence-system"), &secret).await;
}

#[tokio::test]
async fn the_calls_of_a_namespace_have_a_share() {
    let victim = Services::new("shared").await;
    let tenant = Tenant::new("filling").await;
    let (bed, namespace) = (&tenant.bed, tenant.namespace.as_str());
    // 30 callers of 32 callees with the longest scopes are about 1 MiB.
    let scopes: Vec<String> = (0..16).map(|number| format!("{number:s>64}")).collect();
    let scopes: Vec<&str> = scopes.iter().map(String::as_str).collect();
    let names =
        |prefix: &str, count: usize| -> Vec<String> { (0..count).map(|number| format!("{prefix}{number}")).collect() };
    let (callers, callees) = (names("caller", 30), names("callee", 32));
    let to: Vec<Rule> = callees.iter().map(|name| (namespace, name.as_str(), scopes.as_slice())).collect();
    let from: Vec<Rule> = callers.iter().map(|name| (namespace, name.as_str(), scopes.as_slice())).collect();
    let callees = callees.iter().map(|name| calling(namespace, name, &[], &from));
    let callers = callers.iter().map(|name| calling(namespace, name, &to, &[]));
    let manifests: Vec<Value> = callees.chain(callers).collect();
    let applied = stream::iter(manifests.into_iter().map(|manifest| tenant.own.apply(manifest))).buffer_unordered(8);
    applied.for_each(|result| async { _ = result.unwrap() }).await;
    // The victim goes on meanwhile, at the issuer and with what it changes.
    let from_shop: [Rule; 1] = [(&victim.shop, "orders", &["pay:read"])];
    let began = Instant::now();
    bed.apply(calling(&victim.pay, "payments", &[], &from_shop)).await.unwrap();
    until("the victim's change to be in force", || async {
        let audience = victim.audience();
        let form = [("grant_type", "client_credentials"), ("audience", audience.as_str()), ("scope", "pay:write")];
        let (_, answer) = victim.ask(Some(&victim.orders), &form);
        if answer["error"] == "invalid_scope" { Ok(()) } else { Err(answer.to_string()) }
    })
    .await;
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    until("some of the tenant's identities to have no room", || async {
        let found = bed.api("ServiceIdentity", Some(namespace)).list(&ListParams::default()).await.unwrap();
        let reasons = found.items.iter().filter_map(|it| {
            let conditions = it.data["status"]["conditions"].as_array()?;
            let ready = conditions.iter().find(|condition| condition["type"] == "Ready")?;
            Some(ready["reason"].as_str()?.to_owned())
        });
        let reasons: Vec<String> = reasons.collect();
        let (full, fine) =
            ["LimitExceeded", "Ready"].map(|reason| reasons.iter().filter(|it| *it == reason).count()).into();
        if full > 0 && full < 15 && fine + full == 62 { Ok(()) } else { Err(format!("{full} {fine}")) }
    })
    .await;
    let stored = bed.secret("credence-tokens", &format!("calls.{namespace}")).await.unwrap().data.unwrap();
    assert!(stored["calls.json"].0.len() < 900 << 10, "{}", stored["calls.json"].0.len());
    victim.token("pay:read");
}
