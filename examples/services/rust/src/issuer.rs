//! What the issuer of tokens is asked for.

use reqwest::Client;
use serde::Deserialize;

use crate::Fallible;

/// What the issuer says about itself (RFC 8414).
#[derive(Deserialize)]
pub struct Metadata {
    issuer: String,
    token_endpoint: String,
    pub jwks_uri: String,
}

pub async fn metadata(client: &Client, issuer: &str) -> Fallible<Metadata> {
    let url = format!("{issuer}/.well-known/oauth-authorization-server");
    let metadata: Metadata = client.get(url).send().await?.error_for_status()?.json().await?;
    if metadata.issuer != issuer {
        return Err(format!("{issuer} says that it is {}", metadata.issuer).into());
    }
    Ok(metadata)
}

/// A token for a service (RFC 6749 section 4.4), asked for with the certificate of this one (RFC 8705 section 2.1).
pub async fn token(client: &Client, issuer: &str, own: &str, audience: &str, scope: &str) -> Fallible<String> {
    #[derive(Deserialize)]
    struct Issued {
        access_token: String,
    }

    let mut form = vec![("grant_type", "client_credentials"), ("client_id", own), ("audience", audience)];
    if !scope.is_empty() {
        form.push(("scope", scope));
    }
    let response = client.post(metadata(client, issuer).await?.token_endpoint).form(&form).send().await?;
    if !response.status().is_success() {
        return Err(format!("no token: {}", response.text().await?).into());
    }
    Ok(response.json::<Issued>().await?.access_token)
}
