// A service that others call with access tokens (RFC 9068), and that calls others itself. Needs Node.js 20.18 or later.
//
//     npm ci
//     node service.js serve PORT SCOPE            answers callers whose token has this scope, over HTTPS on 127.0.0.1
//     node service.js call URL AUDIENCE [SCOPE]   asks for a token, and calls a service whose SPIFFE ID is AUDIENCE
//
// IDENTITY is a folder with tls.crt, tls.key and ca.crt of the service's ServiceIdentity, SPIFFE_ID is its SPIFFE ID, ISSUER the URL of
// the issuer of tokens, and ISSUER_CA a file with the authorities that vouch for the issuer's host. TOKEN is a token for call, which
// then asks for none.

import { createHash, X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:https';
import { join } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import * as jose from 'jose';
import * as oauth from 'oauth4webapi';
import { Agent, fetch } from 'undici';

const TIMEOUT = 10_000;
const [IDENTITY, SPIFFE_ID, ISSUER, ISSUER_CA] = ['IDENTITY', 'SPIFFE_ID', 'ISSUER', 'ISSUER_CA'].map(environment);

function environment(name) {
  const value = process.env[name];
  if (value) return value;
  console.error(`${name} is not set`);
  process.exit(1);
}

/** Why a caller is refused. */
class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** The certificate of the service, with its key. */
function certificate() {
  return { cert: readFileSync(join(IDENTITY, 'tls.crt')), key: readFileSync(join(IDENTITY, 'tls.key')) };
}

/** The SPIFFE ID of a peer whose chain was verified. */
function spiffeId(certificate) {
  const names = certificate.subjectAltName ?? '';
  // Node.js quotes names with a comma and other unusual characters. No service has such a name, and the others can be split.
  const ids = names.includes('"') ? [] : names.split(', ').filter((name) => name.startsWith('URI:'));
  if (ids.length !== 1) throw new Refused(401, 'the certificate has no SPIFFE ID');
  return ids[0].slice('URI:'.length);
}

/** The digest of a certificate that a token may be bound to (RFC 8705 section 3.1). */
function thumbprint(certificate) {
  return createHash('sha256').update(certificate.raw).digest('base64url');
}

/** A fetch over TLS with these options. */
function fetchOver(tls) {
  const dispatcher = new Agent({ connect: tls });
  return (url, options) => fetch(url, { ...options, dispatcher });
}

/** What the issuer says about itself (RFC 8414). */
async function metadata(fetchIssuer) {
  const issuer = new URL(ISSUER);
  const options = { algorithm: 'oauth2', [oauth.customFetch]: fetchIssuer, signal: () => AbortSignal.timeout(TIMEOUT) };
  return oauth.processDiscoveryResponse(issuer, await oauth.discoveryRequest(issuer, options));
}

/** The claims of a token that the peer got for this service. */
async function verify(authorization, peer, certificate, keys, scope) {
  const bearer = authorization.length === 1 && /^Bearer (.+)$/i.exec(authorization[0]);
  if (!bearer) throw new Refused(401, 'send one Authorization header with a bearer token');
  const expected = {
    // A token does not choose its algorithm.
    algorithms: ['ES256'],
    typ: 'at+jwt',
    issuer: ISSUER,
    audience: SPIFFE_ID,
    requiredClaims: ['sub', 'exp', 'iat', 'jti', 'client_id'],
  };
  const { payload: claims } = await jose.jwtVerify(bearer[1], keys, expected).catch((error) => {
    throw new Refused(401, error.message);
  });
  // The token belongs to the caller that got it. This holds when its certificate is renewed as well.
  if (claims.client_id !== peer) throw new Refused(401, 'the token was issued to another service');
  // One that is bound to a certificate is for this certificate only. A binding that is not understood is not ignored.
  if ('cnf' in claims && !isDeepStrictEqual(claims.cnf, { 'x5t#S256': thumbprint(certificate) })) {
    throw new Refused(401, 'the token is bound to another certificate');
  }
  if (!scopes(claims).includes(scope)) throw new Refused(403, `the token has no scope ${scope}`);
  return claims;
}

function scopes(claims) {
  return String(claims.scope ?? '').split(' ');
}

async function serve(port, scope) {
  const fetchIssuer = fetchOver({ ca: readFileSync(ISSUER_CA) });
  const { jwks_uri: keysUrl } = await metadata(fetchIssuer);
  // It asks again for a key that it does not know, at most every 30 seconds, and every few minutes for those that it does.
  const keys = jose.createRemoteJWKSet(new URL(keysUrl), { cacheMaxAge: 300_000, [jose.customFetch]: fetchIssuer });

  const answer = async (request) => {
    if (request.method !== 'GET') throw new Refused(405, 'only GET is allowed');
    const certificate = request.socket.getPeerX509Certificate();
    const peer = spiffeId(certificate);
    const claims = await verify(request.headersDistinct.authorization ?? [], peer, certificate, keys, scope);
    return { caller: peer, scopes: scopes(claims) };
  };
  const tls = { ...certificate(), ca: readFileSync(join(IDENTITY, 'ca.crt')), requestCert: true, rejectUnauthorized: true };
  const limits = { handshakeTimeout: TIMEOUT, headersTimeout: TIMEOUT, requestTimeout: TIMEOUT };
  const server = createServer({ ...tls, ...limits }, async (request, response) => {
    const [status, body] = await answer(request).then(
      (welcome) => [200, welcome],
      (error) => [error instanceof Refused ? error.status : 500, { error: error.message }],
    );
    const text = JSON.stringify(body);
    response.writeHead(status, { 'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(text) }).end(text);
  });
  server.listen(Number(port), '127.0.0.1', () => console.log(`serving on 127.0.0.1:${server.address().port}`));
}

/** A token for a service (RFC 6749 section 4.4), asked for with the certificate of this one (RFC 8705 section 2.1). */
async function token(audience, scope) {
  const fetchIssuer = fetchOver({ ...certificate(), ca: readFileSync(ISSUER_CA) });
  const [issuer, client] = [await metadata(fetchIssuer), { client_id: SPIFFE_ID }];
  const parameters = { audience, ...(scope ? { scope } : {}) };
  const options = { [oauth.customFetch]: fetchIssuer, signal: () => AbortSignal.timeout(TIMEOUT) };
  const response = await oauth.clientCredentialsGrantRequest(issuer, client, oauth.TlsClientAuth(), parameters, options);
  try {
    return (await oauth.processClientCredentialsResponse(issuer, client, response)).access_token;
  } catch (error) {
    throw error instanceof oauth.ResponseBodyError ? new Error(`no token: ${JSON.stringify(error.cause)}`) : error;
  }
}

async function call(url, audience, scope) {
  // Over HTTP, anybody could read the token.
  if (new URL(url).protocol !== 'https:') throw new Error(`${url} is not an https URL`);
  const bearer = process.env.TOKEN || (await token(audience, scope));
  // The callee is known by its SPIFFE ID, not by its host. Node.js calls this after it verified the chain, and wants errors returned.
  const checkServerIdentity = (_host, peer) => {
    try {
      const callee = spiffeId(new X509Certificate(peer.raw));
      return callee === audience ? undefined : new Error(`the service is ${callee}`);
    } catch (error) {
      return error;
    }
  };
  const fetchService = fetchOver({ ...certificate(), ca: readFileSync(join(IDENTITY, 'ca.crt')), checkServerIdentity });
  // The token is for this service and no other address, so redirects are not followed.
  const options = { headers: { Authorization: `Bearer ${bearer}` }, redirect: 'manual', signal: AbortSignal.timeout(TIMEOUT) };
  const response = await fetchService(url, options);
  console.log(`${response.status} ${await response.text()}`);
}

const [command, ...rest] = process.argv.slice(2);
try {
  if (command === 'serve' && rest.length === 2) await serve(...rest);
  else if (command === 'call' && (rest.length === 2 || rest.length === 3)) await call(...rest);
  else throw new Error('usage: service.js serve PORT SCOPE | call URL AUDIENCE [SCOPE]');
} catch (error) {
  console.error(error.cause instanceof Error ? `${error.message}: ${error.cause.message}` : error.message);
  process.exitCode = 1;
}
