// A server whose Hawk is the reference implementation's. Arguments: a JSON object with `keys` (id to {key, algorithm}),
// `protocol` (http, https, h2), `cert`, `key` (files), `offset` (milliseconds that its clock is ahead), `port` (as it
// believes). Prints its port, then one JSON object per request with what it thought of it.
'use strict';

const fs = require('node:fs');
const Hawk = require('hawk');

const options = JSON.parse(process.argv[2]);
const seen = new Set();

const find = async (id) => options.keys[id] && { user: id, ...options.keys[id] };

const nonceFunc = async (key, nonce, ts) => {
  const triple = JSON.stringify([key, nonce, ts]);
  if (seen.has(triple)) {
    throw new Error('repeated');
  }
  seen.add(triple);
};

// HTTP/2 has `:authority` in place of `Host`.
const described = (req) => {
  const { hostname, port } = new URL(`http://${req.headers[':authority'] || req.headers.host}`);
  return {
    method: req.method,
    url: req.url,
    host: hostname,
    port: options.port || port || (options.protocol === 'http' ? 80 : 443),
    authorization: req.headers.authorization,
    contentType: req.headers['content-type'] || '',
  };
};

// What a page does to its proof.
const PAGES = {
  '/forged': (proof, credentials, artifacts, reply) =>
    Hawk.server.header({ ...credentials, key: 'another key' }, artifacts, reply),
  '/bare': () => undefined,
  '/unhashed': (proof, credentials, artifacts) => Hawk.server.header(credentials, artifacts, {}),
};

async function answer(req, body) {
  const request = described(req);
  const path = req.url.split('?')[0];
  const localtimeOffsetMsec = options.offset || 0;
  if (path === '/bewit') {
    const { credentials } = await Hawk.server.authenticateBewit(request, find, { localtimeOffsetMsec });
    return { status: 200, headers: {}, text: `bewit of ${credentials.user}` };
  }
  const { credentials, artifacts } = await Hawk.server.authenticate(request, find, { nonceFunc, localtimeOffsetMsec });
  if (artifacts.hash || path === '/hashed') {
    Hawk.server.authenticatePayload(body, credentials, artifacts, request.contentType);
  }
  const text = path === '/long' ? 'x'.repeat((1 << 20) + 1) : `welcome ${credentials.user} ${body.length}`;
  const reply = { payload: text, contentType: 'text/plain', ext: 'of the answer' };
  let proof = Hawk.server.header(credentials, artifacts, reply);
  if (PAGES[path]) {
    proof = PAGES[path](proof, credentials, artifacts, reply);
  }
  const headers = { 'content-type': 'text/plain; charset=utf-8', ...(proof && { 'server-authorization': proof }) };
  return { status: 200, headers, text: path === '/altered' ? 'something else' : text };
}

async function handle(req, res) {
  const pieces = [];
  for await (const piece of req) {
    pieces.push(piece);
  }
  let found;
  const log = { method: req.method, url: req.url, version: req.httpVersion, authorization: req.headers.authorization };
  try {
    found = await answer(req, Buffer.concat(pieces));
  } catch (error) {
    const { statusCode, headers } = error.output || { statusCode: 500, headers: {} };
    found = { status: statusCode, headers, text: error.message };
    log.error = error.message;
  }
  console.log(JSON.stringify({ ...log, status: found.status }));
  res.writeHead(found.status, found.headers);
  res.end(req.method === 'HEAD' ? undefined : found.text);
}

const tls = () => ({ key: fs.readFileSync(options.key), cert: fs.readFileSync(options.cert) });
const server = {
  http: () => require('node:http').createServer(handle),
  https: () => require('node:https').createServer(tls(), handle),
  h2: () => require('node:http2').createSecureServer(tls(), handle),
}[options.protocol]();
server.listen(0, '127.0.0.1', () => console.log(server.address().port));
