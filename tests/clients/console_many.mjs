// Scrolls through five thousand rows and looks at the frames. Arguments: the one-time address. Prints JSON.
import { open, rows } from './console_browser.mjs';

const { browser, page, seen } = await open(process.argv[2]);
await page.waitForSelector('.row');
await page.waitForFunction(() => Number(document.querySelector('.rows')?.getAttribute('aria-rowcount')) >= 5000, null, { timeout: 60_000 });
const out = { count: Number(await page.locator('.rows').getAttribute('aria-rowcount')), drawn: await page.locator('.row').count() };

out.scroll = await page.evaluate(() => new Promise((resolve) => {
  const box = document.querySelector('.rows');
  const tasks = [];
  new PerformanceObserver((list) => tasks.push(...list.getEntries().map((entry) => entry.duration))).observe({ entryTypes: ['longtask'] });
  const frames = [];
  let blank = 0;
  box.scrollTop = 0;
  const whole = box.scrollHeight;
  const steps = 240;
  let step = 0;
  let before = performance.now();
  const next = (now) => {
    frames.push(now - before);
    before = now;
    // Once this frame is on the screen, there are rows in the middle of it.
    if (step) setTimeout(() => {
      const edge = box.getBoundingClientRect();
      const middle = document.elementFromPoint(edge.left + 200, edge.top + edge.height / 2);
      if (!middle?.closest('.row, .quiet')) blank += 1;
    });
    if ((step += 1) > steps) {
      const sorted = frames.slice(2).sort((a, b) => a - b);
      resolve({ frames: sorted.length, median: sorted[sorted.length >> 1], p95: sorted[Math.floor(sorted.length * 0.95)], longest: sorted.at(-1), longTasks: tasks.length, longestTask: Math.max(0, ...tasks), blank });
      return;
    }
    box.scrollTop = (whole * step) / steps;
    requestAnimationFrame(next);
  };
  requestAnimationFrame(next);
}));

// Keys and a filter over all of them.
await page.evaluate(() => { document.querySelector('.rows').scrollTop = 0; });
const began = Date.now();
await page.fill('#filter', 'path:/n4242');
await page.keyboard.press('Enter');
await page.waitForFunction(() => document.querySelectorAll('.rows .row').length === 1);
out.filterMs = Date.now() - began;
out.filtered = await rows(page).innerText();
await browser.close();
console.log(JSON.stringify({ ...out, ...seen }));
