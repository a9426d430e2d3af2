// Two exchanges line by line. Pure: no DOM.

import { pretty } from './format.js';

/** Lines of each side that are compared. */
const MAX_LINES = 1500;

/** What is compared of an exchange. @param {import('./types').Detail} found */
export function text(found) {
  const send = found.sends?.findLast((one) => one.kind === 'request');
  const out = [`${found.method} ${found.url}`];
  for (const [name, value] of send?.request?.headers ?? []) out.push(`> ${name}: ${value}`);
  if (send?.request?.body) out.push(...pretty(send.request.body).split('\n').map((line) => `> ${line}`));
  out.push(`status ${found.response?.status ?? 'none'}`);
  for (const [name, value] of send?.response?.headers ?? []) out.push(`< ${name}: ${value}`);
  if (send?.response?.body) out.push(...pretty(send.response.body).split('\n').map((line) => `< ${line}`));
  return out.slice(0, MAX_LINES);
}

/**
 * The longest common lines, and what differs: `−` only left, `+` only right.
 * @param {string[]} left @param {string[]} right
 * @returns {[mark: string, line: string][]}
 */
export function lines(left, right) {
  const width = right.length + 1;
  const table = new Uint16Array((left.length + 1) * width);
  for (let i = left.length - 1; i >= 0; i -= 1) {
    for (let j = right.length - 1; j >= 0; j -= 1) {
      table[i * width + j] = left[i] === right[j] ? table[(i + 1) * width + j + 1] + 1 : Math.max(table[(i + 1) * width + j], table[i * width + j + 1]);
    }
  }
  /** @type {[string, string][]} */ const out = [];
  let i = 0;
  let j = 0;
  while (i < left.length || j < right.length) {
    if (i < left.length && j < right.length && left[i] === right[j]) {
      out.push(['', left[i]]);
      i += 1;
      j += 1;
    } else if (i < left.length && (j === right.length || table[(i + 1) * width + j] >= table[i * width + j + 1])) {
      out.push(['−', left[i]]);
      i += 1;
    } else {
      out.push(['+', right[j]]);
      j += 1;
    }
  }
  return out;
}
