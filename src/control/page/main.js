// The page: its frame, and what keys do.

import { html, nothing, render } from './lit-html.js';
import { TABS, VIEWS, back, choose, clear, copyCurl, load, pause, recall, refreshFacts, replay, setTab, show } from './act.js';
import { detail } from './detail.js';
import { button, icon } from './parts.js';
import { bring, everything, geometry, settle, traffic } from './list.js';
import { rules } from './rules.js';
import { setup } from './setup.js';
import { arrows, draw, drawWith, set, state } from './state.js';
import { needy, tokens } from './tokens.js';

const NAMES = { traffic: 'Traffic', tokens: 'Tokens', rules: 'Rules', setup: 'Setup' };
const app = /** @type {HTMLElement} */ (document.getElementById('app'));

function page() {
  const status = state.status;
  const counts = { traffic: 0, tokens: needy(state.tokens ?? []), rules: state.rules?.reload_error ? 1 : 0, setup: 0 };
  return html`
    <header class="top">
      <a class="brand" href="/" aria-label="Countersign">${icon('mark', 'mark')}<span class="text">Countersign</span></a>
      <div class="views" role="tablist" aria-label="Views" @keydown=${arrows}>
        ${VIEWS.map((view) => {
          const count = counts[/** @type {keyof typeof counts} */ (view)];
          return html`<button type="button" role="tab" id="t-${view}" aria-controls="view" aria-selected=${state.view === view} tabindex=${state.view === view ? 0 : -1} @click=${() => show(view)}>
            ${icon(`i-${view}`, 'icon')}<span>${NAMES[/** @type {keyof typeof NAMES} */ (view)]}</span>${
              count ? html`<span class="count"><span aria-hidden="true">${view === 'rules' ? '!' : count}</span><span class="sr">${view === 'rules' ? ', refused' : `, ${count} need you`}</span></span>` : nothing}</button>`;
        })}
      </div>
      <div class="where">
        ${status ? html`<span class="opt">${status.rules} ${status.rules === 1 ? 'rule' : 'rules'}, ${status.hosts} ${status.hosts === 1 ? 'host' : 'hosts'}</span>` : nothing}
        <span title=${state.lost ?? 'The proxy runs'}>${icon(state.lost ? 'warn' : 'ok', state.lost ? 'warn' : 'ok')}<code>${state.lost ? 'lost' : (status?.proxy ?? '').replace(/^https?:\/\//, '')}</code></span>
        ${status?.environment ? html`<span class="env" title="Environment">${status.environment}</span>` : nothing}
        <button type="button" class="btn" aria-label="Keys" aria-expanded=${state.help} @click=${() => set({ help: !state.help })}>?</button>
      </div>
    </header>
    <div class="banners">
      ${state.lost ? html`<p class="banner warn" role="alert">${icon('warn')}<span>${state.lost} What is here stays readable.</span></p>` : nothing}
      ${state.rules?.reload_error && state.view !== 'rules' ? html`<p class="banner bad" role="alert">${icon('bad')}<span>The file was refused, the old rules stay in force.</span>${button('', 'Show why', () => show('rules'))}</p>` : nothing}
      ${state.other && !state.comparing ? html`<p class="banner">${icon('ok', 'ink')}<span>Choose the exchange to compare with ${state.other.id}.</span>${button('', 'Leave it', () => set({ other: null }))}</p>` : nothing}
      ${state.notice ? html`<p class="banner"><span>${state.notice}</span>${button('', 'Close', () => set({ notice: null }))}</p>` : nothing}
      ${state.help ? help() : nothing}
    </div>
    ${view()}`;
}

function view() {
  const tab = { id: 'view', label: `t-${state.view}` };
  switch (state.view) {
    case 'tokens': return html`<main class="view ${state.token ? 'split side sheet' : ''}" id=${tab.id} role="tabpanel" aria-labelledby=${tab.label}>${tokens()}</main>`;
    case 'rules': return html`<main class="view split side" id=${tab.id} role="tabpanel" aria-labelledby=${tab.label}>${rules()}</main>`;
    case 'setup': return html`<main class="view" id=${tab.id} role="tabpanel" aria-labelledby=${tab.label}>${setup()}</main>`;
    default: return state.loaded && !everything().length && !state.filter && state.status?.exchanges.total === 0 && state.chosen === null
      ? html`<main class="view" id=${tab.id} role="tabpanel" aria-labelledby=${tab.label}>${setup()}</main>`
      : html`<main class="view ${state.chosen === null ? '' : 'split sheet'}" id=${tab.id} role="tabpanel" aria-labelledby=${tab.label}>${traffic()}${state.chosen === null ? nothing : detail()}</main>`;
  }
}

const KEYS = [
  ['j k', 'next, previous'], ['enter', 'open'], ['→ ←', 'unfold, fold sends'], ['esc', 'back'], ['/', 'filter'],
  ['1 – 6', 'tabs'], ['c', 'copy as curl'], ['r', 'replay'], ['p', 'pause'], ['x', 'clear'],
  ['g t', 'tokens'], ['g r', 'rules'], ['g s', 'setup'], ['g l', 'traffic'], ['?', 'this help'],
];

const help = () => html`<section class="help" aria-label="Keys"><dl>${KEYS.map(([key, what]) => html`<div><dt><kbd>${key}</kbd></dt><dd>${what}</dd></div>`)}</dl></section>`;

// ── Keys ──

let afterG = false;

document.addEventListener('keydown', (event) => {
  const target = /** @type {HTMLElement} */ (event.target);
  if (event.key === 'Escape') return escape(target);
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
    case '?': return set({ help: !state.help });
    case '/':
      event.preventDefault();
      if (state.view !== 'traffic') show('traffic');
      return void requestAnimationFrame(() => requestAnimationFrame(() => /** @type {HTMLElement | null} */ (document.querySelector('#filter'))?.focus()));
    case 'p': return pause();
    case 'x': return void clear();
    case 'c': return state.chosen === null ? undefined : void copyCurl(state.chosen);
    case 'r': return state.chosen === null ? undefined : void replay(state.chosen);
    default:
  }
  if (state.view === 'traffic') walk(event, target);
});

/** @param {HTMLElement} target */
function escape(target) {
  if (target.matches('input, textarea') && !state.editing) return target.blur();
  if (state.help || state.menu) return set({ help: false, menu: false });
  if (state.editing || state.draft !== null) return set({ editing: null, draft: null });
  if (state.other) return set({ other: null, comparing: false });
  if (state.view === 'tokens' && state.token) return set({ token: null });
  if (state.chosen !== null) back();
}

/** Keys of the list. @param {KeyboardEvent} event @param {HTMLElement} target */
function walk(event, target) {
  const onRow = target.closest('[role=row]');
  const down = event.key === 'j' || (event.key === 'ArrowDown' && onRow);
  const up = event.key === 'k' || (event.key === 'ArrowUp' && onRow);
  if (down || up) {
    event.preventDefault();
    return move(down ? 1 : -1);
  }
  if (!onRow || state.chosen === null) return;
  if (event.key === 'ArrowRight') state.unfolded.add(state.chosen);
  else if (event.key === 'ArrowLeft') state.unfolded.delete(state.chosen);
  else return;
  draw();
}

/** @param {number} step */
function move(step) {
  const rows = everything();
  if (!rows.length) return;
  const at = rows.findIndex((row) => row.id === state.chosen);
  const next = at < 0 ? (step > 0 ? 0 : rows.length - 1) : Math.min(rows.length - 1, Math.max(0, at + step));
  state.following = false;
  bring(rows[next].id);
  void choose(rows[next].id);
}

// ── Start ──

let sheet = false;

/** On a narrow screen the detail is a sheet, and the keyboard goes there with the eyes. */
function follow() {
  const opened = state.view === 'traffic' && state.detail !== null && state.detail.id === state.chosen;
  if (opened && !sheet && window.matchMedia('(max-width: 860px)').matches) /** @type {HTMLElement | null} */ (document.querySelector('.back'))?.focus();
  sheet = opened;
}

drawWith(() => {
  render(page(), app);
  geometry();
  settle();
  follow();
});
app.replaceChildren();
recall();
draw();
void refreshFacts();
void load();
// Countdowns and counts go on.
setInterval(() => {
  if (!document.hidden && (state.view === 'tokens' || state.tab === 'auth')) draw();
}, 1000);
setInterval(() => {
  if (!document.hidden) void refreshFacts();
}, 5000);
window.addEventListener('resize', draw);
document.addEventListener('click', (event) => {
  const target = /** @type {HTMLElement} */ (event.target);
  if (state.menu && !target.closest('.acts')) set({ menu: false });
  const files = document.querySelector('.files[open]');
  if (files && !target.closest('.files')) files.removeAttribute('open');
});
