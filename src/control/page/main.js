// The page: its state, its views, and what keys do.

import { html, nothing, render } from './lit-html.js';
import * as api from './api.js';
import { duration } from './format.js';
import { icon } from './parts.js';
import { traffic, rowAt, visibleRows, scrollTo } from './list.js';
import { detail, TABS } from './detail.js';
import { tokens, needy } from './tokens.js';
import { rules } from './rules.js';
import { setup } from './setup.js';

const VIEWS = ['traffic', 'tokens', 'rules', 'setup'];

/** Everything that is shown. */
export const state = {
  view: 'traffic',
  filter: '',
  /** @type {string | null} */ filterError: null,
  /** @type {any[]} rows by number, oldest first */ rows: [],
  /** @type {any[]} */ open: [],
  notKept: 0,
  bytes: 0,
  loaded: false,
  following: true,
  fresh: 0,
  paused: false,
  /** @type {any[]} */ held: [],
  /** @type {number | null} */ chosen: null,
  /** @type {any} */ detail: null,
  /** @type {string | null} */ detailError: null,
  tab: 'overview',
  send: 0,
  /** @type {Set<number>} */ unfolded: new Set(),
  /** @type {number | null} */ against: null,
  /** @type {any} */ other: null,
  /** @type {any} */ editing: null,
  /** @type {any} */ status: null,
  /** @type {any} */ rules: null,
  /** @type {any[] | null} */ tokens: null,
  /** @type {string | null} */ token: null,
  /** @type {string | null} */ asked: null,
  /** @type {any} */ login: null,
  lost: false,
  /** @type {string | null} */ notice: null,
  help: false,
  bodyAs: 'pretty',
};

const app = /** @type {HTMLElement} */ (document.getElementById('app'));
const voice = /** @type {HTMLElement} */ (document.getElementById('say'));
let pending = false;

/** Draws soon. */
export function draw() {
  if (pending) return;
  pending = true;
  requestAnimationFrame(() => {
    pending = false;
    render(page(), app);
    scrollTo(state);
  });
}

/** Says something to a screen reader. @param {string} text */
export function say(text) {
  voice.textContent = text;
}

/** Shows a remark until the next one. @param {string} text */
export function notice(text) {
  state.notice = text;
  say(text);
  draw();
}

/** Runs work whose failure a person should see. @param {() => Promise<void>} work */
export async function attempt(work) {
  try {
    await work();
  } catch (error) {
    notice(error instanceof Error ? error.message : String(error));
  }
  draw();
}

// ── Traffic ──

const MAX_ROWS = 5000;
let stop = () => {};

/** Lists anew and listens. */
export async function load() {
  stop();
  const filter = state.filter;
  await attempt(async () => {
    try {
      const listed = await api.read(`/api/exchanges?limit=${MAX_ROWS}&filter=${encodeURIComponent(filter)}`);
      state.filterError = null;
      state.rows = listed.exchanges.filter((/** @type {any} */ row) => row.outcome !== 'open').reverse();
      state.open = listed.exchanges.filter((/** @type {any} */ row) => row.outcome === 'open').reverse();
      state.notKept = listed.not_kept;
      state.bytes = listed.bytes;
      state.loaded = true;
    } catch (error) {
      if (!(error instanceof api.Refusal)) throw error;
      state.filterError = error.message;
      state.loaded = true;
      return;
    }
    stop = api.listen(filter, {
      row: (row) => {
        if (state.paused) state.held.push(row);
        else add(row);
        draw();
      },
      running: (rows) => {
        state.open = rows;
        draw();
      },
      cleared: () => {
        Object.assign(state, { rows: [], open: [], held: [], fresh: 0, chosen: null, detail: null });
        draw();
      },
      notice: ({ text }) => {
        notice(text);
        void refreshFacts();
      },
      resync: () => void load(),
      lost: () => {
        state.lost = true;
        draw();
      },
      found: () => {
        const was = state.lost;
        state.lost = false;
        if (was) void refreshFacts();
        draw();
      },
    });
  });
}

/** @param {any} row */
function add(row) {
  const rows = state.rows;
  if (rows.some((known) => known.id === row.id && known.sequence === row.sequence)) return;
  let at = rows.length;
  while (at > 0 && rows[at - 1].id > row.id) at -= 1;
  rows.splice(at, 0, row);
  if (rows.length > MAX_ROWS) rows.shift();
  state.open = state.open.filter((open) => open.id !== row.id);
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
  state.chosen = id;
  state.detailError = null;
  state.editing = null;
  if (id === null) {
    state.detail = null;
    remember();
    return draw();
  }
  draw();
  try {
    const found = await api.read(`/api/exchanges/${id}`);
    if (state.chosen !== id) return;
    state.detail = found;
    state.send = Math.max(0, (found.sends?.length ?? 1) - 1);
  } catch (error) {
    state.detail = null;
    state.detailError = error instanceof Error ? error.message : String(error);
  }
  remember();
  draw();
}

/** @param {string} filter */
export function setFilter(filter) {
  state.filter = filter;
  state.following = true;
  state.fresh = 0;
  remember();
  void load();
}

export function pause() {
  state.paused = !state.paused;
  if (!state.paused) {
    for (const row of state.held.splice(0)) add(row);
  }
  say(state.paused ? 'Paused' : 'Going on');
  draw();
}

export const clear = () => attempt(async () => void (await api.remove('/api/exchanges')));

/** @param {number} id @param {any} [edits] */
export const replay = (id, edits) =>
  attempt(async () => {
    const done = await api.post(`/api/exchanges/${id}/replay`, edits);
    notice([`Sent again: ${done.status}.`, ...done.notes].join(' '));
    state.editing = null;
    if (done.id) await choose(done.id);
  });

/** @param {string} text @param {string} what */
export async function copy(text, what) {
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
export const compare = (id) =>
  attempt(async () => {
    state.against = id;
    state.other = await api.read(`/api/exchanges/${id}`);
  });

// ── Facts of the proxy ──

export async function refreshFacts() {
  try {
    const [status, rules, tokens] = await Promise.all([api.read('/api/status'), api.read('/api/rules'), api.tokens('list')]);
    Object.assign(state, { status, rules, tokens });
  } catch (error) {
    if (error instanceof api.Refusal) state.notice = error.message;
  }
  draw();
}

// ── Place ──

function remember() {
  const place = new URLSearchParams();
  if (state.view !== 'traffic') place.set('view', state.view);
  if (state.filter) place.set('filter', state.filter);
  if (state.chosen) place.set('x', String(state.chosen));
  if (state.tab !== 'overview') place.set('tab', state.tab);
  history.replaceState(null, '', place.size ? `/?${place}` : '/');
}

function recall() {
  const place = new URLSearchParams(location.search);
  const view = place.get('view') ?? 'traffic';
  state.view = VIEWS.includes(view) ? view : 'traffic';
  state.filter = place.get('filter') ?? '';
  const tab = place.get('tab') ?? 'overview';
  state.tab = TABS.includes(tab) ? tab : 'overview';
  const chosen = Number(place.get('x'));
  if (chosen > 0) void choose(chosen);
}

/** @param {string} view */
export function show(view) {
  state.view = view;
  remember();
  if (view !== 'traffic') void refreshFacts();
  draw();
}

/** @param {string} tab */
export function setTab(tab) {
  state.tab = tab;
  remember();
  draw();
}

// ── The page ──

function page() {
  const status = state.status;
  const rulesNeed = state.rules?.reload_error ? 1 : 0;
  const counts = { traffic: 0, tokens: needy(state.tokens ?? []), rules: rulesNeed, setup: 0 };
  const names = { traffic: 'Traffic', tokens: 'Tokens', rules: 'Rules', setup: 'Setup' };
  return html`
    <header class="bar">
      <a class="brand" href="/" aria-label="Countersign">${icon('mark', 'ink')}<b>Countersign</b></a>
      <nav class="views" role="tablist" aria-label="Views" @keydown=${arrows}>
        ${VIEWS.map((view) => {
          const count = counts[/** @type {keyof typeof counts} */ (view)];
          return html`<button role="tab" id="t-${view}" aria-controls="${view}" aria-selected=${state.view === view}
            tabindex=${state.view === view ? 0 : -1} @click=${() => show(view)}>
            ${icon(`i-${view}`)}<span>${names[/** @type {keyof typeof names} */ (view)]}</span>${
              count ? html`<span class="count" title="${count} need you">${view === 'rules' ? '!' : count}</span>` : nothing}
          </button>`;
        })}
      </nav>
      <span class="facts">
        ${status ? html`<span class="wide">${status.rules} ${status.rules === 1 ? 'rule' : 'rules'}, ${status.hosts} ${status.hosts === 1 ? 'host' : 'hosts'}</span>` : nothing}
        <span class="light" title=${state.lost ? 'Lost the proxy, trying again' : 'The proxy runs'}>
          ${state.lost ? icon('warn', 'warn') : icon('ok', 'ok')}<code>${state.lost ? 'lost' : (status?.proxy ?? '')}</code>
        </span>
        ${status?.environment ? html`<span class="env">${status.environment}</span>` : nothing}
        <button class="quiet" aria-label="Help" aria-expanded=${state.help} @click=${() => { state.help = !state.help; draw(); }}>?</button>
      </span>
    </header>
    ${state.lost ? html`<p class="banner warn" role="alert">Lost the proxy, trying again. What is here stays readable.</p>` : nothing}
    ${state.rules?.reload_error && state.view !== 'rules'
      ? html`<p class="banner bad" role="alert">The configuration was refused, the old rules stay in force. <button class="link" @click=${() => show('rules')}>Show why</button></p>` : nothing}
    ${state.notice ? html`<p class="banner"><span>${state.notice}</span><button class="link" @click=${() => { state.notice = null; draw(); }}>Close</button></p>` : nothing}
    ${state.help ? help() : nothing}
    <main class="view ${state.view}" id=${state.view} role="tabpanel" aria-labelledby="t-${state.view}">${view()}</main>
  `;
}

function view() {
  switch (state.view) {
    case 'tokens': return tokens(state);
    case 'rules': return rules(state);
    case 'setup': return setup(state);
    default: return html`${traffic(state)}${state.chosen === null ? nothing : detail(state)}`;
  }
}

const KEYS = [
  ['j k', 'next, previous'], ['enter', 'open'], ['→ ←', 'unfold, fold sends'], ['esc', 'back'], ['/', 'filter'],
  ['1 – 6', 'tabs'], ['c', 'copy as curl'], ['r', 'replay'], ['p', 'pause'], ['x', 'clear'],
  ['g t', 'tokens'], ['g r', 'rules'], ['g s', 'setup'], ['g l', 'traffic'], ['?', 'this help'],
];

function help() {
  return html`<section class="help" aria-label="Keys"><dl>${KEYS.map(([key, what]) => html`<div><dt><kbd>${key}</kbd></dt><dd>${what}</dd></div>`)}</dl></section>`;
}

/** Arrows move along a row of tabs. @param {KeyboardEvent} event */
export function arrows(event) {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!step) return;
  const tabs = [.../** @type {HTMLElement} */ (event.currentTarget).querySelectorAll('[role=tab], [role=radio]')];
  const at = tabs.indexOf(/** @type {Element} */ (document.activeElement));
  const next = /** @type {HTMLElement} */ (tabs[(at + step + tabs.length) % tabs.length]);
  next?.click();
  next?.focus();
  event.preventDefault();
  event.stopPropagation();
}

// ── Keys ──

let afterG = false;
document.addEventListener('keydown', (event) => {
  const target = /** @type {HTMLElement} */ (event.target);
  if (event.key === 'Escape') {
    if (target.matches('input, textarea')) return target.blur();
    if (state.help) state.help = false;
    else if (state.editing) state.editing = null;
    else if (state.against) Object.assign(state, { against: null, other: null });
    else if (state.chosen !== null) return back();
    return draw();
  }
  if (event.ctrlKey || event.metaKey || event.altKey || target.matches('input, textarea, select')) return;
  if (afterG) {
    afterG = false;
    const place = { t: 'tokens', r: 'rules', s: 'setup', l: 'traffic' }[event.key];
    if (place) show(place);
    return;
  }
  const tab = Number(event.key);
  if (tab >= 1 && tab <= TABS.length && state.chosen !== null) return setTab(TABS[tab - 1]);
  switch (event.key) {
    case 'g': afterG = true; return;
    case '?': state.help = !state.help; return draw();
    case '/':
      event.preventDefault();
      return /** @type {HTMLElement | null} */ (document.querySelector('#filter'))?.focus();
    case 'p': return pause();
    case 'x': return void clear();
    case 'c': return state.chosen === null ? undefined : void copyCurl(state.chosen);
    case 'r': return state.chosen === null ? undefined : void replay(state.chosen);
    default:
  }
  if (state.view !== 'traffic') return;
  const onRow = target.closest('[role=row]');
  switch (event.key) {
    case 'j': case 'ArrowDown': if (event.key === 'j' || onRow) { event.preventDefault(); move(1); } return;
    case 'k': case 'ArrowUp': if (event.key === 'k' || onRow) { event.preventDefault(); move(-1); } return;
    case 'ArrowRight': if (onRow && state.chosen !== null) { state.unfolded.add(state.chosen); draw(); } return;
    case 'ArrowLeft': if (onRow && state.chosen !== null) { state.unfolded.delete(state.chosen); draw(); } return;
    default:
  }
});

/** @param {number} step */
function move(step) {
  const rows = visibleRows(state);
  if (!rows.length) return;
  const at = rows.findIndex((row) => row.id === state.chosen);
  const next = at < 0 ? (step > 0 ? 0 : rows.length - 1) : Math.min(rows.length - 1, Math.max(0, at + step));
  state.following = false;
  void choose(rows[next].id);
  rowAt(next);
}

export function back() {
  const id = state.chosen;
  void choose(null);
  requestAnimationFrame(() => /** @type {HTMLElement | null} */ (document.querySelector(`[data-x="${id}"]`))?.focus());
}

app.replaceChildren();
recall();
draw();
void refreshFacts();
void load();
// Countdowns and counts go on.
setInterval(() => {
  if (state.view === 'tokens' && state.tokens) {
    for (const token of state.tokens) if (typeof token.expires_in === 'number') token.expires_in -= 1;
    draw();
  }
}, 1000);
setInterval(() => {
  if (!document.hidden) void refreshFacts();
}, 10_000);
window.addEventListener('resize', draw);
export { duration };
