//! One trust domain that issues tokens: its documents, the key that signs, and whose users services may act for. Pure, but for the random part of token IDs.

use std::collections::BTreeSet;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::HeaderValue;
use jiff::Timestamp;
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject;
use serde::Serialize;
use serde_json::{Value, json};
use thiserror::Error;
use uuid::Uuid;

use super::bundle;
use super::key_sets::KeySets;
use super::outcome::Reason;
use super::request::{EXCHANGE, SubjectToken};
use super::subject::{self, AT_JWT, Actor, InvalidSubjectIssuer, Subject, SubjectIssuer};
use crate::contract::report::ServedRoute;
use crate::contract::tokens::{CallerDocument, IssuerDocument, SubjectIssuerDocument, TokenKeyDocument};
use crate::domain::jwk::P256PublicKey;
use crate::edge::front::{Authorities, InvalidAuthorities};
use crate::edge::jose::{KeySet, Signer};

/// Where a client finds what it needs, below the URL of the issuer.
pub mod paths {
    /// `OpenID Connect Discovery` 1.0 section 4.
    pub const OPENID_CONFIGURATION: &str = "/.well-known/openid-configuration";
    /// RFC 8414 section 3.
    pub const AUTHORIZATION_SERVER: &str = "/.well-known/oauth-authorization-server";
    /// The keys.
    pub const JWKS: &str = "/jwks.json";
    /// The trust bundle (SPIFFE Federation section 5.1).
    pub const BUNDLE: &str = "/bundle.json";
    /// The token endpoint.
    pub const TOKEN: &str = "/token";
}

/// Why an issuer cannot be served. Nothing of its keys is repeated.
#[derive(Debug, Error)]
pub enum InvalidIssuer {
    /// The URL has another form than the schema allows.
    #[error("the URL of the issuer is not https:// and a host")]
    Url,
    /// The authorities cannot be used.
    #[error("bundle: {0}")]
    Bundle(#[from] InvalidAuthorities),
    /// A key cannot be used.
    #[error("the key number {0} cannot be used; it must be ECDSA on P-256, in PEM, with its thumbprint as ID")]
    Key(usize),
    /// There is no key.
    #[error("there is no key")]
    NoKey,
}

/// A document that anybody may read, with what identifies its content.
#[derive(Clone)]
pub struct Document {
    /// Its text, as JSON.
    pub text: Bytes,
    /// A strong validator (RFC 9110 section 8.8.3).
    pub etag: HeaderValue,
}

impl Document {
    fn new(value: &Value) -> Option<Self> {
        let text = Bytes::from(value.to_string());
        let hash = URL_SAFE_NO_PAD.encode(&digest(&SHA256, &text).as_ref()[..18]);
        Some(Self { etag: HeaderValue::from_str(&format!("\"{hash}\"")).ok()?, text })
    }
}

/// A trust domain that issues tokens.
pub struct Issuer {
    /// Name of the `TrustDomain`.
    pub trust_domain: String,
    /// The UID of that object.
    pub uid: String,
    /// The claim `iss`.
    pub url: String,
    /// Host, and port if it is not 443, as requests name them.
    pub authority: String,
    /// Who vouches for the SPIFFE IDs of its services.
    pub authorities: Authorities,
    /// The metadata of the authorization server.
    pub metadata: Document,
    /// The public keys.
    pub jwks: Document,
    /// The trust bundle, unless an authority in it has a key that a JWK cannot have.
    pub bundle: Option<Document>,
    served: ServedRoute,
    lifetime: i64,
    signer: Signer,
    /// The published keys, which verify what was issued before.
    keys: KeySet,
    providers: Vec<SubjectIssuer>,
}

/// An issued token.
pub struct Issued {
    /// The token, which must not be logged.
    pub token: String,
    /// Its ID.
    pub id: Uuid,
    /// For how many seconds it is valid.
    pub expires_in: i64,
    /// Its scopes (RFC 6749 section 3.3), if it has any.
    pub scope: Option<String>,
}

/// Whom a token is issued to, and for what.
pub struct Grant<'a> {
    /// The SPIFFE ID of the client.
    pub client: &'a str,
    /// The SPIFFE ID of the service that the token is for.
    pub audience: &'a str,
    /// The scopes.
    pub scopes: &'a BTreeSet<String>,
    /// Whom the client acts for; `None` when it acts for itself.
    pub subject: Option<&'a Subject>,
    /// When the certificate of the client ends, in seconds since 1970: the token does not outlive it.
    pub not_after: i64,
    /// The thumbprint of that certificate, if the token is bound to it.
    pub bound_to: Option<[u8; 32]>,
}

/// What a token is bound to (RFC 7800): a certificate (RFC 8705 section 3.1).
#[derive(Serialize)]
struct Confirmation {
    #[serde(rename = "x5t#S256")]
    thumbprint: String,
}

/// The claims of an access token (RFC 9068 section 2.2). A client that acts for nobody else is the subject itself.
#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    sub: &'a str,
    client_id: &'a str,
    aud: &'a str,
    iat: i64,
    exp: i64,
    jti: Uuid,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    act: Option<&'a Actor>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cnf: Option<Confirmation>,
}

impl Issuer {
    /// Compiles a document of the operator.
    ///
    /// # Errors
    /// [`InvalidIssuer`].
    pub fn compile(document: &IssuerDocument, key_sets: &KeySets) -> Result<Self, InvalidIssuer> {
        let url = document.issuer.clone();
        let authority =
            url.strip_prefix("https://").filter(|it| !it.contains('/')).ok_or(InvalidIssuer::Url)?.to_owned();
        let keys = document.keys.iter().zip(1..);
        let keys: Vec<(Signer, P256PublicKey)> =
            keys.map(|(key, number)| read(key).ok_or(InvalidIssuer::Key(number))).collect::<Result<_, _>>()?;
        let jwks = json!({ "keys": keys.iter().map(|(_, public)| public.to_json()).collect::<Vec<_>>() });
        Ok(Self {
            trust_domain: document.trust_domain.clone(),
            uid: document.uid.clone(),
            served: ServedRoute {
                generation: document.generation,
                route: document.digest.clone(),
                ..ServedRoute::default()
            },
            authorities: Authorities::parse(document.bundle.as_bytes(), usize::MAX)?,
            metadata: Document::new(&metadata(&url)).ok_or(InvalidIssuer::Url)?,
            jwks: Document::new(&jwks).ok_or(InvalidIssuer::Url)?,
            bundle: bundle::document(&document.bundle, document.bundle_sequence).and_then(|it| Document::new(&it)),
            lifetime: document.access_token_seconds.into(),
            signer: keys.into_iter().next().ok_or(InvalidIssuer::NoKey)?.0,
            keys: KeySet::parse(jwks.to_string().as_bytes()).map_err(|_| InvalidIssuer::NoKey)?,
            providers: document.subject_issuers.iter().filter_map(|it| provider(it, key_sets)).collect(),
            authority,
            url,
        })
    }

    /// What this replica reports of it.
    #[must_use]
    pub fn report(&self) -> ServedRoute {
        let failing = self.providers.iter().filter_map(|it| Some((it.name.clone(), it.keys.report()?)));
        ServedRoute { key_sets: failing.collect(), ..self.served.clone() }
    }

    /// Whom a service acts for that shows this token.
    ///
    /// # Errors
    /// Why it may not.
    pub fn subject(&self, token: &SubjectToken, caller: &CallerDocument, now: Timestamp) -> Result<Subject, Reason> {
        subject::verify(token.expose(), caller, (&self.url, &self.keys), &self.providers, now)
    }

    /// Issues a token. `None` if the library fails.
    #[must_use]
    pub fn issue(&self, grant: &Grant<'_>, now: Timestamp) -> Option<Issued> {
        let Grant { client, audience, scopes, subject, not_after, bound_to } = *grant;
        let (id, iat) = (Uuid::now_v7(), now.as_second());
        let exp = iat.saturating_add(self.lifetime).min(not_after);
        let exp = subject.map_or(exp, |subject| exp.min(subject.expires_at));
        let scope = (!scopes.is_empty()).then(|| scopes.iter().map(String::as_str).collect::<Vec<_>>().join(" "));
        let claims = Claims {
            iss: &self.url,
            sub: subject.map_or(client, |subject| &subject.id),
            client_id: client,
            aud: audience,
            iat,
            exp,
            jti: id,
            scope: scope.as_deref(),
            tenant: subject.and_then(|subject| subject.tenant.as_deref()),
            act: subject.map(|subject| &subject.actors),
            cnf: bound_to.map(|thumbprint| Confirmation { thumbprint: URL_SAFE_NO_PAD.encode(thumbprint) }),
        };
        Some(Issued { token: self.signer.sign(&claims)?, id, expires_in: exp.saturating_sub(iat), scope })
    }
}

/// An identity provider; one that cannot be used has no users here, and the others go on.
fn provider(document: &SubjectIssuerDocument, key_sets: &KeySets) -> Option<SubjectIssuer> {
    let compiled = SubjectIssuer::compile(document, |source| key_sets.get(source));
    let failed = |error: &InvalidSubjectIssuer| {
        tracing::error!(subject_issuer = document.name, %error, "invalid subject issuer; its users are refused");
    };
    compiled.inspect_err(failed).ok()
}

/// A key that signs access tokens (RFC 9068 section 2.1), with its public key.
fn read(document: &TokenKeyDocument) -> Option<(Signer, P256PublicKey)> {
    let der = PrivatePkcs8KeyDer::from_pem_slice(document.key.expose().as_bytes()).ok()?;
    let header = |algorithm: &str| json!({"alg": algorithm, "typ": AT_JWT, "kid": document.id});
    let signer = Signer::new(der.secret_pkcs8_der(), header)?;
    let public = P256PublicKey::from_point(signer.public_point()?)?;
    (public.thumbprint() == document.id).then_some((signer, public))
}

/// The metadata, for `OpenID Connect Discovery` as for RFC 8414. Nobody logs in here and there are no ID tokens; members that the former
/// requires say so.
fn metadata(url: &str) -> Value {
    json!({
        "issuer": url,
        "token_endpoint": format!("{url}{}", paths::TOKEN),
        "jwks_uri": format!("{url}{}", paths::JWKS),
        "grant_types_supported": ["client_credentials", EXCHANGE],
        "token_endpoint_auth_methods_supported": ["spiffe_x509"],
        "tls_client_certificate_bound_access_tokens": true,
        "response_types_supported": [],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
    })
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
    use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PublicKeyData};

    use super::*;
    use crate::domain::address_policy::AddressPolicy;
    use crate::domain::secret::SecretText;

    fn key(pair: &KeyPair) -> TokenKeyDocument {
        let public = P256PublicKey::from_point(pair.der_bytes());
        TokenKeyDocument {
            id: public.map(|public| public.thumbprint()).unwrap_or_default(),
            key: SecretText::new(pair.serialize_pem()),
        }
    }

    fn document(keys: Vec<TokenKeyDocument>) -> IssuerDocument {
        let bundle = CertificateParams::new([]).unwrap().self_signed(&KeyPair::generate().unwrap()).unwrap().pem();
        IssuerDocument {
            trust_domain: "demo".into(),
            uid: "u1".into(),
            generation: 1,
            digest: "d1".into(),
            issuer: "https://tokens.example:8443".into(),
            access_token_seconds: 300,
            bundle,
            bundle_sequence: 1,
            keys,
            subject_issuers: Vec::new(),
        }
    }

    fn nothing_fetched() -> KeySets {
        KeySets::new(AddressPolicy::trusted(None))
    }

    fn decode(part: &str) -> Value {
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
    }

    #[test]
    fn a_token_is_signed_with_the_first_key_and_ends_with_the_certificate() {
        let pairs = [(); 2].map(|()| KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap());
        let issuer = Issuer::compile(&document(pairs.iter().map(key).collect()), &nothing_fetched()).unwrap();
        let now = Timestamp::from_second(1_000).unwrap();
        let scopes = BTreeSet::from(["a".to_owned(), "b".to_owned()]);
        let grant = Grant {
            client: "spiffe://d/ns/a/sa/shop",
            audience: "spiffe://d/ns/b/sa/pay",
            scopes: &scopes,
            subject: None,
            not_after: 1_100,
            bound_to: None,
        };
        let issued = issuer.issue(&grant, now).unwrap();
        let (message, signature) = issued.token.rsplit_once('.').unwrap();
        let (header, payload) =
            message.split_once('.').map(|(header, payload)| (decode(header), decode(payload))).unwrap();
        assert_eq!(header, json!({"alg": "ES256", "typ": "at+jwt", "kid": key(&pairs[0]).id}));
        let expected = json!({
            "iss": "https://tokens.example:8443", "sub": "spiffe://d/ns/a/sa/shop", "client_id": "spiffe://d/ns/a/sa/shop",
            "aud": "spiffe://d/ns/b/sa/pay", "iat": 1_000, "exp": 1_100, "jti": issued.id, "scope": "a b",
        });
        assert_eq!(payload, expected);
        assert_eq!(issued.expires_in, 100);
        let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, pairs[0].der_bytes());
        public.verify(message.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).unwrap()).unwrap();
        let keys: Value = serde_json::from_slice(&issuer.jwks.text).unwrap();
        let ids: Vec<&str> = keys["keys"].as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap()).collect();
        assert_eq!(ids, [key(&pairs[0]).id.as_str(), key(&pairs[1]).id.as_str()]);
        assert!(!std::str::from_utf8(&issuer.jwks.text).unwrap().contains("\"d\""), "no private key");
        let long = issuer.issue(&Grant { scopes: &BTreeSet::new(), not_after: i64::MAX, ..grant }, now).unwrap();
        assert_eq!(long.expires_in, 300);
        assert_eq!(decode(long.token.split('.').nth(1).unwrap()).get("scope"), None);
        let bound = issuer.issue(&Grant { bound_to: Some([0xff; 32]), ..grant }, now).unwrap();
        let cnf = &decode(bound.token.split('.').nth(1).unwrap())["cnf"];
        assert_eq!(*cnf, json!({"x5t#S256": "__________________________________________8"}), "43 characters");
    }

    #[test]
    fn a_document_that_cannot_be_served_is_refused_and_not_repeated() {
        let refused =
            |document: &IssuerDocument| Issuer::compile(document, &nothing_fetched()).err().unwrap().to_string();
        assert_eq!(refused(&document(Vec::new())), "there is no key");
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let ed25519 = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let renamed = TokenKeyDocument { id: "other".into(), ..key(&pair) };
        let broken = TokenKeyDocument { key: SecretText::new("s3cret".into()), ..key(&pair) };
        for wrong in [renamed, key(&ed25519), broken] {
            let told = refused(&document(vec![key(&pair), wrong]));
            assert!(told.contains("number 2") && !told.contains("s3cret"), "{told}");
        }
        let path = IssuerDocument { issuer: "https://tokens.example/a".into(), ..document(vec![key(&pair)]) };
        assert!(refused(&path).contains("URL"));
    }
}
