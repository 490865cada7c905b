// An OpenID provider for tests, with a library that is not ours. It knows one client, web-shop, and every user.
//
//     node provider.mjs --cert FILE --key FILE [--port PORT] [--keys FILE] [--alg ES256|RS256]
//
// It serves HTTPS on 127.0.0.1, on a free port by default, and prints "listening on https://localhost:PORT", which is its issuer.
// --keys is a file with its signing keys, a JWKS with private keys, the first of which signs. A file that does not exist is written
// with a new key. Without it, each start has a new key.
//
// A user is logged in as the parameter login_hint says, USER@TENANT, and agrees to everything. The claim sub is USER. The claim org
// is TENANT: as it is, or the value of its JSON, as in alice@["a","b"]. It is left out where TENANT is empty.

import { generateKeyPairSync } from "node:crypto";
import { once } from "node:events";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:https";
import { parseArgs } from "node:util";

// The library asks for Node.js 22. Of what Node.js 20 lacks, a login needs this.
URL.parse ??= (text) => (URL.canParse(text) ? new URL(text) : null);
// It says, partly on standard output, what is not for production. Its errors are printed below.
console.info = console.warn = () => {};
const { Provider } = await import("oidc-provider");

const LIFETIME = 600;

const { values: options } = parseArgs({
  options: {
    cert: { type: "string" },
    key: { type: "string" },
    port: { type: "string", default: "0" },
    keys: { type: "string" },
    alg: { type: "string", default: "ES256" },
  },
});

/** The JWKS that tokens are signed with. */
function signingKeys({ keys: file, alg }) {
  if (file && existsSync(file)) return JSON.parse(readFileSync(file, "utf8"));
  const pair = { ES256: ["ec", { namedCurve: "P-256" }], RS256: ["rsa", { modulusLength: 2048 }] }[alg];
  const { privateKey } = generateKeyPairSync(...pair);
  const jwks = { keys: [{ ...privateKey.export({ format: "jwk" }), alg, use: "sig" }] };
  if (file) writeFileSync(file, JSON.stringify(jwks), { mode: 0o600 });
  return jwks;
}

/** The user and the tenant of a login hint. */
function account(hint) {
  const [user, tenant] = hint.split(/@(.*)/s);
  if (!tenant) return { user };
  try {
    return { user, tenant: JSON.parse(tenant) };
  } catch {
    return { user, tenant };
  }
}

// Each login has a grant, and says in which tenant the user is.
const tenants = new Map();

function configuration({ alg }, jwks) {
  return {
    jwks,
    clients: [
      {
        client_id: "web-shop",
        redirect_uris: ["https://localhost/callback"],
        token_endpoint_auth_method: "none",
        id_token_signed_response_alg: alg,
      },
    ],
    claims: { openid: ["sub", "org"] },
    // Claims of a user are in ID tokens, not only at the endpoint for them.
    conformIdTokenClaims: false,
    findAccount: (ctx, accountId) => ({
      accountId,
      claims: () => ({ sub: accountId, org: tenants.get(ctx.oidc.entities.Grant.jti) }),
    }),
    extraTokenClaims: (ctx, token) => ({ org: tenants.get(token.grantId) }),
    features: {
      devInteractions: { enabled: false },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo: (ctx, resource) => ({
          audience: resource,
          scope: "",
          accessTokenFormat: "jwt",
          accessTokenTTL: LIFETIME,
          jwt: { sign: { alg } },
        }),
      },
    },
  };
}

/** Answers what would be pages for a person: the login, and the consent. */
async function interact(provider, ctx, next) {
  if (!ctx.path.startsWith("/interaction/")) return next();
  const { params } = await provider.interactionDetails(ctx.req, ctx.res);
  const { user, tenant } = account(params.login_hint ?? "");
  if (!user) return ctx.throw(400, "login_hint is USER@TENANT");
  const grant = new provider.Grant({ accountId: user, clientId: params.client_id });
  grant.addOIDCScope(params.scope);
  const grantId = await grant.save();
  tenants.set(grantId, tenant);
  const result = { login: { accountId: user }, consent: { grantId } };
  return ctx.redirect(await provider.interactionResult(ctx.req, ctx.res, result));
}

// The issuer has the port in it, so the provider is made once there is one.
const server = createServer({ cert: readFileSync(options.cert), key: readFileSync(options.key) });
server.listen(Number(options.port), "127.0.0.1");
await once(server, "listening");
const issuer = `https://localhost:${server.address().port}`;
const provider = new Provider(issuer, configuration(options, signingKeys(options)));
provider.on("server_error", (ctx, error) => console.error(error));
provider.use((ctx, next) => interact(provider, ctx, next));
server.on("request", provider.callback());
console.log(`listening on ${issuer}`);
