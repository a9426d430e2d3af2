// What the page does: it reads, listens, and asks the proxy to act.

import * as api from './api.js';
import { edit as fields, pairs, rule as draftOf } from './draft.js';
import { MAX_ROWS, insert } from './rows.js';
import { attempt, draw, notice, say, set, state } from './state.js';

export const VIEWS = ['traffic', 'tokens', 'rules', 'setup'];
export const TABS = ['overview', 'request', 'response', 'auth', 'timing', 'raw'];

/** @typedef {import('./types').Row} Row */

// ── Traffic ──

let stop = () => {};
let again = 0;

/** Lists anew and listens. */
export async function load() {
  stop();
  clearTimeout(again);
  const filter = state.filter;
  let after = '';
  try {
    const listed = await api.read(`/api/exchanges?limit=${MAX_ROWS}&filter=${encodeURIComponent(filter)}`);
    if (filter !== state.filter) return;
    after = listed.position;
    const all = /** @type {Row[]} */ (listed.exchanges);
    set({
      filterError: null, loaded: true, lost: null, held: [], notKept: listed.not_kept, bytes: listed.bytes,
      rows: all.filter((row) => row.outcome !== 'open').reverse(), open: all.filter((row) => row.outcome === 'open').reverse(),
    });
  } catch (error) {
    if (error instanceof api.Refusal && error.status === 400) return set({ filterError: error.message, loaded: true });
    set({ loaded: true, lost: error instanceof api.Refusal ? error.message : 'Lost the proxy, trying again.' });
    again = window.setTimeout(load, 3000);
    return;
  }
  stop = api.listen(filter, after, {
    row: (row) => {
      if (state.paused) state.held.push(row);
      else add(row);
      draw();
    },
    running: (rows) => set({ open: rows }),
    cleared: () => set({ rows: [], open: [], held: [], fresh: 0, chosen: null, detail: null, bytes: 0 }),
    notice: ({ text }) => {
      // A refused file has a place of its own.
      notice(text.split('\n')[0]);
      void refreshFacts();
    },
    resync: () => void load(),
    lost: (over) => {
      set({ lost: 'Lost the proxy, trying again.' });
      // The browser gives up after an answer that is no stream: a new proxy knows no session of the old one.
      if (over) again = window.setTimeout(load, 3000);
    },
    found: () => {
      if (state.lost !== null) {
        set({ lost: null });
        void refreshFacts();
      }
    },
  });
}

/** @param {Row} row */
function add(row) {
  state.open = state.open.filter((open) => open.id !== row.id);
  if (!insert(state.rows, row)) return;
  if (!state.following) state.fresh += 1;
  announceSoon();
  if (state.chosen === row.id) void choose(row.id);
}

let newRows = 0;
let announcing = false;
function announceSoon() {
  newRows += 1;
  if (announcing || !state.following) return;
  announcing = true;
  setTimeout(() => {
    announcing = false;
    if (newRows) say(`${newRows} new`);
    newRows = 0;
  }, 5000);
}

/** Opens an exchange. @param {number | null} id */
export async function choose(id) {
  const same = id === state.chosen;
  Object.assign(state, { chosen: id, detailError: null, menu: false });
  if (!same) Object.assign(state, { editing: null, draft: null });
  if (id === null) {
    Object.assign(state, { detail: null, comparing: false });
    remember();
    return draw();
  }
  draw();
  try {
    const found = await api.read(`/api/exchanges/${id}`);
    if (state.chosen !== id) return;
    set({ detail: found, send: Math.max(0, (found.sends?.length ?? 1) - 1), comparing: !!state.other && state.other.id !== id });
  } catch (error) {
    set({ detail: null, detailError: error instanceof Error ? error.message : String(error) });
  }
  remember();
}

/** @param {string} filter */
export function setFilter(filter) {
  set({ filter, following: true, fresh: 0, view: 'traffic' });
  remember();
  void load();
}

export function pause() {
  state.paused = !state.paused;
  if (!state.paused) for (const row of state.held.splice(0)) add(row);
  say(state.paused ? 'Paused' : 'Going on');
  draw();
}

export const clear = () => attempt(async () => void (await api.remove('/api/exchanges')));

/** @param {number} id @param {object} [edits] */
export const replay = (id, edits) =>
  attempt(async () => {
    const done = await api.post(`/api/exchanges/${id}/replay`, edits);
    notice([`Sent again: ${done.status}.`, ...done.notes].join(' '));
    set({ editing: null });
    if (done.id) await choose(done.id);
  });

/** @param {import('./types').Edit} edit @param {number} id */
export const replayEdited = (edit, id) => replay(id, { method: edit.method, url: edit.url, headers: pairs(edit.headers), body: edit.body });

/** @param {import('./types').Detail} found */
export const beginEdit = (found) => set({ editing: fields(found), menu: false, draft: null, comparing: false });

/** @param {import('./types').Detail} found */
export const draft = (found) => set({ draft: draftOf(found, credentials()), menu: false, editing: null, comparing: false });

/** Names of credentials that rules use. */
function credentials() {
  const names = new Set(/** @type {string[]} */ ([]));
  const walk = (/** @type {import('./types').Rule[]} */ rules) => rules.forEach((rule) => { rule.credentials.forEach((name) => names.add(name)); walk(rule.rules); });
  walk(state.rules?.rules ?? []);
  return [...names];
}

/** @param {string} text @param {string} what */
export async function copy(text, what) {
  set({ menu: false });
  try {
    await navigator.clipboard.writeText(text);
    notice(`${what} copied`);
  } catch {
    notice('The browser does not let this page use the clipboard');
  }
}

/** @param {number} id */
export const copyCurl = (id) => attempt(async () => copy((await api.text(`/api/exchanges/${id}/curl`)).trimEnd(), 'curl'));

/** @param {number} id */
export const copyHar = (id) => attempt(async () => copy(await api.text(`/api/har?filter=id:${id}`), 'HAR'));

/** Marks an exchange for a comparison with the next one that is opened. @param {import('./types').Detail} found */
export function mark(found) {
  set({ other: found, menu: false, comparing: false });
  say('Choose the exchange to compare with');
}

/** @param {File} file */
export const importHar = (file) =>
  attempt(async () => {
    const done = await api.send('/api/har', await file.text());
    notice(`${done.imported} entries read. They are under is:imported.`);
    setFilter('is:imported');
  });

// ── Facts of the proxy ──

export async function refreshFacts() {
  try {
    const [status, rules, tokens] = await Promise.all([api.read('/api/status'), api.read('/api/rules'), api.tokens('list')]);
    set({ status, rules, tokens, login: state.login ?? status.logins[0] ?? null });
  } catch (error) {
    if (error instanceof api.Refusal && error.status === 401) set({ lost: error.message });
  }
}

let wondering = 0;

/** Asks which rule `METHOD URL` meets, soon after the last key. @param {string} text */
export function wonder(text) {
  state.wonder = text;
  clearTimeout(wondering);
  wondering = window.setTimeout(async () => {
    const found = /^(?:([A-Za-z]+)\s+)?(\S+)$/.exec(text.trim());
    if (!found) return set({ answer: null, wonderError: null });
    const url = found[2].includes('://') ? found[2] : `https://${found[2]}`;
    try {
      set({ answer: await api.read(`/api/explain?method=${found[1] ?? 'GET'}&url=${encodeURIComponent(url)}`), wonderError: null });
    } catch (error) {
      set({ answer: null, wonderError: error instanceof Error ? error.message : String(error) });
    }
  }, 200);
}

export const reload = () =>
  attempt(async () => {
    try {
      notice((await api.post('/api/reload')).message);
    } finally {
      await refreshFacts();
    }
  });

/** @param {string} what @param {string} credential */
export const token = (what, credential) =>
  attempt(async () => {
    set({ asked: null });
    const done = await api.tokens(what, { credential, client: null });
    notice(done.message ?? 'Done');
    await refreshFacts();
  });

/** @param {string} credential */
export const login = (credential) =>
  attempt(async () => {
    const pending = await api.tokens('login', { credential, client: null });
    set({ login: pending });
    try {
      for (let turn = 0; turn < 60 && state.login?.id === pending.id; turn += 1) {
        const done = await api.tokens('await', { id: pending.id, seconds: 10 });
        if (done.state === 'pending') continue;
        notice(`${credential} is logged in`);
        return;
      }
    } finally {
      set({ login: null });
      await refreshFacts();
    }
  });

// ── Place ──

export function remember() {
  const place = new URLSearchParams();
  if (state.view !== 'traffic') place.set('view', state.view);
  if (state.filter) place.set('filter', state.filter);
  if (state.chosen) place.set('x', String(state.chosen));
  if (state.tab !== 'overview') place.set('tab', state.tab);
  history.replaceState(null, '', place.size ? `/?${place}` : '/');
}

export function recall() {
  const place = new URLSearchParams(location.search);
  const view = place.get('view') ?? 'traffic';
  const tab = place.get('tab') ?? 'overview';
  Object.assign(state, { view: VIEWS.includes(view) ? view : 'traffic', filter: place.get('filter') ?? '', tab: TABS.includes(tab) ? tab : 'overview' });
  const chosen = Number(place.get('x'));
  if (chosen > 0) void choose(chosen);
}

/** @param {string} view */
export function show(view) {
  set({ view });
  remember();
  if (view !== 'traffic') void refreshFacts();
}

/** @param {string} tab */
export function setTab(tab) {
  set({ tab, editing: null, draft: null, comparing: false });
  remember();
}

export function back() {
  const id = state.chosen;
  void choose(null);
  requestAnimationFrame(() => requestAnimationFrame(() => /** @type {HTMLElement | null} */ (document.querySelector(`[data-x="${id}"]`))?.focus()));
}
