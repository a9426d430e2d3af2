// Opens the console page in headless Chromium and watches for everything that must not happen there.
import { createRequire } from 'node:module';
import { readFileSync } from 'node:fs';
import { chromium } from 'playwright-core';

const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

/**
 * @param {string} url the one-time address
 * @param {{width?: number, height?: number, dark?: boolean, args?: string[]}} [how]
 */
export async function open(url, how = {}) {
  const browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: ['--no-sandbox', '--disable-gpu', '--disable-background-networking', ...(how.args ?? [])] });
  const context = await browser.newContext({ viewport: { width: how.width ?? 1280, height: how.height ?? 800 }, colorScheme: how.dark ? 'dark' : 'light', permissions: ['clipboard-read', 'clipboard-write'] });
  const page = await context.newPage();
  const own = new URL(url).origin;
  const seen = { errors: [], dialogs: 0, foreign: [], opened: 0 };
  page.on('console', (message) => ['error', 'warning'].includes(message.type()) && seen.errors.push(message.text()));
  page.on('pageerror', (error) => seen.errors.push(error.message));
  page.on('dialog', (dialog) => { seen.dialogs += 1; void dialog.dismiss(); });
  page.on('request', (request) => { if (!request.url().startsWith(own)) seen.foreign.push(request.url()); });
  context.on('page', () => { seen.opened += 1; });
  await page.addInitScript(() => {
    window.violations = [];
    document.addEventListener('securitypolicyviolation', (event) => window.violations.push(`${event.violatedDirective} ${event.blockedURI}`));
  });
  await page.goto(url);
  await page.waitForURL((address) => !String(address).includes('once'));
  await page.waitForSelector('#view');
  return { browser, context, page, seen };
}

/** What a checker of accessibility finds that is serious. Playwright evaluates outside the page's policy. */
export async function serious(page) {
  await page.evaluate(axe);
  const found = await page.evaluate(() => window.axe.run(document, { resultTypes: ['violations'] }));
  return found.violations.filter((one) => ['serious', 'critical'].includes(one.impact))
    .map((one) => `${one.id}: ${one.nodes.slice(0, 3).map((node) => `${node.target.join(' ')} ${node.any[0]?.message ?? ''}`).join(', ')}`);
}

export const violations = (page) => page.evaluate(() => window.violations);
export const rows = (page) => page.locator('.rows .row:not(.send)');
/** The row that holds a text. */
export const row = (page, text) => rows(page).filter({ hasText: text }).first();

/** Opens an exchange and waits for its detail. */
export async function choose(page, text) {
  await row(page, text).click();
  await page.waitForSelector('.detail .panel');
}

export async function tab(page, name) {
  await page.click(`#x-${name}`);
  await page.waitForSelector(`#x-${name}[aria-selected=true]`);
  return page.locator('#panel').innerText();
}

export const clipboard = (page) => page.evaluate(() => navigator.clipboard.readText());
