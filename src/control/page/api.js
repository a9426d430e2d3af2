// Speaking to the proxy: one place for requests and for the stream of events.

import { visible } from './format.js';

/** An answer that is no success, in the proxy's words. */
export class Refusal extends Error {
  /** @param {string} message @param {number} status */
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/** @param {string} path @param {RequestInit} [init] */
async function ask(path, init) {
  const response = await fetch(path, { ...init, headers: { accept: 'application/json', ...(init?.body ? { 'content-type': 'application/json' } : {}) } });
  if (response.ok) return response;
  const text = await response.text();
  let message = text.trim() || `the proxy answered ${response.status}`;
  try {
    const parsed = JSON.parse(text);
    message = parsed.error ?? parsed.message ?? message;
  } catch {
    // Plain words.
  }
  if (response.status === 401) message = 'This page has no session any more. Run countersign open.';
  throw new Refusal(message, response.status);
}

/** Texts that have to stay as they are: they are decoded, copied or sent again. */
const EXACT = ['body', 'body_base64', 'base64', 'text', 'url'];

/** Reads JSON; what steers or reorders text is visible from here on. @param {string} text */
export const inert = (text) => JSON.parse(text, (name, value) => (typeof value === 'string' && !EXACT.includes(name) ? visible(value) : value));

/** @param {string} path */
export const read = async (path) => inert(await (await ask(path)).text());
/** @param {string} path */
export const text = async (path) => (await ask(path)).text();
/** @param {string} path @param {string} [body] */
export const send = async (path, body) => inert(await (await ask(path, { method: 'POST', body })).text());
/** @param {string} path @param {unknown} [body] */
export const post = (path, body) => send(path, body === undefined ? undefined : JSON.stringify(body));
/** @param {string} path */
export const remove = async (path) => (await ask(path, { method: 'DELETE' })).json();

/** Asks for tokens. @param {string} what @param {Record<string, unknown>} [rest] */
export const tokens = (what, rest) => post('/api/tokens', { do: what, ...rest });

/**
 * Listens to events. The browser comes back by itself after a loss, and says what it has seen last.
 * @param {string} filter @param {string} after the position from which on events are wanted
 * @param {Record<string, (data: any) => void>} hear handlers by name; `lost` (with true if it is over) and `found` for the connection
 */
export function listen(filter, after, hear) {
  const source = new EventSource(`/api/events?filter=${encodeURIComponent(filter)}&after=${encodeURIComponent(after)}`);
  for (const name of ['row', 'running', 'cleared', 'notice', 'resync']) {
    source.addEventListener(name, (event) => hear[name]?.(inert(/** @type {MessageEvent} */ (event).data)));
  }
  source.onopen = () => hear.found?.(null);
  source.onerror = () => hear.lost?.(source.readyState === EventSource.CLOSED);
  return () => source.close();
}
