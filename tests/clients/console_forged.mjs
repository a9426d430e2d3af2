// Pages of another site against the console, in a browser that holds a session. Arguments: the one-time address.
import http from 'node:http';
import { chromium } from 'playwright-core';

const url = new URL(process.argv[2]);
const evil = http.createServer((request, response) => {
  response.setHeader('content-type', 'text/html');
  response.end('<!doctype html><title>evil</title><body>');
});
await new Promise((resolve) => { evil.listen(0, '127.0.0.1', resolve); });
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM,
  args: ['--no-sandbox', '--disable-gpu', '--host-resolver-rules=MAP *.example 127.0.0.1', '--disable-features=LocalNetworkAccessChecks,BlockInsecurePrivateNetworkRequests'],
});
const context = await browser.newContext();
const page = await context.newPage();
await page.goto(String(url));
await page.waitForURL((address) => !String(address).includes('once'));
const out = { own: await page.evaluate(() => fetch('/api/status').then((answer) => answer.status)), rebound: {}, foreign: {} };

// The name of the attacker now means our address: same port, its own origin.
const rebound = await context.newPage();
const answer = await rebound.goto(`http://rebound.example:${url.port}/`).catch(() => null);
out.rebound.page = answer?.status() ?? 'blocked';
for (const path of ['/api/status', '/api/exchanges', '/api/events', '/']) {
  out.rebound[path] = await rebound.evaluate((target) => fetch(target).then((one) => one.status, () => 'blocked'), path);
}
out.rebound.post = await rebound.evaluate(() => fetch('/api/stop', { method: 'POST' }).then((one) => one.status, () => 'blocked'));

// A page elsewhere: fetch in every mode, forms, images, sockets, frames.
const foreign = await context.newPage();
await foreign.goto(`http://evil.example:${evil.address().port}/`);
out.foreign = await foreign.evaluate(async (own) => {
  const seen = {};
  const tried = async (name, path, init) => {
    seen[name] = await fetch(`${own}${path}`, init).then((one) => (one.type === 'opaque' ? 'opaque' : one.status), () => 'blocked');
  };
  await tried('get', '/api/status', { credentials: 'include' });
  await tried('no-cors', '/api/status', { mode: 'no-cors', credentials: 'include' });
  await tried('post', '/api/stop', { method: 'POST', mode: 'no-cors', credentials: 'include' });
  await tried('text', '/api/tokens', { method: 'POST', mode: 'no-cors', credentials: 'include', body: '{"do":"list"}' });
  await tried('json', '/api/tokens', { method: 'POST', credentials: 'include', headers: { 'content-type': 'application/json' }, body: '{"do":"list"}' });
  await tried('delete', '/api/exchanges', { method: 'DELETE', credentials: 'include' });
  seen.beacon = navigator.sendBeacon(`${own}/api/stop`) ? 'opaque' : 'blocked';
  seen.script = await new Promise((resolve) => {
    const script = Object.assign(document.createElement('script'), { src: `${own}/assets/main.js`, type: 'module', onload: () => resolve('loaded'), onerror: () => resolve('blocked') });
    document.body.append(script);
  });
  seen.socket = await new Promise((resolve) => {
    const socket = new WebSocket(`${own.replace('http', 'ws')}/api/events`);
    socket.onopen = () => resolve('open');
    socket.onerror = () => resolve('blocked');
  });
  seen.events = await new Promise((resolve) => {
    const source = new EventSource(`${own}/api/events`, { withCredentials: true });
    source.onopen = () => resolve('open');
    source.onerror = () => { source.close(); resolve('blocked'); };
  });
  return seen;
}, url.origin);

// It sends the browser to us, by a form, and in a frame.
const [navigated] = await Promise.all([
  foreign.waitForResponse((one) => one.url().startsWith(url.origin)),
  foreign.evaluate((own) => {
    const form = Object.assign(document.createElement('form'), { method: 'post', action: `${own}/api/stop` });
    document.body.append(form);
    form.submit();
  }, url.origin),
]);
out.navigated = navigated.status();
const framing = await context.newPage();
await framing.goto(`http://evil.example:${evil.address().port}/`);
await framing.evaluate((own) => new Promise((resolve) => {
  document.body.append(Object.assign(document.createElement('iframe'), { src: own, onload: resolve, onerror: resolve }));
}), url.origin);
out.framed = await framing.frames()[1].evaluate(() => !!document.getElementById('app')).catch(() => false);
await browser.close();
evil.close();
console.log(JSON.stringify(out));
