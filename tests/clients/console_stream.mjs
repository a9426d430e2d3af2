// A page whose proxy goes away and comes back. Arguments: the one-time address, a proxy. Reads words on standard input:
// `gone` and `back ADDRESS`; prints JSON.
import { execFileSync } from 'node:child_process';
import net from 'node:net';
import { createInterface } from 'node:readline';
import { open, row } from './console_browser.mjs';

const [url, proxy] = process.argv.slice(2);
// Between browser and console stands a relay that can be cut.
const own = new URL(url);
const sockets = new Set();
let whole = true;
const relay = net.createServer((from) => {
  if (!whole) return from.destroy();
  const to = net.connect(Number(own.port), '127.0.0.1');
  for (const [one, other] of [[from, to], [to, from]]) {
    sockets.add(one);
    one.on('error', () => other.destroy());
    one.on('close', () => { sockets.delete(one); other.destroy(); });
    one.pipe(other);
  }
});
await new Promise((resolve) => { relay.listen(0, '127.0.0.1', resolve); });
own.hostname = 'localhost';
const { browser, context, page, seen } = await open(String(own), { args: [`--host-resolver-rules=MAP localhost 127.0.0.1:${relay.address().port}`] });
const curl = (target) => execFileSync('curl', ['-sS', '-o', '/dev/null', '-x', proxy, target]);
const out = {};
await page.waitForSelector('.row');

// The connection breaks; what happened meanwhile comes afterwards, once.
whole = false;
for (const socket of sockets) socket.destroy();
await page.locator('.banner.warn').waitFor();
out.lost = await page.locator('.banner.warn').innerText();
out.readable = await page.locator('.rows .row').count();
curl('http://127.0.0.1:9/missed');
whole = true;
await row(page, '/missed').waitFor({ timeout: 30_000 });
await page.waitForSelector('.banner.warn', { state: 'detached' });
out.once = await page.locator('.rows .row', { hasText: '/missed' }).count();

// The proxy is started anew on the same port: the page says that it needs a new address, and goes on once it has one.
console.error('ready');
const words = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
await words.next();
await page.locator('.banner.warn', { hasText: 'no session' }).waitFor({ timeout: 30_000 });
console.error('waiting');
const { value: address } = await words.next();
const second = await context.newPage();
await second.goto(address.replace('127.0.0.1', 'localhost'));
await second.waitForSelector('#view');
await row(page, '/anew').waitFor({ timeout: 30_000 });
out.old = await page.locator('.rows .row', { hasText: '/missed' }).count();
await browser.close();
relay.close();
seen.opened = 0;
console.log(JSON.stringify({ ...out, ...seen }));
