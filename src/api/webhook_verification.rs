//! The schemes by which deliveries to a `WebhookEndpoint` are verified.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How deliveries are verified: exactly one scheme.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.standardWebhooks), has(self.github), has(self.gitlab), has(self.stripe), has(self.slack), has(self.shopify), has(self.twilio), has(self.httpMessageSignatures), has(self.hmac), has(self.jwt)].filter(x, x).size() == 1").message("verification: set exactly one scheme"))]
pub struct Verification {
    /// Standard Webhooks: `v1` (HMAC-SHA256) and `v1a` (Ed25519). Signs ID, timestamp and body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standard_webhooks: Option<NoSettings>,
    /// GitHub's `X-Hub-Signature-256`: HMAC-SHA256 of the body. It signs no timestamp, so replay protection relies on the
    /// delivery history.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub github: Option<NoSettings>,
    /// GitLab's `X-Gitlab-Token`, which is a password and signs nothing: `source` is required.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gitlab: Option<NoSettings>,
    /// Stripe's `Stripe-Signature`: HMAC-SHA256 of timestamp and body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stripe: Option<NoSettings>,
    /// Slack's `X-Slack-Signature`: HMAC-SHA256 of timestamp and body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slack: Option<NoSettings>,
    /// Shopify's `X-Shopify-Hmac-Sha256`: HMAC-SHA256 of the body. It signs no timestamp, so replay protection relies on the
    /// delivery history.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shopify: Option<NoSettings>,
    /// Twilio's `X-Twilio-Signature` over `externalURL` and the body. It signs no timestamp, so replay protection relies on
    /// the delivery history.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub twilio: Option<NoSettings>,
    /// HTTP Message Signatures (RFC 9421) with `Content-Digest` (RFC 9530). `externalURL` is required: it is what signatures are
    /// verified with in place of the host that the caller names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_message_signatures: Option<HttpMessageSignatures>,
    /// An HMAC (RFC 2104) over parts that are listed here, for other senders.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hmac: Option<GenericHmac>,
    /// A JWT (RFC 7519) that contains the digest of the body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwt: Option<JwtVerification>,
}

/// A scheme without settings.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, KubeSchema)]
pub struct NoSettings {}

/// HTTP Message Signatures (RFC 9421).
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpMessageSignatures {
    /// The only accepted algorithm, whatever the caller names.
    pub algorithm: SignatureAlgorithm,
    /// Components that a signature must cover in addition to `@method`, `@target-uri` (or `@authority` and `@path`) and
    /// `content-digest`: names of headers, in lower case.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 64), regex(pattern = r"^[a-z0-9-]+$")))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub components: Vec<String>,
    /// Required value of the signature's parameter `tag`. Default: any, or none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub tag: Option<String>,
}

/// Algorithms of RFC 9421, section 3.3.
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

/// An HMAC (RFC 2104) over parts in a fixed order. The caller chooses nothing about it.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.parts.filter(p, has(p.body)).size() == 1").message("parts: the signature must cover the body; list body exactly once"))]
#[x_kube(validation = Rule::new("self.parts.filter(p, has(p.timestamp)).size() <= 1 && self.parts.filter(p, has(p.id)).size() <= 1").message("parts: id and timestamp may be listed once each; remove the others"))]
pub struct GenericHmac {
    /// Hash function of the HMAC.
    pub hash: HmacHash,
    /// How the HMAC is encoded.
    pub encoding: MacEncoding,
    /// Name of the header with the HMAC, in lower case.
    #[schemars(regex(pattern = r"^[a-z0-9-]{1,64}$"))]
    pub header: String,
    /// Text before the HMAC in the header, such as `sha256=`. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32))]
    pub prefix: Option<String>,
    /// What is signed, in this order, without separators other than those listed.
    #[schemars(length(min = 1, max = 8))]
    pub parts: Vec<SignedPart>,
}

/// Hash functions of an HMAC (FIPS 180-4).
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
#[allow(missing_docs, reason = "the names say it")]
pub enum HmacHash {
    Sha256,
    Sha384,
    Sha512,
}

/// How an HMAC is encoded.
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
    /// The delivery ID, from this header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<HeaderReference>,
    /// When the delivery was signed, in seconds since 1970-01-01T00:00:00Z, from this header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<HeaderReference>,
    /// The body, as it was received.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<NoSettings>,
    /// A fixed text, such as a separator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub literal: Option<String>,
}

/// A header of the delivery.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
pub struct HeaderReference {
    /// Name of the header, in lower case.
    #[schemars(regex(pattern = r"^[a-z0-9-]{1,64}$"))]
    pub header: String,
}

/// A JWT (RFC 7519) in the header `Authorization: Bearer`, verified with the JWKS (RFC 7517) in the key Secret. Its claim
/// `body_sha256` (base64url of the SHA-256) binds it to the body, `iat` and `exp` limit its age, and `jti` identifies the
/// delivery.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.subject)").message("jwt: without subject every subject of the issuer could send; add the subject of the sender"))]
pub struct JwtVerification {
    /// Required value of the claim `iss`.
    #[schemars(length(min = 1, max = 253))]
    pub issuer: String,
    /// Value that the claim `aud` must be or contain.
    #[schemars(length(min = 1, max = 253))]
    pub audience: String,
    /// Required value of the claim `sub`: the sender.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub subject: Option<String>,
}
