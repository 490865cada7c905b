//! Verifies the tokens of callers.

use std::time::{Duration, Instant};

use hyper::StatusCode;
use hyper::header::HeaderValue;
use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use reqwest::Client;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::sync::Mutex;

/// How long keys are trusted without asking the issuer again.
const LIFESPAN: Duration = Duration::from_secs(300);
/// The least time between two requests for keys, however many unknown keys callers name.
const PAUSE: Duration = Duration::from_secs(10);

/// Why a caller is refused: the status, and what is wrong.
pub struct Refused(pub StatusCode, pub String);

impl Refused {
    pub fn unauthorized(message: impl ToString) -> Self {
        Self(StatusCode::UNAUTHORIZED, message.to_string())
    }
}

/// What this service needs to know of a token, besides what `Validation` has verified.
#[derive(Deserialize)]
struct Claims {
    #[serde(rename = "iat")]
    _issued_at: f64,
    #[serde(rename = "jti")]
    _id: String,
    client_id: String,
    #[serde(default)]
    scope: String,
    #[serde(flatten)]
    others: Map<String, Value>,
}

pub struct Verifier {
    keys: Keys,
    expected: Validation,
}

impl Verifier {
    /// Verifies tokens of an issuer for one audience, with the keys at a URL.
    pub fn new(client: Client, keys: String, issuer: &str, audience: &str) -> Self {
        // A token does not choose its algorithm. By default, the clocks may differ by 60 seconds.
        let mut expected = Validation::new(Algorithm::ES256);
        expected.set_issuer(&[issuer]);
        expected.set_audience(&[audience]);
        expected.set_required_spec_claims(&["iss", "sub", "aud", "exp"]);
        expected.validate_nbf = true;
        Self { keys: Keys { client, url: keys, cached: Mutex::default() }, expected }
    }

    /// The scopes of a token that the peer got for this service.
    pub async fn verify(
        &self,
        authorization: &[&HeaderValue],
        peer: &str,
        thumbprint: &str,
    ) -> Result<Vec<String>, Refused> {
        let token = bearer(authorization)
            .ok_or_else(|| Refused::unauthorized("send one Authorization header with a bearer token"))?;
        let header = jsonwebtoken::decode_header(token).map_err(Refused::unauthorized)?;
        let kind = header.typ.unwrap_or_default().to_ascii_lowercase();
        if kind.strip_prefix("application/").unwrap_or(&kind) != "at+jwt" {
            return Err(Refused::unauthorized("it is another type of token"));
        }
        let key = self
            .keys
            .get(&header.kid.unwrap_or_default())
            .await
            .ok_or_else(|| Refused::unauthorized("the key of the token is not known"))?;
        let key = DecodingKey::from_jwk(&key).map_err(Refused::unauthorized)?;
        let claims = jsonwebtoken::decode::<Claims>(token, &key, &self.expected).map_err(Refused::unauthorized)?.claims;
        // The token belongs to the caller that got it. This holds when its certificate is renewed as well.
        if claims.client_id != peer {
            return Err(Refused::unauthorized("the token was issued to another service"));
        }
        // One that is bound to a certificate is for this certificate only. A binding that is not understood is not
        // ignored.
        if claims.others.get("cnf").is_some_and(|binding| *binding != json!({"x5t#S256": thumbprint})) {
            return Err(Refused::unauthorized("the token is bound to another certificate"));
        }
        Ok(claims.scope.split(' ').map(str::to_owned).collect())
    }
}

fn bearer<'a>(authorization: &[&'a HeaderValue]) -> Option<&'a str> {
    let [value] = authorization else { return None };
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token)
}

/// The keys of the issuer.
struct Keys {
    client: Client,
    url: String,
    cached: Mutex<Cached>,
}

#[derive(Default)]
struct Cached {
    keys: Option<(JwkSet, Instant)>,
    asked: Option<Instant>,
}

impl Cached {
    fn get(&self, id: &str) -> Option<Jwk> {
        let (keys, read) = self.keys.as_ref()?;
        if read.elapsed() < LIFESPAN { keys.find(id).cloned() } else { None }
    }
}

impl Keys {
    /// A key by its ID. Asks the issuer if it is not known, or was read too long ago.
    async fn get(&self, id: &str) -> Option<Jwk> {
        let mut cached = self.cached.lock().await;
        if let Some(key) = cached.get(id) {
            return Some(key);
        }
        if cached.asked.is_none_or(|asked| asked.elapsed() >= PAUSE) {
            cached.asked = Some(Instant::now());
            // While the issuer does not answer, the keys that were read before are trusted until their time is over.
            if let Ok(keys) = self.fetch().await {
                cached.keys = Some((keys, Instant::now()));
            }
        }
        cached.get(id)
    }

    async fn fetch(&self) -> reqwest::Result<JwkSet> {
        self.client.get(&self.url).send().await?.error_for_status()?.json().await
    }
}
