// Every view at 1280 and 400 pixels, light and dark: a picture, a check of accessibility, an outline for screen readers.
// Arguments: the one-time address, a folder for pictures. Prints JSON.
import { choose, open, serious, tab, violations } from './console_browser.mjs';

const [url, shots] = process.argv.slice(2);
const { browser, page, seen } = await open(url);
const out = { axe: {}, aria: {}, overflow: [] };

const VIEWS = ['traffic', 'overview', 'request', 'response', 'auth', 'timing', 'raw', 'tokens', 'token', 'rules', 'setup'];

async function go(view) {
  if (['tokens', 'token', 'rules', 'setup'].includes(view)) {
    await page.click(`#t-${view === 'token' ? 'tokens' : view}`);
    await page.waitForSelector('#view h1');
    if (view === 'token') await page.locator('button.nm', { hasText: 'acme-user' }).click();
    if (view === 'rules') {
      await page.fill('#wonder', 'POST http://api.dev.acme.example/admin/users');
      await page.waitForSelector('.beside .tree');
    }
    return;
  }
  if (view === 'traffic') return page.waitForSelector('.row');
  if (await page.locator('.detail').count() === 0) await choose(page, 'notify=true');
  await tab(page, view);
}

async function leave(view) {
  if (view === 'raw' || view === 'token') {
    await page.keyboard.press('Escape');
    await page.waitForSelector('aside', { state: 'detached' });
  }
  if (view === 'setup') await page.click('#t-traffic');
}

for (const dark of [false, true]) {
  for (const width of [1280, 400]) {
    await page.emulateMedia({ colorScheme: dark ? 'dark' : 'light', reducedMotion: 'reduce' });
    await page.setViewportSize({ width, height: 860 });
    for (const view of VIEWS) {
      await go(view);
      const name = `${view}-${width}-${dark ? 'dark' : 'light'}`;
      await page.screenshot({ path: `${shots}/${name}.png` });
      out.axe[name] = await serious(page);
      const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
      if (wide > 0) out.overflow.push(name);
      if (!dark && width === 1280) out.aria[view] = await page.locator('body').ariaSnapshot();
      await leave(view);
    }
  }
}
out.violations = await violations(page);
await browser.close();
console.log(JSON.stringify({ ...out, ...seen }));
