// A page whose proxy goes away and comes back. Arguments: the one-time address, a proxy. Reads words on standard input:
// `gone` and `back ADDRESS`; prints JSON.
import { createInterface } from 'node:readline';
import { execFileSync } from 'node:child_process';
import { open, row } from './console_browser.mjs';

const [url, proxy] = process.argv.slice(2);
const { browser, context, page, seen } = await open(url);
const curl = (target) => execFileSync('curl', ['-sS', '-o', '/dev/null', '-x', proxy, target]);
const out = { asked: [] };
page.on('request', (request) => { if (request.url().includes('/api/events')) out.asked.push(request.headers()['last-event-id'] ?? ''); });
await page.waitForSelector('.row');

// The connection breaks; what happened meanwhile comes afterwards, once.
await page.waitForTimeout(200);
await context.setOffline(true);
await page.locator('.banner.warn').waitFor();
out.lost = await page.locator('.banner.warn').innerText();
out.readable = await page.locator('.rows .row').count();
curl('http://127.0.0.1:9/missed');
await context.setOffline(false);
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
await second.goto(address);
await second.waitForSelector('#view');
await row(page, '/anew').waitFor({ timeout: 30_000 });
out.old = await page.locator('.rows .row', { hasText: '/missed' }).count();
await browser.close();
seen.opened = 0;
console.log(JSON.stringify({ ...out, ...seen }));
