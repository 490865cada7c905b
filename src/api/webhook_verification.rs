//! The schemes by which a delivery to a `WebhookEndpoint` is verified.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a delivery is verified: exactly one scheme.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.standardWebhooks), has(self.github), has(self.gitlab), has(self.stripe), has(self.slack), has(self.shopify), has(self.twilio), has(self.httpMessageSignatures), has(self.hmac), has(self.jwt)].filter(x, x).size() == 1").message("verification: set exactly one scheme"))]
pub struct Verification {
    /// Standard Webhooks: `v1` (HMAC-SHA256) and `v1a` (Ed25519).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standard_webhooks: Option<NoSettings>,
    /// GitHub's `X-Hub-Signature-256`. It signs no timestamp: freshness rests on the replay memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub github: Option<NoSettings>,
    /// GitLab's `X-Gitlab-Token`, which is a password and signs nothing: a source pin is required.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gitlab: Option<NoSettings>,
    /// Stripe's `Stripe-Signature`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stripe: Option<NoSettings>,
    /// Slack's `X-Slack-Signature`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slack: Option<NoSettings>,
    /// Shopify's `X-Shopify-Hmac-Sha256`. It signs no timestamp: freshness rests on the replay memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shopify: Option<NoSettings>,
    /// Twilio's `X-Twilio-Signature` over `externalURL`. It signs no timestamp: freshness rests on the replay memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub twilio: Option<NoSettings>,
    /// HTTP Message Signatures (RFC 9421) with `Content-Digest` (RFC 9530).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_message_signatures: Option<HttpMessageSignatures>,
    /// A MAC over parts that are named here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hmac: Option<GenericHmac>,
    /// A JWT of an issuer, that carries the digest of the body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwt: Option<JwtVerification>,
}

/// A scheme that leaves nothing to choose.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, KubeSchema)]
pub struct NoSettings {}

/// HTTP Message Signatures (RFC 9421).
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpMessageSignatures {
    /// The only algorithm that is accepted, whatever the caller names.
    pub algorithm: SignatureAlgorithm,
    /// Components that a signature must cover beside `@method`, `@target-uri` (or `@authority` and `@path`) and
    /// `content-digest`: names of headers in lower case.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 64), regex(pattern = r"^[a-z0-9-]+$")))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub components: Vec<String>,
    /// Value that the `tag` parameter of the signature must have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub tag: Option<String>,
}

/// Algorithms of RFC 9421.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
pub enum SignatureAlgorithm {
    /// `hmac-sha256`.
    HmacSha256,
    /// `ed25519`.
    Ed25519,
    /// `ecdsa-p256-sha256`.
    EcdsaP256Sha256,
    /// `rsa-pss-sha512`.
    RsaPssSha512,
}

/// A MAC over parts in a fixed order. Nothing of it is chosen by the caller.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.parts.filter(p, has(p.body)).size() == 1").message("parts: the body must be signed, once"))]
#[x_kube(validation = Rule::new("self.parts.filter(p, has(p.timestamp)).size() <= 1 && self.parts.filter(p, has(p.id)).size() <= 1").message("parts: at most one id and one timestamp"))]
pub struct GenericHmac {
    /// Hash of the MAC.
    pub hash: HmacHash,
    /// How the MAC is written.
    pub encoding: MacEncoding,
    /// Header that carries the MAC, in lower case.
    #[schemars(regex(pattern = r"^[a-z0-9-]{1,64}$"))]
    pub header: String,
    /// What stands before the MAC in the header, such as `sha256=`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32))]
    pub prefix: Option<String>,
    /// What is signed, in this order.
    #[schemars(length(min = 1, max = 8))]
    pub parts: Vec<SignedPart>,
}

/// Hashes of a MAC.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
#[allow(missing_docs, reason = "the names say it")]
pub enum HmacHash {
    Sha256,
    Sha384,
    Sha512,
}

/// How a MAC is written.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
pub enum MacEncoding {
    /// Hexadecimal, in lower case.
    Hex,
    /// Base64 (RFC 4648 section 4), padded.
    Base64,
    /// Base64 for URLs (RFC 4648 section 5), without padding.
    Base64Url,
}

/// One part of what is signed.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.id), has(self.timestamp), has(self.body), has(self.literal)].filter(x, x).size() == 1").message("parts: set exactly one of id, timestamp, body and literal"))]
pub struct SignedPart {
    /// The delivery ID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<HeaderReference>,
    /// When it was signed, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<HeaderReference>,
    /// The body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<NoSettings>,
    /// This text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub literal: Option<String>,
}

/// A header of the delivery.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
pub struct HeaderReference {
    /// Its name, in lower case.
    #[schemars(regex(pattern = r"^[a-z0-9-]{1,64}$"))]
    pub header: String,
}

/// A JWT in `Authorization: Bearer`, verified by the JWKS in the key Secret. Its claim `body_sha256` (base64url of the
/// digest) binds it to the body, `iat` and `exp` make it fresh, `jti` makes it new.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct JwtVerification {
    /// What the claim `iss` must be.
    #[schemars(length(min = 1, max = 253))]
    pub issuer: String,
    /// What the claim `aud` must be or contain.
    #[schemars(length(min = 1, max = 253))]
    pub audience: String,
    /// What the claim `sub` must be. Default: any subject of the issuer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub subject: Option<String>,
}
