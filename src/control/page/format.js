// Numbers, times and masked values as a person reads them. Pure: no DOM.

/** @param {number} ms */
export function duration(ms) {
  if (!Number.isFinite(ms)) return '';
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 60_000) return `${(ms / 1000).toFixed(1)} s`;
  const seconds = Math.floor(ms / 1000);
  const hours = Math.floor(seconds / 3600);
  const rest = `${String(Math.floor(seconds / 60) % 60).padStart(hours ? 2 : 1, '0')}:${String(seconds % 60).padStart(2, '0')}`;
  return hours ? `${hours}:${rest}` : rest;
}

/** @param {number} bytes */
export function size(bytes) {
  if (bytes < 1000) return `${bytes} B`;
  if (bytes < 1e6) return `${(bytes / 1e3).toFixed(1)} kB`;
  if (bytes < 1e9) return `${(bytes / 1e6).toFixed(1)} MB`;
  return `${(bytes / 1e9).toFixed(1)} GB`;
}

/** Time of day. @param {number} ms since 1970 @param {boolean} [exact] with milliseconds */
export function clock(ms, exact) {
  const at = new Date(ms);
  const two = (/** @type {number} */ n) => String(n).padStart(2, '0');
  const text = `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
  return exact ? `${text}.${String(at.getMilliseconds()).padStart(3, '0')}` : text;
}

/** How long something was quiet. @param {number} ms */
export function quiet(ms) {
  const seconds = Math.round(ms / 1000);
  return seconds < 60 ? `${seconds} s quiet` : `${Math.floor(seconds / 60)} min ${seconds % 60} s quiet`;
}

/**
 * The class of an outcome: glyph, tone, words for it.
 * @param {{outcome: string, kind?: string, status: number | null, error?: string | null, sends: number}} row
 */
export function outcome(row) {
  if (row.outcome === 'open') return { glyph: 'open', tone: 'ok', text: row.status ? String(row.status) : '···', note: 'open', spoken: 'still open' };
  if (row.kind === 'tunnel') return { glyph: 'tunnel', tone: 'dim', text: row.outcome === 'broken' ? 'cut' : 'blind', note: '', spoken: 'tunnel, not looked into' };
  if (row.outcome === 'refused' && row.error === 'login-needed') return { glyph: 'wait', tone: 'warn', text: 'login', note: 'ours', spoken: 'needed, answered by Countersign' };
  if (row.outcome === 'refused') return { glyph: row.status && row.status >= 500 ? 'bad' : 'refused', tone: 'bad', text: String(row.status ?? '---'), note: 'ours', spoken: `answered by Countersign, ${row.error ?? ''}` };
  if (row.outcome === 'broken') return { glyph: 'broken', tone: 'bad', text: row.status ? String(row.status) : '---', note: 'cut', spoken: 'broken off' };
  return { ...status(row.status ?? 0), note: row.sends > 1 ? `×${row.sends}` : '' };
}

/** @param {number} code */
export function status(code) {
  const text = code ? String(code) : '---';
  if (code >= 500) return { glyph: 'bad', tone: 'bad', text, note: '', spoken: `${text} server error` };
  if (code >= 400) return { glyph: 'warn', tone: 'warn', text, note: '', spoken: `${text} client error` };
  if (code >= 300) return { glyph: 'redirect', tone: 'dim', text, note: '', spoken: `${text} redirect` };
  return { glyph: code ? 'ok' : 'broken', tone: code ? 'ok' : 'bad', text, note: '', spoken: code ? `${text} fine` : 'no answer' };
}

/** Cuts a text into plain and masked parts: `eyJh…9f2c` and `***`. @param {string} text @returns {{text: string, masked: boolean}[]} */
export function masked(text) {
  const parts = [];
  let from = 0;
  for (const found of text.matchAll(/([^\s"'=&;,]{0,4})(…)([^\s"'=&;,]{0,4})|\*\*\*/gu)) {
    if (found.index > from) parts.push({ text: text.slice(from, found.index), masked: false });
    if (found[1]) parts.push({ text: found[1], masked: false });
    parts.push({ text: '…', masked: true });
    if (found[3]) parts.push({ text: found[3], masked: false });
    from = found.index + found[0].length;
  }
  if (from < text.length) parts.push({ text: text.slice(from), masked: false });
  return parts;
}

/** JSON set out for reading; other text as it is. @param {string} text */
export function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

/** Bytes as a hex dump of sixteen columns. @param {Uint8Array} bytes @param {number} [limit] */
export function hex(bytes, limit = 4096) {
  const lines = [];
  for (let at = 0; at < Math.min(bytes.length, limit); at += 16) {
    const piece = [...bytes.slice(at, Math.min(at + 16, limit))];
    const codes = piece.map((byte) => byte.toString(16).padStart(2, '0')).join(' ');
    const text = piece.map((byte) => (byte >= 32 && byte < 127 ? String.fromCharCode(byte) : '.')).join('');
    lines.push(`${at.toString(16).padStart(8, '0')}  ${codes.padEnd(47)}  ${text}`);
  }
  if (bytes.length > limit) lines.push(`${bytes.length - limit} bytes more`);
  return lines.join('\n');
}

/** @param {string} text base64 */
export function decode(text) {
  return Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
}

/** What a send of an exchange is called. @param {import('./types').Send[]} sends @param {number} at */
export function sendName(sends, at) {
  const send = sends[at];
  if (!send) return '';
  if (send.kind === 'token') return 'token';
  if (send.kind === 'connect') return 'tunnel';
  const requests = sends.filter((one) => one.kind === 'request');
  if (requests.length === 1) return 'the request';
  return send === requests[0] ? 'first send' : 'sent again';
}

/** How long a send took, in milliseconds. @param {import('./types').Send} send */
export const took = (send) => (send.timing?.wait_ms ?? 0) + (send.timing?.body_ms ?? 0);

/** What is left of a time. @param {number} seconds */
export function left(seconds) {
  if (seconds <= 0) return 'ended';
  if (seconds < 3600) return `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, '0')} left`;
  if (seconds < 172_800) return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min left`;
  return `${Math.floor(seconds / 86_400)} days left`;
}

/**
 * The parts of a waterfall in thousandths of `scale`. What came before the last send is ours if we sent something else
 * before it, else it is the time of connecting.
 * @param {import('./types').Row} row @param {number} scale ms
 */
export function bars(row, scale) {
  const total = row.duration_ms;
  const before = Math.min(total, Math.max(0, row.ours_ms ?? 0));
  const wait = Math.max(0, Math.min(row.wait_ms ?? (row.outcome === 'open' || row.kind === 'tunnel' ? total : 0), total - before));
  const body = Math.max(0, total - wait - before);
  const first = row.sends + row.own_sends > 1 ? 'ours' : 'conn';
  const unit = (/** @type {number} */ ms) => Math.min(1000, (ms / scale) * 1000);
  const parts = [];
  let at = 0;
  for (const [kind, ms] of /** @type {[string, number][]} */ ([[first, before], ['wait', wait], ['body', body]])) {
    if (ms <= 0) continue;
    const x = unit(at);
    const width = Math.max(6, unit(at + ms) - x);
    if (x < 1000) parts.push({ kind, x, width: Math.min(width, 1000 - x) });
    at += ms;
  }
  return { parts, cut: total > scale };
}

/** A scale that most rows fit on. @param {{duration_ms: number}[]} rows */
export function scale(rows) {
  const times = rows.map((row) => row.duration_ms).filter((ms) => ms > 0).sort((a, b) => a - b);
  const most = times[Math.floor(times.length * 0.9)] ?? 100;
  return [50, 100, 200, 500, 1000, 2000, 5000, 10_000, 30_000, 60_000].find((step) => step >= most) ?? 120_000;
}

const STEERS = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\u{e0000}-\u{e0fff}]/gu;

/** Characters that steer a terminal or reorder text, made visible. Line ends and tabs stay. @param {string} text */
export function visible(text) {
  return text.replace(STEERS, (c) => {
    const code = /** @type {number} */ (c.codePointAt(0)).toString(16);
    return code.length > 4 ? `\\u{${code}}` : `\\u${code.padStart(4, '0')}`;
  });
}

/** How long ago. @param {number} seconds */
export function ago(seconds) {
  if (seconds < 60) return `${Math.max(0, Math.round(seconds))} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  return seconds < 172_800 ? `${Math.floor(seconds / 3600)} h ago` : `${Math.floor(seconds / 86_400)} days ago`;
}

/** How fetching it goes, in the words of a list; empty if it goes well. @param {import('./types').Holding} token */
export function trouble(token) {
  const failures = token.failures ?? 0;
  return failures ? `${failures === 1 ? 'The last fetch' : `The last ${failures} fetches`} failed` : '';
}

/** What this proxy did for it since it started. @param {import('./types').Holding} token @returns {[string, string | null][]} */
export const doings = (token) => [
  ['last fetch', token.last_refresh ? clock(Date.parse(token.last_refresh)) : null],
  ['fetched', token.refreshed ? `${token.refreshed} ${token.refreshed === 1 ? 'time' : 'times'}` : null],
  ['failed', token.failed ? `${token.failed} ${token.failed === 1 ? 'time' : 'times'}${token.failures ? `, ${token.failures} in a row now` : ''}` : null],
  ['waiting', token.waiters ? `${token.waiters} ${token.waiters === 1 ? 'request' : 'requests'}` : null],
];
