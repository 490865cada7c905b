// Signs a delivery with the JavaScript library of a sender.
//
// sign.mjs SCHEME KEY ID SECONDS   body on standard input; prints one header per line

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

// The libraries are installed in a separate folder.
const require = createRequire(pathToFileURL(`${process.env.NODE_SIGNERS}/package.json`));
const { Webhook } = require("standardwebhooks");
// This library is an ES module. It is imported by path, because an import by name searches next to this file.
const octokit = "node_modules/@octokit/webhooks-methods/dist-node/index.js";
const { sign } = await import(pathToFileURL(`${process.env.NODE_SIGNERS}/${octokit}`));

const [scheme, key, id, seconds] = process.argv.slice(2);
const body = readFileSync(0, "utf8");
const headers = {
  "standard-webhooks-js": async () => ({
    "webhook-id": id,
    "webhook-timestamp": seconds,
    "webhook-signature": new Webhook(key).sign(id, new Date(Number(seconds) * 1000), body),
  }),
  github: async () => ({ "x-github-delivery": id, "x-hub-signature-256": await sign(key, body) }),
};
for (const [name, value] of Object.entries(await headers[scheme]())) {
  console.log(`${name}: ${value}`);
}
