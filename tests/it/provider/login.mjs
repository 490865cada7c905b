// Logs a user in at an OpenID provider, as the client web-shop, with an authorization code and PKCE. No browser is needed where the
// provider asks nothing, as in provider.mjs.
//
//     node login.mjs ISSUER CA_FILE USER TENANT RESOURCE
//
// RESOURCE is the audience of the access token. The answer with the tokens is printed as JSON. TENANT is described in provider.mjs.

import { createHash, randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { request } from "node:https";
import { text } from "node:stream/consumers";

const CALLBACK = "https://localhost/callback";
const CLIENT = "web-shop";

const [issuer, caFile, user, tenant, resource] = process.argv.slice(2);
const ca = readFileSync(caFile);
const cookies = new Map();

/** One request with the cookies so far, a POST if there is a form. */
async function ask(url, form) {
  const headers = { cookie: [...cookies].map((pair) => pair.join("=")).join("; ") };
  if (form) headers["content-type"] = "application/x-www-form-urlencoded";
  const asked = request(url, { ca, family: 4, method: form ? "POST" : "GET", headers });
  asked.end(form?.toString());
  const response = await new Promise((resolve, reject) => asked.on("response", resolve).on("error", reject));
  for (const cookie of response.headers["set-cookie"] ?? []) {
    const [name, value] = cookie.split(";")[0].split(/=(.*)/s);
    cookies.set(name, value);
  }
  return { status: response.statusCode, location: response.headers.location, body: await text(response) };
}

/** The JSON of an answer. */
function json({ status, body }) {
  if (status !== 200) throw new Error(`${status} ${body}`);
  return JSON.parse(body);
}

/** Follows redirects until the one to the client: its parameters. */
async function follow(url) {
  while (!url.href.startsWith(CALLBACK)) {
    const { status, location, body } = await ask(url);
    if (!location) throw new Error(`${status} ${body}`);
    url = new URL(location, url);
  }
  return url.searchParams;
}

async function logIn() {
  const metadata = json(await ask(`${issuer}/.well-known/openid-configuration`));
  const verifier = randomBytes(32).toString("base64url");
  const start = new URL(metadata.authorization_endpoint);
  start.search = new URLSearchParams({
    response_type: "code",
    client_id: CLIENT,
    redirect_uri: CALLBACK,
    scope: "openid",
    code_challenge: createHash("sha256").update(verifier).digest("base64url"),
    code_challenge_method: "S256",
    login_hint: `${user}@${tenant}`,
    resource,
  });
  const answer = await follow(start);
  if (!answer.has("code")) throw new Error(answer.toString());
  const form = {
    grant_type: "authorization_code",
    client_id: CLIENT,
    redirect_uri: CALLBACK,
    code: answer.get("code"),
    code_verifier: verifier,
    resource,
  };
  return json(await ask(metadata.token_endpoint, new URLSearchParams(form)));
}

try {
  console.log(JSON.stringify(await logIn()));
} catch (error) {
  console.error(`login failed: ${error.message}`);
  process.exitCode = 1;
}
