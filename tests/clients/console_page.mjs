// Drives the console page in headless Chromium and prints what it saw as JSON.
// Arguments: the one-time address, a folder for screenshots, the path of Chromium.
import { createRequire } from 'node:module';
import { readFileSync } from 'node:fs';
import { chromium } from 'playwright-core';

const [url, shots, executablePath] = process.argv.slice(2);
const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const browser = await chromium.launch({ executablePath, args: ['--no-sandbox', '--disable-gpu', '--disable-background-networking'] });
// The page's own policy forbids foreign scripts; the accessibility checker is one.
const context = await browser.newContext({ viewport: { width: 1280, height: 800 } });
const page = await context.newPage();
const seen = { errors: [], dialogs: 0, axe: {} };
page.on('console', (message) => message.type() === 'error' && seen.errors.push(message.text()));
page.on('pageerror', (error) => seen.errors.push(error.message));
page.on('dialog', (dialog) => { seen.dialogs += 1; void dialog.dismiss(); });

async function check(name) {
  await page.screenshot({ path: `${shots}/${name}.png` });
  // Playwright evaluates outside the page's policy.
  await page.evaluate(axe);
  const found = await page.evaluate(() => window.axe.run(document, { resultTypes: ['violations'] }));
  seen.axe[name] = found.violations.filter((one) => ['serious', 'critical'].includes(one.impact))
    .map((one) => `${one.id}: ${one.nodes.slice(0, 3).map((node) => node.target.join(' ')).join(', ')}`);
}

await page.goto(url);
await page.waitForURL((address) => !String(address).includes('once'));
await page.waitForSelector('.row');
seen.rows = await page.locator('.row').count();
await check('traffic-light');
await page.locator('.row', { hasText: '/hostile' }).click();
await page.waitForSelector('.detail .part');
await page.click('#x-response');
seen.hostile = await page.locator('.panel').innerText();
seen.markup = await page.locator('.panel img, .panel script').count();
await page.locator('.row', { hasText: '/orders' }).first().click();
await page.waitForSelector('.strip');
await page.click('#x-auth');
seen.auth = await page.locator('.panel').innerText();
await check('auth-light');
for (const tab of ['overview', 'request', 'timing', 'raw']) {
  await page.keyboard.press(String(['overview', 'request', 'response', 'auth', 'timing', 'raw'].indexOf(tab) + 1));
  await page.waitForSelector(`#x-${tab}[aria-selected=true]`);
  seen[tab] = await page.locator('.panel').innerText();
}
seen.whole = await page.content();
await page.setViewportSize({ width: 400, height: 800 });
await check('detail-400');
await page.keyboard.press('Escape');
await page.waitForSelector('.detail', { state: 'detached' });
await page.emulateMedia({ colorScheme: 'dark' });
await check('traffic-400-dark');
await page.setViewportSize({ width: 1280, height: 800 });
for (const view of ['tokens', 'rules', 'setup']) {
  await page.click(`#t-${view}`);
  await page.waitForSelector(`#${view}`);
  await page.waitForSelector(`#${view} h1, #${view} .lead`);
  seen[view] = await page.locator('main').innerText();
  await check(`${view}-dark`);
}
await page.click('#t-traffic');
await page.fill('#filter', 'path:/hostile');
await page.keyboard.press('Enter');
await page.waitForFunction(() => document.querySelectorAll('.row').length === 1);
seen.filtered = await page.locator('.row').innerText();
await page.locator('.row').click();
await page.waitForSelector('.detail .title');
await page.locator('.acts button', { hasText: 'Replay' }).click();
await page.waitForFunction(() => document.querySelectorAll('.row').length === 2);
seen.replayed = await page.locator('.row').count();
await page.fill('#filter', 'hots:x');
await page.keyboard.press('Enter');
await page.waitForSelector('.note.bad');
seen.wrong = await page.locator('.note.bad').innerText();
await browser.close();
console.log(JSON.stringify(seen));
