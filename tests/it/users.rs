//! Services that act for users of an identity provider that is somebody else's.

use std::path::Path;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::bed::{Bed, manifest, self_signed, unique, until, with};
use crate::calls::{Rule, Services, agreed, calling, id};
use crate::identity_provider::{Provider, SubjectIssuer, exchange};

/// The claims of a token.
fn claims(token: &Value) -> Value {
    let payload = token.as_str().unwrap().split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}

/// The error of a request for a token, with its status.
fn refused((status, answer): (u16, Value)) -> (u16, String) {
    (status, answer["error"].as_str().unwrap_or_default().to_owned())
}

fn invalid() -> (u16, String) {
    (400, "invalid_request".to_owned())
}

#[tokio::test]
async fn a_service_acts_for_a_user_who_has_called_it() {
    let services = Services::new("users").await;
    let (bed, shop, pay) = (&services.bed, services.shop.as_str(), services.pay.as_str());
    let (orders, payments, ledger) = (id(shop, "orders"), services.audience(), id(pay, "ledger"));
    let provider = Provider::start(bed, 0, "one");
    let audiences = json!([{"audience": "web-shop", "identity": {"namespace": shop, "name": "orders"}}]);
    let issuer = SubjectIssuer::add(bed, &provider.by_url(audiences)).await;
    issuer.known_to(bed, shop, "orders").await;
    let user = provider.login("alice", &json!("acme"), &orders);
    let ask = |folder: &Path, token: &Value, audience: &str| exchange(&services, folder, token, audience, "");
    let (status, answer) = ask(&services.orders, &user["access_token"], &payments);
    assert_eq!((status, &answer["token_type"]), (200, &json!("Bearer")), "{answer}");
    assert_eq!(answer["issued_token_type"], "urn:ietf:params:oauth:token-type:access_token");
    let for_payments = answer["access_token"].clone();
    let told = claims(&for_payments);
    let alice = format!("{}:alice", issuer.name);
    assert_eq!(
        (&told["sub"], &told["tenant"], &told["client_id"], &told["aud"], &told["act"]),
        (&json!(alice), &json!("acme"), &json!(orders), &json!(payments), &json!({"sub": orders}))
    );
    assert!(told["exp"].as_i64() <= claims(&user["access_token"])["exp"].as_i64(), "{told}");
    // The callee goes on to another service for the same user, with the token that it was called with.
    let ledgers: [Rule; 1] = [(pay, "ledger", &["ledger:write"])];
    let from_shop: [Rule; 1] = [(shop, "orders", &["pay:read", "pay:write"])];
    bed.apply(calling(pay, "ledger", &[], &[(pay, "payments", &["ledger:write"])])).await.unwrap();
    bed.apply(calling(pay, "payments", &ledgers, &from_shop)).await.unwrap();
    agreed(bed, pay, "payments").await;
    let (status, answer) = ask(&services.payments, &for_payments, &ledger);
    assert_eq!(status, 200, "{answer}");
    let told = claims(&answer["access_token"]);
    assert_eq!((&told["sub"], &told["tenant"]), (&json!(alice), &json!("acme")));
    assert_eq!(told["act"], json!({"sub": payments, "act": {"sub": orders}}));
    // An ID token that the provider made for the application behind the service is one as well.
    let (status, answer) = ask(&services.orders, &user["id_token"], &payments);
    assert_eq!((status, claims(&answer["access_token"])["sub"].as_str()), (200, Some(alice.as_str())));
    // Nobody acts for a user who has called somebody else.
    assert_eq!(refused(ask(&services.payments, &user["access_token"], &ledger)), invalid());
    assert_eq!(refused(ask(&services.payments, &user["id_token"], &ledger)), invalid());
    assert_eq!(refused(ask(&services.orders, &for_payments, &payments)), invalid());
    // Its tenant is one string, and it is what the provider has signed.
    for tenant in [json!(["acme", "other"]), Value::Null, json!("acme,other"), json!("")] {
        let user = provider.login("mallory", &tenant, &orders);
        assert_eq!(refused(ask(&services.orders, &user["access_token"], &payments)), invalid(), "{tenant}");
    }
    let forged = |token: &Value| {
        let (head, rest) = token.as_str().unwrap().split_once('.').unwrap();
        let (_, signature) = rest.split_once('.').unwrap();
        let payload = with(json!({"claims": claims(token)}), "/claims/org", json!("other"))["claims"].to_string();
        json!(format!("{head}.{}.{signature}", URL_SAFE_NO_PAD.encode(payload)))
    };
    assert_eq!(refused(ask(&services.orders, &forged(&user["access_token"]), &payments)), invalid());
    // The scopes are those of the services, whoever the user is.
    let too_much = exchange(&services, &services.orders, &user["access_token"], &payments, "pay:audit");
    assert_eq!(refused(too_much), (400, "invalid_scope".to_owned()));
    let lines = services.audited(&orders, "InvalidScope").await;
    let issued = lines.iter().find(|line| line["reason"] == "Issued" && line["request"] == "TokenExchange").unwrap();
    assert_eq!((&issued["subject"], &issued["tenant"]), (&json!(alice), &json!("acme")));
    for reason in ["SubjectWrongClaims", "SubjectWrongSignature", "SubjectWrongAudience"] {
        assert!(lines.iter().any(|line| line["reason"] == reason), "{reason}: {lines:?}");
    }
    let tokens = [&user["access_token"], &user["id_token"], &for_payments].map(|it| it.as_str().unwrap().to_owned());
    assert!(
        !lines.iter().any(|line| tokens.iter().any(|token| line.to_string().contains(token))),
        "no token is logged"
    );
    // Once the platform takes the provider back, nobody acts for its users any more.
    issuer.remove(bed).await;
    until("the users of the provider to be refused", || async {
        let answer = refused(ask(&services.orders, &user["access_token"], &payments));
        if answer == invalid() { Ok(()) } else { Err(format!("{answer:?}")) }
    })
    .await;
}

#[tokio::test]
async fn the_keys_of_a_provider_are_followed_and_kept_while_it_is_away() {
    let services = Services::new("provider-keys").await;
    let (bed, shop, payments) = (&services.bed, services.shop.as_str(), services.audience());
    let orders = id(shop, "orders");
    let provider = Provider::start(bed, 0, "first");
    let issuer = SubjectIssuer::add(bed, &provider.by_url(json!([]))).await;
    issuer.known_to(bed, shop, "orders").await;
    let accepted = |token: Value, what: &'static str| {
        let (services, payments) = (&services, payments.clone());
        async move {
            until(what, || async {
                let (status, answer) = exchange(services, &services.orders, &token, &payments, "");
                if status == 200 { Ok(()) } else { Err(answer.to_string()) }
            })
            .await;
        }
    };
    let before = provider.login("alice", &json!("acme"), &orders)["access_token"].clone();
    accepted(before.clone(), "a user of the provider to be accepted").await;
    // It turns its keys without a word. A token that names an unknown key makes the issuer look.
    let provider = provider.restart("second");
    let after = provider.login("alice", &json!("acme"), &orders)["access_token"].clone();
    accepted(after.clone(), "the new key of the provider to be known").await;
    assert_eq!(refused(exchange(&services, &services.orders, &before, &payments, "")), invalid(), "a key that is gone");
    // It goes away. Its users are who they were.
    let provider = provider.restart("third");
    let unknown = provider.login("alice", &json!("acme"), &orders)["access_token"].clone();
    drop(provider);
    // It is asked again 15 seconds after it was asked before.
    let (began, mut told) = (Instant::now(), Value::Null);
    while !told["message"]
        .as_str()
        .is_some_and(|it| it.contains("cannot be reached") && it.contains("using the cached keys"))
    {
        assert!(began.elapsed() < Duration::from_secs(90), "{told}");
        assert_eq!(refused(exchange(&services, &services.orders, &unknown, &payments, "")), invalid());
        let (status, answer) = exchange(&services, &services.orders, &after, &payments, "");
        assert_eq!(status, 200, "{answer}");
        tokio::time::sleep(Duration::from_secs(1)).await;
        told = issuer.status(bed).await;
    }
    assert_eq!(told["usable"], true);
    issuer.remove(bed).await;
}

#[tokio::test]
async fn only_selected_namespaces_act_for_the_users_of_a_provider_with_given_keys() {
    let services = Services::new("selected").await;
    let (bed, shop, payments) = (&services.bed, services.shop.as_str(), services.audience());
    let orders = id(shop, "orders");
    let provider = Provider::start(bed, 0, "given");
    let secret = unique("login-keys");
    let entry = |text: &str| {
        let metadata = json!({"name": secret, "namespace": "credence-system"});
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {"jwks.json": text}})
    };
    bed.apply(entry(&provider.key_set())).await.unwrap();
    let selector = json!({"matchLabels": {"acts-for": secret}});
    let issuer = SubjectIssuer::add(bed, &provider.by_secret(&secret, selector)).await;
    let user = provider.login("alice", &json!("acme"), &orders)["access_token"].clone();
    let ask = || exchange(&services, &services.orders, &user, &payments, "");
    assert_eq!(refused(ask()), invalid());
    services.audited(&orders, "SubjectUnknownIssuer").await;
    crate::bed::label(bed, shop, json!({"acts-for": secret})).await;
    issuer.known_to(bed, shop, "orders").await;
    let becomes = |expected: u16| async move {
        until("the answer to change", || async {
            let (status, answer) = ask();
            if status == expected { Ok(()) } else { Err(answer.to_string()) }
        })
        .await;
    };
    becomes(200).await;
    bed.apply(entry(&Provider::start(bed, 0, "another").key_set())).await.unwrap();
    becomes(400).await;
    bed.apply(entry(&provider.key_set())).await.unwrap();
    becomes(200).await;
    crate::bed::label(bed, shop, json!({"acts-for": null})).await;
    becomes(400).await;
    issuer.remove(bed).await;
    bed.delete("Secret", Some("credence-system"), &secret).await;
}

#[tokio::test]
async fn what_is_wrong_with_a_provider_is_told() {
    let bed = Bed::open().await;
    let (name, secret) = (unique("providers"), unique("login-keys"));
    let url = format!("https://{name}.example");
    let keys = |keys: Value| json!([{"name": "customers", "issuer": "https://login.example", "namespaceSelector": {}, "keys": keys}]);
    let domain = |issuers: Value| {
        let issuing = with(self_signed(&name), "/spec/tokens", json!({"issuer": url}));
        with(issuing, "/spec/subjectIssuers", issuers)
    };
    bed.apply(domain(keys(json!({"secretRef": {"name": secret}})))).await.unwrap();
    let told = |reason: &'static str, words: &'static str| {
        let (bed, name) = (&bed, name.clone());
        async move {
            until(words, || async {
                let found = bed.condition("TrustDomain", None, &name, "SubjectIssuersReady", ("False", reason)).await;
                let status = &found.data["status"]["subjectIssuers"][0];
                let message = status["message"].as_str().unwrap_or_default();
                if status["usable"] == false && message.contains(words) { Ok(()) } else { Err(status.to_string()) }
            })
            .await;
        }
    };
    told("KeysInvalid", "does not exist").await;
    let metadata = json!({"name": secret, "namespace": "credence-system"});
    let broken = json!({"jwks.json": "{\"keys\":[{\"kty\":\"oct\",\"k\":\"s3cret\"}]}"});
    bed.apply(json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": broken})).await.unwrap();
    told("KeysInvalid", "holds a secret key").await;
    bed.apply(domain(keys(json!({"url": "https://169.254.169.254/keys"})))).await.unwrap();
    told("KeysNotFetched", "metadata service").await;
    let pattern = with(
        json!({"all": keys(json!({"url": "https://login.example/keys"}))}),
        "/all/0/tenant",
        json!({"claim": "org", "pattern": "("}),
    );
    bed.apply(domain(pattern["all"].clone())).await.unwrap();
    told("InvalidSpec", "regular expression").await;
    for (wrong, words) in [
        (keys(json!({})), "exactly one of secretRef and url"),
        (keys(json!({"url": "https://a.example", "secretRef": {"name": "k"}})), "exactly one of secretRef and url"),
        (keys(json!({"url": "http://login.example/keys"})), "keys.url"),
        (keys(json!({"url": "https://user:password@login.example/keys"})), "keys.url"),
        (keys(json!({"secretRef": {"name": "k"}, "caBundle": "x"})), "set url as well"),
    ] {
        let error = bed.apply(domain(wrong.clone())).await.unwrap_err();
        assert!(error.contains(words), "{wrong}: {error}");
    }
    let named_spiffe =
        with(json!({"all": keys(json!({"url": "https://login.example/keys"}))}), "/all/0/name", json!("spiffe"));
    assert!(bed.apply(domain(named_spiffe["all"].clone())).await.unwrap_err().contains("no user may have one"));
    let mut twice = keys(json!({"url": "https://login.example/keys"}));
    let again = with(json!({"it": twice[0]}), "/it/name", json!("staff"))["it"].clone();
    twice.as_array_mut().unwrap().push(again);
    assert!(bed.apply(domain(twice)).await.unwrap_err().contains("same issuer"));
    let without = manifest(
        "TrustDomain",
        None,
        &unique("without"),
        json!({
            "domain": "x.example", "environment": "development", "issuer": {"selfSigned": {}},
            "subjectIssuers": keys(json!({"url": "https://login.example/keys"})),
        }),
    );
    assert!(bed.apply(without).await.unwrap_err().contains("set tokens as well"));
    bed.delete("TrustDomain", None, &name).await;
    bed.delete("Secret", Some("credence-system"), &secret).await;
}
