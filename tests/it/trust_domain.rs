//! External authorities and trust bundles.

use std::path::PathBuf;

use kube::core::DynamicObject;
use serde_json::{Value, json};

use crate::bed::{Bed, identity, label, manifest, openssl, self_signed, unique, until, with};

/// A root and an intermediate, issued by OpenSSL.
struct Authority {
    folder: PathBuf,
}

impl Authority {
    fn make(bed: &Bed) -> Self {
        let authority = Self { folder: PathBuf::from(bed.env("BED_DIR")).join("mounts").join(unique("ca")) };
        std::fs::create_dir_all(&authority.folder).unwrap();
        authority.issue("root", None, &["-days", "30"], true);
        authority.issue("intermediate", Some("root"), &["-days", "20"], true);
        authority
    }

    fn path(&self, name: &str) -> String {
        self.folder.join(name).to_str().unwrap().to_owned()
    }

    fn issue(&self, name: &str, signer: Option<&str>, validity: &[&str], is_authority: bool) {
        let (key, certificate) = (self.path(&format!("{name}.key")), self.path(&format!("{name}.crt")));
        let constraints = format!("basicConstraints=critical,CA:{}", if is_authority { "TRUE" } else { "FALSE" });
        let usage = if is_authority { "keyUsage=critical,keyCertSign,cRLSign" } else { "keyUsage=digitalSignature" };
        let subject = format!("/CN={name}");
        let mut arguments = vec![
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-noenc",
            "-keyout",
            &key,
            "-out",
            &certificate,
            "-subj",
            &subject,
            "-addext",
            &constraints,
            "-addext",
            usage,
        ];
        arguments.extend(validity);
        let (signer_crt, signer_key);
        if let Some(signer) = signer {
            signer_crt = self.path(&format!("{signer}.crt"));
            signer_key = self.path(&format!("{signer}.key"));
            arguments.extend(["-CA", &signer_crt, "-CAkey", &signer_key]);
        }
        openssl(&arguments);
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    fn secret(&self, name: &str, certificate: &str, key: &str) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
            "metadata": {"name": name, "namespace": "credence-system"},
            "stringData": {
                "tls.crt": self.read(&format!("{certificate}.crt")),
                "tls.key": self.read(&format!("{key}.key")),
                "ca.crt": self.read("root.crt"),
            },
        })
    }
}

fn external_ca(name: &str, secret: &str) -> Value {
    with(self_signed(name), "/spec/issuer", json!({"ca": {"secretRef": {"name": secret}}}))
}

#[tokio::test]
async fn an_external_intermediate_issues_under_its_offline_root() {
    let bed = Bed::open().await;
    let namespace = bed.namespace("external-ca").await;
    let authority = Authority::make(&bed);
    let name = unique("external-ca");
    bed.apply(external_ca(&name, &name)).await.unwrap();
    bed.condition("TrustDomain", None, &name, "Ready", ("False", "IssuerSecretNotFound")).await;
    bed.apply(authority.secret(&name, "intermediate", "intermediate")).await.unwrap();
    bed.ready("TrustDomain", None, &name).await;
    bed.apply(with(identity(&namespace, "orders", &[]), "/spec/trustDomain", json!(name))).await.unwrap();
    bed.ready("ServiceIdentity", Some(&namespace), "orders").await;
    let folder = bed.mount(&namespace, "orders-mtls").await;
    let chain = folder.join("tls.crt").to_str().unwrap().to_owned();
    openssl(&["verify", "-x509_strict", "-CAfile", &authority.path("root.crt"), "-untrusted", &chain, &chain]);
}

#[tokio::test]
async fn an_authority_that_cannot_sign_is_refused_and_recovers() {
    let bed = Bed::open().await;
    let authority = Authority::make(&bed);
    authority.issue("other", Some("root"), &["-days", "20"], true);
    authority.issue("leaf", Some("root"), &["-days", "20"], false);
    let past = ["-not_before", "20200101000000Z", "-not_after", "20200102000000Z"];
    let stamped = openssl(&["version"]).split_whitespace().nth(1).unwrap() >= "3.4";
    let name = unique("refused");
    bed.apply(external_ca(&name, &name)).await.unwrap();
    let mut cases = vec![
        ("intermediate", "other", "does not belong to the certificate"),
        ("leaf", "leaf", "not that of an authority"),
    ];
    if stamped {
        authority.issue("expired", Some("root"), &past, true);
    } else {
        expire(&authority);
    }
    cases.push(("expired", "expired", "expired at"));
    for (certificate, key, says) in cases {
        bed.apply(authority.secret(&name, certificate, key)).await.unwrap();
        until(&format!("{certificate} with the key of {key} to be refused"), || async {
            let object = bed.get("TrustDomain", None, &name).await.unwrap();
            let status = object.data["status"].to_string();
            let refused = status.contains("IssuerSecretInvalid") && status.contains(says);
            if refused { Ok(()) } else { Err(status) }
        })
        .await;
    }
    bed.apply(authority.secret(&name, "intermediate", "intermediate")).await.unwrap();
    bed.ready("TrustDomain", None, &name).await;
}

/// Issues an expired intermediate with `openssl ca`, for OpenSSL versions whose `req` has no option for dates.
fn expire(authority: &Authority) {
    authority.issue("expired", Some("root"), &["-days", "1"], true);
    let (request, config) = (authority.path("expired.csr"), authority.path("ca.cnf"));
    openssl(&["req", "-new", "-key", &authority.path("expired.key"), "-subj", "/CN=expired", "-out", &request]);
    let folder = authority.folder.to_str().unwrap();
    std::fs::write(authority.path("index.txt"), "").unwrap();
    std::fs::write(
        &config,
        format!(
            "[ca]\ndefault_ca=it\n[it]\ndatabase={folder}/index.txt\nnew_certs_dir={folder}\nrand_serial=yes\n\
             default_md=sha256\npolicy=any\nx509_extensions=ext\n[any]\ncommonName=supplied\n[ext]\n\
             basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign\n"
        ),
    )
    .unwrap();
    openssl(&[
        "ca",
        "-batch",
        "-notext",
        "-config",
        &config,
        "-cert",
        &authority.path("root.crt"),
        "-keyfile",
        &authority.path("root.key"),
        "-startdate",
        "20200101000000Z",
        "-enddate",
        "20200102000000Z",
        "-in",
        &request,
        "-out",
        &authority.path("expired.crt"),
    ]);
}

#[tokio::test]
async fn the_bundle_is_published_in_selected_namespaces_only() {
    let bed = Bed::open().await;
    let (inside, outside) = (bed.namespace("inside").await, bed.namespace("outside").await);
    let name = unique("bundle");
    let bundle_name = format!("{name}-trust-bundle");
    label(&bed, &inside, json!({"mesh": name})).await;
    let selector = json!({"namespaceSelector": {"matchLabels": {"mesh": name}}});
    bed.apply(with(self_signed(&name), "/spec/bundle", selector)).await.unwrap();
    // The operator may process the trust domain before the label.
    until("the bundle in the selected namespace and the operator's", || async {
        let status = bed.ready("TrustDomain", None, &name).await.data["status"].clone();
        if status["bundle"]["namespaces"] == 2 { Ok(()) } else { Err(status.to_string()) }
    })
    .await;
    let bundle = bed.get("ConfigMap", Some(&inside), &bundle_name).await.unwrap();
    assert!(bundle.data["data"]["ca.crt"].as_str().unwrap().starts_with("-----BEGIN CERTIFICATE-----"));
    assert!(bed.get("ConfigMap", Some(&outside), &bundle_name).await.is_none());

    label(&bed, &outside, json!({"mesh": name})).await;
    label(&bed, &inside, json!({"mesh": null})).await;
    until("the bundle to follow the changed selector", || async {
        let (left, came) = (
            bed.get("ConfigMap", Some(&inside), &bundle_name).await,
            bed.get("ConfigMap", Some(&outside), &bundle_name).await,
        );
        if left.is_none() && came.is_some() { Ok(()) } else { Err(format!("{} {}", left.is_some(), came.is_some())) }
    })
    .await;
}

#[tokio::test]
async fn the_status_says_what_additional_roots_mean() {
    let bed = Bed::open().await;
    let name = unique("succession");
    let roots = json!([crate::authority::Authority::new("next root").pem()]);
    bed.apply(with(self_signed(&name), "/spec/bundle", json!({"additionalRoots": roots}))).await.unwrap();
    let ready = bed.ready("TrustDomain", None, &name).await;
    let conditions = ready.data["status"]["conditions"].to_string();
    assert!(conditions.contains("can issue every identity of the trust domain"), "{conditions}");
    assert_eq!(ready.data["status"]["bundle"]["roots"], 2);
    bed.delete("TrustDomain", None, &name).await;
}

#[tokio::test]
async fn a_foreign_config_map_is_left_unchanged_and_reported() {
    let bed = Bed::open().await;
    let namespace = bed.namespace("theirs").await;
    let name = unique("theirs");
    label(&bed, &namespace, json!({"mesh": name})).await;
    let theirs = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "data": {"ca.crt": "theirs"},
        "metadata": {"name": format!("{name}-trust-bundle"), "namespace": namespace},
    });
    bed.apply(theirs).await.unwrap();
    let selector = json!({"namespaceSelector": {"matchLabels": {"mesh": name}}});
    bed.apply(with(self_signed(&name), "/spec/bundle", selector)).await.unwrap();
    let object = bed.condition("TrustDomain", None, &name, "BundlePublished", ("False", "PublishFailed")).await;
    assert!(object.data["status"]["bundle"]["lagging"][0].as_str().unwrap().contains(&namespace));
    let left = bed.get("ConfigMap", Some(&namespace), &format!("{name}-trust-bundle")).await.unwrap();
    assert_eq!(left.data["data"]["ca.crt"], "theirs");
    bed.delete("ConfigMap", Some(&namespace), &format!("{name}-trust-bundle")).await;
    bed.ready("TrustDomain", None, &name).await;
}

#[tokio::test]
async fn a_lost_authority_is_restored_but_never_generated_again() {
    let bed = Bed::open().await;
    let name = unique("lost");
    bed.apply(self_signed(&name)).await.unwrap();
    let before = bed.ready("TrustDomain", None, &name).await;
    let mut backup = Vec::new();
    for secret in [format!("{name}-root-1"), format!("{name}-intermediate-1")] {
        let stored = bed.get("Secret", Some("credence-system"), &secret).await.unwrap();
        backup.push(json!({
            "apiVersion": "v1", "kind": "Secret", "type": stored.data["type"], "data": stored.data["data"],
            "metadata": {
                "name": secret, "namespace": "credence-system", "labels": stored.metadata.labels,
                "annotations": stored.metadata.annotations, "ownerReferences": stored.metadata.owner_references,
            },
        }));
        bed.delete("Secret", Some("credence-system"), &secret).await;
    }
    let object = bed.condition("TrustDomain", None, &name, "Ready", ("False", "AuthorityLost")).await;
    assert!(object.data["status"].to_string().contains("backup"));
    assert!(bed.secret("credence-system", &format!("{name}-root-1")).await.is_none());

    let forged = with(backup[1].clone(), "/data", backup[0]["data"].clone());
    bed.apply(forged).await.unwrap();
    bed.condition("TrustDomain", None, &name, "Ready", ("False", "AuthorityAltered")).await;
    for secret in backup {
        bed.apply(secret).await.unwrap();
    }
    let after = bed.ready("TrustDomain", None, &name).await;
    let fingerprint = |object: &DynamicObject| object.data["status"]["authority"]["fingerprint"].clone();
    assert_eq!(fingerprint(&before), fingerprint(&after));
}

#[tokio::test]
async fn a_trust_domain_stays_while_identities_belong_to_it() {
    let bed = Bed::open().await;
    let namespace = bed.namespace("inuse").await;
    let name = unique("inuse");
    bed.apply(self_signed(&name)).await.unwrap();
    bed.apply(with(identity(&namespace, "orders", &[]), "/spec/trustDomain", json!(name))).await.unwrap();
    bed.ready("ServiceIdentity", Some(&namespace), "orders").await;
    bed.delete("TrustDomain", None, &name).await;
    bed.condition("TrustDomain", None, &name, "Accepted", ("False", "InUse")).await;
    assert!(bed.secret("credence-system", &format!("{name}-root-1")).await.is_some());
    bed.delete("ServiceIdentity", Some(&namespace), "orders").await;
    until("the trust domain to be deleted", || async {
        bed.get("TrustDomain", None, &name).await.map_or(Ok(()), |_| Err("it still exists".to_owned()))
    })
    .await;
}

#[tokio::test]
async fn a_broken_trust_domain_does_not_affect_another() {
    let bed = Bed::open().await;
    let namespace = bed.namespace("apart").await;
    let broken = manifest(
        "TrustDomain",
        None,
        &unique("broken"),
        json!({
            "domain": "broken.example", "environment": "development",
            "issuer": {"ca": {"secretRef": {"name": "does-not-exist"}}},
        }),
    );
    bed.apply(broken).await.unwrap();
    bed.apply(identity(&namespace, "orders", &[])).await.unwrap();
    bed.ready("ServiceIdentity", Some(&namespace), "orders").await;
}
