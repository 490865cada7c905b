//! Access tokens: asked for with curl, verified by the libraries of others.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::bed::{Bed, identity, manifest, run, self_signed, unique, until, with};
use crate::calls::{Language, Rule, Services, Serving, agreed, calling, id, signed_with, turn};

#[tokio::test]
async fn a_service_calls_another_one_with_a_token() {
    let services = Services::new("calls").await;
    let (orders, payments) = (id(&services.shop, "orders"), services.audience());
    let serving = Serving::start(services.example(&services.payments, &payments));
    let call = |token: Option<&str>, scope: &str| services.call(&services.orders, &orders, &serving.url, token, scope);
    let answer = call(None, "pay:read");
    let told: Value = serde_json::from_str(answer.strip_prefix("200 ").unwrap_or_else(|| panic!("{answer}"))).unwrap();
    assert_eq!(told, json!({"caller": orders, "scopes": ["pay:read"]}));
    let all: Value = serde_json::from_str(&call(None, "")[4..]).unwrap();
    assert_eq!(all["scopes"], json!(["pay:read", "pay:write"]), "without scope, all that both sides name");
    assert!(call(None, "pay:write").starts_with("403 "), "a token without the scope of the callee");
    assert!(call(None, "pay:audit").contains("invalid_scope"), "a scope that only the caller names");
    // A token belongs to the service that got it, and to nobody else with a certificate.
    let token = services.token("pay:read");
    assert!(call(Some(&token), "").starts_with("200 "));
    let stolen = services.call(&services.payments, &payments, &serving.url, Some(&token), "");
    assert!(stolen.starts_with("401 ") && stolen.contains("another service"), "{stolen}");
    // It still does after its certificate was renewed.
    services.bed.delete("Secret", Some(&services.shop), "orders-mtls").await;
    until("the certificate to be renewed", || async {
        services.bed.secret(&services.shop, "orders-mtls").await.map(|_| ()).ok_or_else(String::new)
    })
    .await;
    let renewed = services.bed.mount(&services.shop, "orders-mtls").await;
    let answer = services.call(&renewed, &orders, &serving.url, Some(&token), "");
    assert!(answer.starts_with("200 "), "{answer}");
    let mut forged = token.clone();
    forged.replace_range(token.len() - 8..token.len() - 4, "AAAA");
    assert!(call(Some(&forged), "").starts_with("401 "));
    let lines = services.audited(&orders, "Issued").await;
    assert!(lines.iter().any(|line| line["reason"] == "Issued" && line["audience"] == payments.as_str()), "{lines:?}");
    assert!(!lines.iter().any(|line| line.to_string().contains(&token)), "no token in the audit log");
}

#[tokio::test]
async fn services_in_several_languages_agree_about_tokens() {
    let services = Services::new("languages").await;
    let (orders, payments) = (id(&services.shop, "orders"), services.audience());
    let token = services.token("pay:read");
    let mut forged = token.clone();
    forged.replace_range(token.len() - 8..token.len() - 4, "AAAA");
    let of_others = [forged.as_str(), "x.y.z"];
    for callee in Language::ALL {
        let serving = Serving::start(services.example_in(callee, &services.payments, &payments));
        for caller in Language::ALL {
            let call = |token: Option<&str>, scope: &str| {
                services.call_in(caller, &services.orders, &orders, &serving.url, token, scope)
            };
            let answer = call(None, "pay:read");
            let told = answer.strip_prefix("200 ").unwrap_or_else(|| panic!("{caller:?} to {callee:?}: {answer}"));
            let told: Value = serde_json::from_str(told).unwrap();
            assert_eq!(told, json!({"caller": orders, "scopes": ["pay:read"]}), "{caller:?} to {callee:?}");
            if caller == Language::Go {
                assert!(call(None, "pay:write").starts_with("403 "), "{callee:?}");
                for token in of_others {
                    assert!(call(Some(token), "").starts_with("401 "), "{callee:?}");
                }
                let stolen = services.call_in(caller, &services.payments, &payments, &serving.url, Some(&token), "");
                assert!(stolen.starts_with("401 "), "{callee:?}: {stolen}");
            }
        }
    }
}

#[tokio::test]
async fn a_token_is_verified_through_discovery_alone() {
    let services = Services::new("discovery").await;
    let (token, audience) = (services.token("pay:read"), services.audience());
    let python = format!("{}/bin/python3", services.bed.env("SIGNERS"));
    let verify = |audience: &str, token: &str| {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/signers/verify_token.py");
        run(&python, &[script, services.bed.env("TOKENS_ISSUER"), services.bed.env("EDGE_CA"), audience, token], "")
    };
    let (ok, text) = verify(&audience, &token);
    assert!(ok, "{text}");
    let claims: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&claims["client_id"], &claims["scope"]), (&json!(id(&services.shop, "orders")), &json!("pay:read")));
    let mut forged = token.clone();
    forged.replace_range(token.len() - 8..token.len() - 4, "AAAA");
    let other = id(&services.shop, "orders");
    for (audience, token, why) in [(&audience, &forged, "bad_signature"), (&other, &token, "'aud'")] {
        let (ok, text) = verify(audience, token);
        assert!(!ok && text.contains("refused: ") && text.contains(why), "{text}");
    }
}

#[tokio::test]
async fn a_bound_token_ends_with_the_certificate_that_it_was_asked_for_with() {
    let services = Services::new("bound").await;
    let (bed, shop, payments) = (&services.bed, services.shop.as_str(), services.audience());
    let orders = id(shop, "orders");
    let to_pay: [Rule; 1] = [(&services.pay, "payments", &["pay:read"])];
    let bound =
        with(calling(shop, "orders", &to_pay, &[]), "/spec/authentication/signedToken/certificateBound", json!(true));
    bed.apply(bound).await.unwrap();
    let claims = |token: &str| -> Value {
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap()).unwrap()
    };
    let token = until("tokens to be bound", || async {
        let token = services.token("pay:read");
        let claims = claims(&token);
        if claims["cnf"]["x5t#S256"].is_string() { Ok(token) } else { Err(claims.to_string()) }
    })
    .await;
    bed.delete("Secret", Some(shop), "orders-mtls").await;
    until("the certificate to be renewed", || async {
        bed.secret(shop, "orders-mtls").await.map(|_| ()).ok_or_else(String::new)
    })
    .await;
    let renewed = bed.mount(shop, "orders-mtls").await;
    for language in Language::ALL {
        let serving = Serving::start(services.example_in(language, &services.payments, &payments));
        let call = |folder: &Path, token: Option<&str>| {
            services.call_in(Language::Go, folder, &orders, &serving.url, token, "pay:read")
        };
        let answer = call(&services.orders, Some(&token));
        assert!(answer.starts_with("200 "), "{language:?}: {answer}");
        let answer = call(&renewed, Some(&token));
        assert!(answer.starts_with("401 ") && answer.contains("another certificate"), "{language:?}: {answer}");
        let answer = call(&renewed, None);
        assert!(answer.starts_with("200 "), "{language:?}, with another token: {answer}");
    }
}

#[tokio::test]
async fn what_both_sides_do_not_grant_is_refused() {
    let services = Services::new("refused").await;
    let (bed, shop, audience) = (&services.bed, services.shop.as_str(), services.audience());
    let (orders, client) = (Some(services.orders.as_path()), id(shop, "orders"));
    let grant = ("grant_type", "client_credentials");
    let to_pay = ("audience", audience.as_str());
    let refused = |folder: Option<&Path>, form: &[(&str, &str)]| {
        let (status, answer) = services.ask(folder, form);
        (status, answer["error"].as_str().unwrap_or_default().to_owned())
    };
    let answer = |status: u16, error: &str| (status, error.to_owned());
    assert_eq!(refused(None, &[grant, to_pay]), answer(401, "invalid_client"));
    assert_eq!(refused(orders, &[grant, to_pay, ("client_id", &id(shop, "other"))]), answer(401, "invalid_client"));
    assert_eq!(services.ask(orders, &[grant, to_pay, ("client_id", &client)]).0, 200);
    assert_eq!(refused(orders, &[grant]), answer(400, "invalid_request"));
    assert_eq!(refused(orders, &[grant, to_pay, ("audience", "other")]), answer(400, "invalid_request"));
    assert_eq!(refused(orders, &[grant, grant, to_pay]), answer(400, "invalid_request"));
    assert_eq!(refused(orders, &[("grant_type", "password"), to_pay]), answer(400, "unsupported_grant_type"));
    assert_eq!(refused(orders, &[grant, to_pay, ("scope", "pay:read pay:audit")]), answer(400, "invalid_scope"));
    for nobody in ["payments", &id(&services.pay, "nobody"), &client] {
        assert_eq!(refused(orders, &[grant, ("audience", nobody)]), answer(400, "invalid_target"), "{nobody}");
    }
    // The callee asks for tokens as well, and may call nobody; an identity without signedToken may not ask.
    let payments = Some(services.payments.as_path());
    assert_eq!(refused(payments, &[grant, ("audience", &client)]), answer(400, "invalid_target"));
    bed.apply(identity(shop, "plain", &[])).await.unwrap();
    bed.ready("ServiceIdentity", Some(shop), "plain").await;
    let plain = bed.mount(shop, "plain-mtls").await;
    assert_eq!(refused(Some(&plain), &[grant, to_pay]), answer(400, "unauthorized_client"));
    let (status, text) = services.curl(
        orders,
        "/token",
        &["--header".into(), "Content-Type: application/json".into(), "--data".into(), "{}".into()],
    );
    assert!(status == 400 && text.contains("invalid_request"), "{status} {text}");
    let (status, _) = services.curl(orders, "/token", &["--data".into(), "x".repeat(20_000)]);
    assert_eq!(status, 400, "too long");
    assert_eq!(services.curl(orders, "/token", &[]).0, 405);
    assert_eq!(services.curl(None, "/other", &[]).0, 404);
    assert_eq!(services.curl(None, "/jwks.json", &["--header".into(), "Host: other.example".into()]).0, 404);
    let lines = services.audited(&client, "InvalidRequest").await;
    let reasons: Vec<String> = lines.iter().map(|line| line["reason"].as_str().unwrap().to_owned()).collect();
    for reason in ["Issued", "InvalidClient", "InvalidRequest", "UnsupportedGrantType", "InvalidScope", "InvalidTarget"]
    {
        assert!(reasons.iter().any(|it| it == reason), "{reason}: {reasons:?}");
    }
}

#[tokio::test]
async fn a_certificate_of_another_trust_domain_gets_no_token() {
    let services = Services::new("foreign").await;
    let (bed, shop, audience) = (&services.bed, services.shop.as_str(), services.audience());
    let domain = unique("foreign");
    bed.apply(self_signed(&domain)).await.unwrap();
    bed.ready("TrustDomain", None, &domain).await;
    let foreign = with(calling(shop, "foreign", &[], &[]), "/spec/trustDomain", json!(domain));
    bed.apply(foreign).await.unwrap();
    bed.ready("ServiceIdentity", Some(shop), "foreign").await;
    let folder = bed.mount(shop, "foreign-mtls").await;
    let form = [("grant_type", "client_credentials"), ("audience", audience.as_str())];
    let (status, answer) = services.ask(Some(&folder), &form);
    assert_eq!((status, &answer["error"]), (401, &json!("invalid_client")));
    bed.delete("ServiceIdentity", Some(shop), "foreign").await;
    bed.delete("TrustDomain", None, &domain).await;
}

#[tokio::test]
async fn a_call_ends_when_one_side_takes_it_back() {
    let services = Services::new("ends").await;
    let (bed, shop, pay, audience) =
        (&services.bed, services.shop.as_str(), services.pay.as_str(), services.audience());
    let form = [("grant_type", "client_credentials"), ("audience", audience.as_str())];
    let ask = || async { services.ask(Some(&services.orders), &form) };
    let becomes = |error: &'static str| async move {
        until(error, || async {
            let (_, answer) = ask().await;
            if answer["error"].as_str().unwrap_or_default() == error { Ok(()) } else { Err(answer.to_string()) }
        })
        .await;
    };
    // The issuer is told again what somebody has deleted.
    bed.delete("Secret", Some("credence-tokens"), &format!("calls.{shop}")).await;
    until("the calls to be written again", || async {
        bed.secret("credence-tokens", &format!("calls.{shop}")).await.map(|_| ()).ok_or_else(String::new)
    })
    .await;
    becomes("").await;
    bed.apply(calling(pay, "payments", &[], &[])).await.unwrap();
    becomes("invalid_target").await;
    let status = bed.get("ServiceIdentity", Some(shop), "orders").await.unwrap().data["status"]["calls"].clone();
    let call = &status["callees"][0];
    assert!(call["agreed"] == false && call["message"].as_str().unwrap().contains("allowedCallers"), "{status}");
    let from_shop: [Rule; 1] = [(shop, "orders", &["pay:read"])];
    bed.apply(calling(pay, "payments", &[], &from_shop)).await.unwrap();
    becomes("").await;
    // Without an operator as well as with one.
    bed.delete("ServiceIdentity", Some(shop), "orders").await;
    becomes("unauthorized_client").await;
    until("nothing to be left of the namespace", || async {
        let left = bed.secret("credence-tokens", &format!("calls.{shop}")).await;
        left.map_or(Ok(()), |left| Err(format!("{:?}", left.metadata)))
    })
    .await;
}

#[tokio::test]
async fn the_issuer_publishes_keys_and_says_what_it_can() {
    let services = Services::new("published").await;
    let (bed, issuer) = (&services.bed, services.bed.env("TOKENS_ISSUER").to_owned());
    for path in ["/.well-known/openid-configuration", "/.well-known/oauth-authorization-server"] {
        let (status, text) = services.curl(None, path, &[]);
        let metadata: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((status, metadata["issuer"].as_str()), (200, Some(issuer.as_str())));
        assert_eq!(metadata["jwks_uri"], format!("{issuer}/jwks.json"));
    }
    let (_, keys) = services.curl(None, "/jwks.json", &[]);
    assert!(!keys.contains("\"d\""), "no private key: {keys}");
    let keys: Value = serde_json::from_str(&keys).unwrap();
    assert!(keys["keys"].as_array().unwrap().len() >= 2, "the next key is published before it signs");
    let phases: Vec<String> = phases(bed, "demo").await.into_iter().map(|(_, phase)| phase).take(2).collect();
    assert_eq!(phases, ["Active", "Prepared"]);
    for path in ["/jwks.json", "/bundle.json"] {
        let (_, head) = services.curl(None, path, &["--head".into()]);
        let etag = head.lines().find_map(|line| line.strip_prefix("etag: ")).unwrap().trim().to_owned();
        assert!(head.contains("cache-control: public, max-age=300"), "{head}");
        assert_eq!(services.curl(None, path, &["--header".into(), format!("If-None-Match: {etag}")]).0, 304, "{path}");
        assert_eq!(services.curl(None, path, &["--data".into(), "x".into()]).0, 405, "{path}");
    }
}

/// The keys of the issuer of a trust domain, each with its phase.
async fn phases(bed: &Bed, domain: &str) -> Vec<(String, String)> {
    let status = bed.get("TrustDomain", None, domain).await.unwrap().data["status"]["tokenKeys"].clone();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    status.as_array().into_iter().flatten().map(|key| (text(&key["id"]), text(&key["phase"]))).collect()
}

#[tokio::test]
async fn keys_are_rotated_and_no_good_token_is_refused() {
    let services = Services::new("turned").await;
    let (bed, orders, payments) = (&services.bed, id(&services.shop, "orders"), services.audience());
    let serving = Serving::start(services.example(&services.payments, &payments));
    let call = |token: Option<&str>| services.call(&services.orders, &orders, &serving.url, token, "pay:read");
    let first = services.token("pay:read");
    let (before, policy) = (phases(bed, "demo").await, unique("turn"));
    bed.apply(turn(&policy, "demo")).await.unwrap();
    let (began, mut calls) = (std::time::Instant::now(), 0);
    while signed_with(&services.token("pay:read")) == signed_with(&first) {
        // The callee keeps the keys that it has read, and asks again for one that it does not know.
        let answer = call(None);
        assert!(answer.starts_with("200 "), "after {calls} calls: {answer}");
        calls += 1;
        assert!(began.elapsed() < std::time::Duration::from_secs(150), "{:?}", phases(bed, "demo").await);
    }
    for _ in 0..10 {
        let answer = call(None);
        assert!(answer.starts_with("200 "), "signed with the new key: {answer}");
    }
    let answer = call(Some(&first));
    assert!(answer.starts_with("200 "), "signed with the former key, which retires: {answer}");
    assert_eq!(signed_with(&services.token("pay:read")), before[1].0, "the key that was prepared");
    until("the former key to retire", || async {
        let now = phases(bed, "demo").await;
        if now.contains(&(signed_with(&first), "Retiring".to_owned())) { Ok(()) } else { Err(format!("{now:?}")) }
    })
    .await;
    // The key that was prepared is from before as well, so the policy has done only half of its work.
    let status = bed.get("RotationPolicy", Some("credence-system"), &policy).await.unwrap().data["status"].clone();
    assert_eq!((&status["targets"], &status["outstanding"]), (&json!(1), &json!(1)), "{status}");
    bed.delete("RotationPolicy", Some("credence-system"), &policy).await;
}

#[tokio::test]
async fn a_key_signs_once_every_replica_serves_it_and_a_tainted_one_no_more() {
    let services = Services::new("replicas").await;
    let (bed, shop, domain) = (&services.bed, services.shop.as_str(), unique("replicas"));
    let host = format!("{domain}.example");
    let tokens =
        |tainted: &[String]| json!({"issuer": format!("https://{host}"), "publishFor": "1m", "taintedKeys": tainted});
    bed.apply(with(self_signed(&domain), "/spec/tokens", tokens(&[]))).await.unwrap();
    bed.condition("TrustDomain", None, &domain, "KeysReady", ("True", "KeysStored")).await;
    let published = || {
        let (_, keys) = services.curl(None, "/jwks.json", &["--header".into(), format!("Host: {host}")]);
        let keys: Value = serde_json::from_str(&keys).unwrap_or_default();
        let ids = keys["keys"].as_array().into_iter().flatten().map(|key| key["kid"].as_str().unwrap().to_owned());
        ids.collect::<Vec<_>>()
    };
    until("the issuer to be served", || async { if published().len() == 2 { Ok(()) } else { Err(String::new()) } })
        .await;
    let first = published();
    // A replica that serves nothing of it.
    let late = unique("late-replica");
    let report = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "data": {"report.json": "{\"endpoints\":{}}"},
        "metadata": {"name": late, "namespace": "credence-tokens", "labels": {"credence.dev/component": "edge-report"}},
    });
    bed.apply(report).await.unwrap();
    let policy = unique("replicas");
    bed.apply(turn(&policy, &domain)).await.unwrap();
    let (began, mut message) = (std::time::Instant::now(), String::new());
    while !message.contains("every replica") {
        assert!(began.elapsed() < std::time::Duration::from_secs(120), "{message}");
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        let conditions = bed.get("TrustDomain", None, &domain).await.unwrap().data["status"]["conditions"].clone();
        let found = conditions.as_array().unwrap().iter().find(|it| it["type"] == "KeysReady").cloned();
        message = found.unwrap()["message"].as_str().unwrap().to_owned();
    }
    assert_eq!(published(), first, "nothing is signed with the next key");
    bed.delete("ConfigMap", Some("credence-tokens"), &late).await;
    let turned = until("the next key to sign", || async {
        let now = published();
        if now.len() == 3 && now[0] == first[1] { Ok(now) } else { Err(format!("{now:?}")) }
    })
    .await;
    assert_eq!(turned[2], first[0], "the former key is published until its last token has expired");
    // Of a key that somebody else may have nothing is left, and the next one signs at once.
    bed.apply(with(self_signed(&domain), "/spec/tokens", tokens(&turned[..1]))).await.unwrap();
    until("the tainted key to go", || async {
        let now = published();
        if now.len() == 3 && now[0] == turned[1] && !now.contains(&turned[0]) {
            Ok(())
        } else {
            Err(format!("{now:?}"))
        }
    })
    .await;
    bed.delete("RotationPolicy", Some("credence-system"), &policy).await;
    // A token of one issuer is asked for at its own host, with a certificate of its trust domain.
    bed.apply(with(calling(shop, "own", &[(shop, "other", &[])], &[]), "/spec/trustDomain", json!(domain)))
        .await
        .unwrap();
    bed.apply(with(calling(shop, "other", &[], &[(shop, "own", &[])]), "/spec/trustDomain", json!(domain)))
        .await
        .unwrap();
    agreed(bed, shop, "own").await;
    let own = bed.mount(shop, "own-mtls").await;
    let status = bed.ready("ServiceIdentity", Some(shop), "other").await.data["status"]["spiffeID"].clone();
    let form = format!("grant_type=client_credentials&audience={}", status.as_str().unwrap());
    let ask = |host: &str| {
        let more = ["--header".to_owned(), format!("Host: {host}"), "--data".to_owned(), form.clone()];
        services.curl(Some(&own), "/token", &more)
    };
    let (status, answer) = until("the issuer to know the call", || async {
        let (status, answer) = ask(&host);
        if status == 200 { Ok((status, answer)) } else { Err(answer) }
    })
    .await;
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!((status, signed_with(answer["access_token"].as_str().unwrap())), (200, turned[1].clone()));
    let other = services.bed.env("TOKENS_ISSUER").trim_start_matches("https://").to_owned();
    assert_eq!(ask(&other).0, 401, "at the issuer of another trust domain");
    bed.delete("ServiceIdentity", Some(shop), "own").await;
    bed.delete("ServiceIdentity", Some(shop), "other").await;
    bed.delete("TrustDomain", None, &domain).await;
}

#[tokio::test]
async fn one_issuer_has_one_trust_domain_and_the_edge_reads_no_signing_key() {
    let bed = Bed::open().await;
    let name = unique("issuer");
    let tokens = json!({"issuer": bed.env("TOKENS_ISSUER")});
    bed.apply(with(self_signed(&name), "/spec/tokens", tokens)).await.unwrap();
    bed.condition("TrustDomain", None, &name, "KeysReady", ("False", "Conflict")).await;
    let own = json!({"issuer": format!("https://{name}.example"), "accessTokenLifetime": "1m"});
    bed.apply(with(self_signed(&name), "/spec/tokens", own)).await.unwrap();
    bed.condition("TrustDomain", None, &name, "KeysReady", ("True", "KeysStored")).await;
    assert!(bed.secret("credence-tokens", &format!("issuer.{name}")).await.is_some());
    for wrong in
        ["http://a.example", "https://a.example/path", "https://a.example:443", "https://A.example", "https://"]
    {
        let refused = bed.apply(with(self_signed(&name), "/spec/tokens", json!({"issuer": wrong}))).await;
        assert!(refused.unwrap_err().contains("issuer"), "{wrong}");
    }
    bed.delete("TrustDomain", None, &name).await;
    until("its keys to be deleted", || async {
        let left = bed.secret("credence-tokens", &format!("issuer.{name}")).await;
        left.map_or(Ok(()), |_| Err("it is still there".to_owned()))
    })
    .await;
    let kubectl = format!("{}/kubectl", bed.env("BED_BIN"));
    let may = |account: &str, namespace: &str| {
        let arguments = ["--kubeconfig", bed.env("KUBECONFIG"), "auth", "can-i", "get", "secrets"];
        let who = ["--as", account, "--namespace", namespace];
        run(&kubectl, &[&arguments[..], &who[..]].concat(), "").1.trim().to_owned()
    };
    let (edge, tokens) =
        ("system:serviceaccount:credence-edge:credence-edge", "system:serviceaccount:credence-tokens:credence-tokens");
    assert_eq!((may(edge, "credence-edge").as_str(), may(edge, "credence-tokens").as_str()), ("yes", "no"));
    assert_eq!((may(tokens, "credence-tokens").as_str(), may(tokens, "credence-edge").as_str()), ("yes", "no"));
}

#[tokio::test]
async fn a_trust_domain_without_tokens_says_so_to_its_identities() {
    let bed = Bed::open().await;
    let (namespace, domain) = (bed.namespace("untokened").await, unique("untokened"));
    bed.apply(self_signed(&domain)).await.unwrap();
    let to_other: [Rule; 1] = [(&namespace, "other", &[])];
    bed.apply(with(calling(&namespace, "service", &to_other, &[]), "/spec/trustDomain", json!(domain))).await.unwrap();
    let service = bed.ready("ServiceIdentity", Some(&namespace), "service").await;
    let call = &service.data["status"]["calls"]["callees"][0];
    assert!(call["message"].as_str().unwrap().contains("issues no tokens"), "{call}");
    let alone = json!({"trustDomain": "demo", "authentication": {"signedToken": {}}});
    let refused = bed.apply(manifest("ServiceIdentity", Some(&namespace), "alone", alone)).await.unwrap_err();
    assert!(refused.contains("mtls"), "{refused}");
    bed.delete("ServiceIdentity", Some(&namespace), "service").await;
    bed.delete("TrustDomain", None, &domain).await;
}
