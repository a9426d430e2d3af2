// Drives everything that the page can do, with mouse and keys. Arguments: the one-time address, the rule file, a proxy,
// a folder for pictures. Prints JSON.
import { execFileSync } from 'node:child_process';
import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { choose, clipboard, open, row, rows, serious, tab } from './console_browser.mjs';

const [url, file, proxy, shots] = process.argv.slice(2);
const { browser, page, seen } = await open(url);
const out = { tabs: {} };
const curl = (target, ...more) => execFileSync('curl', ['-sS', '-o', '/dev/null', '-x', proxy, target, ...more]);
const count = (number) => page.waitForFunction((wanted) => document.querySelectorAll('.rows .row:not(.send)').length === wanted, number);
const notice = async (text) => page.locator('.banner', { hasText: text }).waitFor();
const act = async (name) => {
  await page.click('.acts [aria-label=More]');
  await page.click(`.acts .menu button[aria-label="${name}"]`);
};

// Live, in order, with the newest in sight.
await page.waitForSelector('.row');
const before = await rows(page).count();
curl('http://api.hub.example/live');
await row(page, '/live').waitFor();
out.live = (await rows(page).count()) - before;

// Tabs of an exchange with a refresh in it.
await choose(page, 'notify=true');
out.sends = await page.locator('.rail [role=radio]').count();
out.unfolded = await page.locator('.row.send').count();
for (const name of ['overview', 'request', 'response', 'auth', 'timing', 'raw']) out.tabs[name] = await tab(page, name);
await tab(page, 'auth');
await page.locator('.rail [role=radio]').first().click();
await page.locator('#panel h3', { hasText: 'send 1' }).waitFor();
out.firstSend = await page.locator('#panel').innerText();
await tab(page, 'response');
await page.locator('.rail [role=radio]').last().click();
for (const mode of ['raw', 'hex', 'pretty']) {
  await page.locator('.modes button', { hasText: mode }).click();
  await page.locator('.modes button[aria-pressed=true]', { hasText: mode }).waitFor();
  out[mode] = await page.locator('#panel .box').innerText();
}

// What one can take along.
await page.click('.acts [aria-label=curl]');
await notice('curl copied');
out.curl = await clipboard(page);
await act('Copy as HAR');
await notice('HAR copied');
out.har = JSON.parse(await clipboard(page)).log.entries.length;
await act('Copy what was sent');
await notice('What was sent copied');
out.sent = await clipboard(page);
await act('Draft a rule for this host');
out.draft = await page.locator('#panel pre', { hasText: 'auth:' }).innerText();
await page.keyboard.press('Escape');

// A picture lies in a sandbox; what calls itself HTML stays text.
await choose(page, 'one.png');
await tab(page, 'response');
const frame = page.frameLocator('iframe.picture');
await frame.locator('img').waitFor();
out.picture = await page.locator('iframe.picture').getAttribute('sandbox');
await page.locator('.modes button', { hasText: 'hex' }).click();
await page.waitForSelector('#panel .box');
out.pictureHex = (await page.locator('#panel .box').innerText()).slice(0, 60);

// Compare.
await choose(page, 'since=8842');
await act('Compare with another');
await choose(page, 'notify=true');
await page.waitForSelector('.wire .del');
out.diff = await page.locator('#panel').innerText();
await page.screenshot({ path: `${shots}/diff-1280-light.png` });
await page.keyboard.press('Escape');

// Replay, and edit and replay.
const mid = await rows(page).count();
await choose(page, 'since=8842');
await page.click('.acts [aria-label=Replay]');
await notice('Sent again: 200');
await count(mid + 1);
await act('Edit and replay');
out.axeEdit = await serious(page);
await page.fill('.edit [name=method]', 'PUT');
await page.fill('.edit [name=url]', 'http://api.hub.example/edited');
await page.fill('.edit [name=headers]', 'x-edited: yes');
await page.fill('.edit [name=body]', 'an edited body');
await page.screenshot({ path: `${shots}/edit-1280-light.png` });
await page.click('.edit .do');
await row(page, '/edited').waitFor();
out.edited = await row(page, '/edited').innerText();

// Filters: the grammar of `countersign log`, chips, the address, an error with a hint.
await page.keyboard.press('Escape');
await page.keyboard.press('/');
await page.waitForFunction(() => document.activeElement?.id === 'filter');
await page.keyboard.type('cred:hub -path:/edited');
await page.keyboard.press('Enter');
await page.waitForFunction(() => location.search.includes('cred') && !document.querySelector('.rows')?.textContent.includes('weather'));
out.filtered = await rows(page).allInnerTexts();
out.chips = await page.locator('.chip').count();
out.place = page.url();
await page.fill('#filter', 'hots:x');
await page.keyboard.press('Enter');
await page.waitForSelector('.wrongly');
out.wrong = await page.locator('.wrongly').innerText();
for (let chips = 3; chips > 0; chips -= 1) {
  await page.locator('.chip button').first().click();
  await page.waitForFunction((left) => document.querySelectorAll('.chip').length === left, chips - 1);
}
await row(page, 'weather').waitFor();

// Pause and go on.
await page.locator('.foot').click();
await page.keyboard.press('p');
await page.locator('.foot button', { hasText: 'Go on' }).waitFor();
const held = await rows(page).count();
curl('http://api.hub.example/held');
await page.locator('.foot button', { hasText: '1 wait' }).waitFor();
out.whilePaused = (await rows(page).count()) - held;
await page.keyboard.press('p');
await row(page, '/held').waitFor();

// Keys.
await row(page, 'weather').click();
await page.waitForSelector('.detail .panel');
const chosen = () => page.locator('.row.chosen, .row[aria-selected=true][data-x]').getAttribute('data-x').then(Number);
const at = await chosen();
await page.keyboard.press('j');
await page.waitForFunction((id) => document.querySelector(`[data-x="${id + 1}"][aria-selected=true]`), at);
await page.keyboard.press('k');
await page.waitForFunction((id) => document.querySelector(`[data-x="${id}"][aria-selected=true]`), at);
await page.keyboard.press('ArrowDown');
await page.waitForFunction((id) => document.querySelector(`[data-x="${id + 1}"][aria-selected=true]`), at);
for (const [key, name] of [['1', 'overview'], ['2', 'request'], ['3', 'response'], ['4', 'auth'], ['5', 'timing'], ['6', 'raw']]) {
  await page.keyboard.press(key);
  await page.waitForSelector(`#x-${name}[aria-selected=true]`);
}
await page.keyboard.press('c');
await notice('curl copied');
const again = await rows(page).count();
await page.keyboard.press('r');
await count(again + 1);
// What was sent again is opened.
await page.waitForFunction(() => [...document.querySelectorAll('.rows [data-x]')].at(-1)?.getAttribute('aria-selected') === 'true' && document.querySelector('.detail .panel'));
await choose(page, 'notify=true');
await page.waitForFunction(() => document.querySelectorAll('.row.send').length === 3);
await page.locator('.row[aria-selected=true][data-x]').focus();
await page.keyboard.press('ArrowLeft');
await page.waitForFunction(() => document.querySelectorAll('.row.send').length === 0);
await page.keyboard.press('ArrowRight');
await page.waitForFunction(() => document.querySelectorAll('.row.send').length === 3);
await page.locator('#x-raw').focus();
await page.keyboard.press('ArrowLeft');
await page.waitForSelector('#x-timing[aria-selected=true]');
await page.keyboard.press('Escape');
await page.waitForSelector('.detail', { state: 'detached' });
await page.waitForFunction(() => document.activeElement?.getAttribute('data-x'));
await page.keyboard.press('Enter');
await page.waitForSelector('.detail');
await page.keyboard.press('?');
out.help = await page.locator('.help').innerText();
await page.screenshot({ path: `${shots}/help-1280-light.png` });
await page.keyboard.press('Escape');
for (const [key, name] of [['t', 'tokens'], ['r', 'rules'], ['s', 'setup'], ['l', 'traffic']]) {
  await page.keyboard.press('g');
  await page.keyboard.press(key);
  await page.waitForSelector(`#t-${name}[aria-selected=true]`);
}

// Tokens: refresh, revoke after a question.
await page.click('#t-tokens');
const line = page.locator('.tok', { hasText: 'acme-user' });
out.countdown = await line.locator('.st b').innerText();
await page.waitForFunction((was) => [...document.querySelectorAll('.tok')].find((one) => one.textContent.includes('acme-user')).querySelector('.st b').textContent !== was, out.countdown);
await line.locator('button', { hasText: 'Refresh' }).click();
await notice('has a new token');
await line.locator('.nm').click();
await page.locator('aside dt', { hasText: 'last fetch' }).waitFor();
out.fetched = await page.locator('aside').innerText();
await page.locator('aside [aria-label=Close]').click();
await line.locator('button', { hasText: 'Revoke' }).click();
out.asked = await line.locator('.asks').innerText();
await line.locator('button', { hasText: 'Keep' }).click();
await line.locator('button', { hasText: 'Revoke' }).click();
await line.locator('.bad', { hasText: 'Revoke' }).click();
await page.locator('.tok', { hasText: 'acme-user' }).filter({ hasText: 'Not fetched yet' }).waitFor();
await page.locator('.tok', { hasText: 'partner-user' }).locator('button', { hasText: 'Log in' }).click();
await page.locator('.fix', { hasText: 'ABCD-EFGH' }).waitFor();
out.login = await page.locator('.fix').innerText();
out.loginLink = await page.locator('.fix a').getAttribute('href');
await page.screenshot({ path: `${shots}/login-1280-light.png` });

// Rules: live counts, and a refused file shown where it is.
await page.click('#t-rules');
const hub = page.locator('.rule', { hasText: 'api.hub.example' }).locator('.cnt');
const decided = Number.parseInt(await hub.innerText(), 10);
curl('http://api.hub.example/counted');
await page.waitForFunction((was) => Number.parseInt([...document.querySelectorAll('.rule')].find((one) => one.textContent.includes('api.hub.example')).querySelector('.cnt').innerText, 10) > was, decided, { timeout: 15_000 });
const good = readFileSync(file, 'utf8');
const save = (text) => { writeFileSync(`${file}.new`, text); renameSync(`${file}.new`, file); };
save(good.replace('type: bearer, token:', 'type: bearer, tokken:'));
await page.waitForSelector('.alarm');
out.alarm = await page.locator('.alarm').innerText();
out.axeAlarm = await serious(page);
await page.screenshot({ path: `${shots}/refused-1280-light.png` });
await page.click('#t-traffic');
out.banner = await page.locator('.banner.bad').innerText();
save(good);
await page.waitForSelector('.banner.bad', { state: 'detached' });

// Clear.
await page.keyboard.press('x');
await count(0);
out.cleared = await page.locator('.rows').innerText();
await browser.close();
console.log(JSON.stringify({ ...out, ...seen }));
