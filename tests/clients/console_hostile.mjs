// Opens every exchange on every tab, and the other views. Arguments: the one-time address. Prints JSON.
import { open, rows, tab, violations } from './console_browser.mjs';

const { browser, page, seen } = await open(process.argv[2]);
const out = { shown: {}, list: [], elements: 0 };
const strangers = () => page.evaluate(() => document.querySelectorAll('#app script, #app img, #app iframe:not(.picture), #app style, #app link, #app base, #app meta, #app video, #app math, #app form[action], #app a[href^="javascript"], #app a[href*="evil"]').length);

await page.waitForSelector('.row');
out.list = await rows(page).allInnerTexts();
out.elements += await strangers();
const ids = await rows(page).evaluateAll((all) => all.map((one) => one.getAttribute('data-x')));
for (const id of ids) {
  await page.locator(`[data-x="${id}"]`).click();
  await page.waitForSelector(`.detail[aria-label="Exchange ${id}"]`);
  const shown = {};
  for (const name of ['overview', 'request', 'response', 'auth', 'timing', 'raw']) {
    shown[name] = await tab(page, name);
    out.elements += await strangers();
  }
  out.shown[id] = shown;
}
for (const act of ['Draft a rule for this host', 'Edit and replay', 'Compare with another']) {
  await page.click('.acts [aria-label=More]');
  await page.click(`.acts .menu button[aria-label="${act}"]`);
  out.elements += await strangers();
}
await page.locator(`[data-x="${ids[0]}"]`).click();
await page.waitForSelector('#panel .wire .add, #panel .wire .del');
out.elements += await strangers();
for (const view of ['tokens', 'rules', 'setup']) {
  await page.click(`#t-${view}`);
  await page.waitForSelector('#view h1');
  out[view] = await page.locator('#view').innerText();
  out.elements += await strangers();
}
out.violations = await violations(page);
out.address = page.url();
await browser.close();
console.log(JSON.stringify({ ...out, ...seen }));
