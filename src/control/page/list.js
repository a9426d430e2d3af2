// The list of exchanges: virtual, follows the newest until one scrolls.

import { html, nothing } from './lit-html.js';
import { choose, clear, importHar, pause, setFilter } from './act.js';
import { clock, duration, outcome, quiet, scale, sendName, size, took } from './format.js';
import { bar, button, cred, icon, waterfall } from './parts.js';
import { lines, merged, offsets, shown, words } from './rows.js';
import { draw, set, state } from './state.js';

/** @typedef {import('./types').Row} Row */
/** @typedef {import('./types').Line} Line */

const WIDE = { row: 28, send: 24, gap: 22 };
const NARROW = { row: 54, send: 30, gap: 26 };
const SPARE = 12;
const narrow = window.matchMedia('(max-width: 860px)');

let top = 0;
let height = 600;
/** @type {number | null} the exchange that a key went to */ let wanted = null;
/** What the last drawing saw. */
const seen = { rows: /** @type {Row[]} */ ([]), all: /** @type {Line[]} */ ([]), at: new Float64Array(1) };

/** Everything in the list, by number. */
export const everything = () => merged(state.rows, state.open);

/** @type {unknown[]} what the last measurement was made of */ let made = [];

/** Scrolling changes none of this, so that most frames need not measure again. */
function measure() {
  const of = [state.rows, state.rows.length, state.rows[0]?.id, state.rows.at(-1)?.id, state.open, state.detail, state.unfolded.size, narrow.matches, state.chosen];
  if (of.every((one, at) => one === made[at])) return;
  made = of;
  seen.rows = everything();
  seen.all = lines(seen.rows, state.unfolded, state.detail);
  seen.at = offsets(seen.all, narrow.matches ? NARROW : WIDE);
}

/** Brings an exchange into view with the next drawing. @param {number} id */
export function bring(id) {
  wanted = id;
}

/** After drawing: stay at the end, or go where a key went. */
export function settle() {
  const box = document.querySelector('.rows');
  if (!(box instanceof HTMLElement) || !seen.all.length) return;
  if (box.clientHeight !== height) {
    height = box.clientHeight;
    draw();
  }
  const end = seen.at[seen.at.length - 1];
  if (wanted !== null) {
    const index = seen.all.findIndex((line) => line.kind === 'row' && line.row.id === wanted);
    const focused = document.activeElement?.closest('[role=row]');
    if (index >= 0) {
      if (seen.at[index] < box.scrollTop) box.scrollTop = seen.at[index];
      else if (seen.at[index + 1] > box.scrollTop + height) box.scrollTop = seen.at[index + 1] - height;
    }
    const row = /** @type {HTMLElement | null} */ (box.querySelector(`[data-x="${wanted}"]`));
    if (focused || document.activeElement === document.body) row?.focus({ preventScroll: true });
    if (row || index < 0) wanted = null;
  } else if (state.following && box.scrollTop + height < end - 1) {
    box.scrollTop = end;
  }
}

/** @param {Event} event */
function scrolled(event) {
  const box = /** @type {HTMLElement} */ (event.currentTarget);
  top = box.scrollTop;
  height = box.clientHeight;
  const atEnd = top + height >= box.scrollHeight - 4;
  if (state.following !== atEnd) {
    state.following = atEnd;
    if (atEnd) state.fresh = 0;
  }
  draw();
}

export function traffic() {
  measure();
  const count = seen.all.length;
  const end = seen.at[count] ?? 0;
  const from = state.following ? Math.max(0, end - height) : Math.min(top, Math.max(0, end - height));
  const part = shown(seen.at, from, height, SPARE);
  const visible = seen.all.slice(part.from, part.to);
  const step = scale(visible.filter((line) => line.kind === 'row').map((line) => line.row));
  const chips = words(state.filter);
  return html`<section class="pane list" aria-label="Exchanges">
    <div class="filter"><form class="query ${state.filterError ? 'wrong' : ''}" role="search" @submit=${(/** @type {Event} */ event) => { event.preventDefault(); entered(); }}>
      ${icon('find')}
      ${chips.map((chip, at) => html`<span class="chip"><span class="cut">${chip}</span><button type="button" aria-label="Drop ${chip}" @click=${() => drop(at)}>${icon('cross')}</button></span>`)}
      <input id="filter" type="text" autocomplete="off" spellcheck="false" placeholder=${chips.length ? '' : 'host: status: rule: cred: or any text'}
        aria-label="Filter" aria-describedby="filter-note" aria-invalid=${state.filterError ? 'true' : 'false'} @change=${entered} @keydown=${typed}>
      <kbd aria-hidden="true">/</kbd></form>
      <span class="shown">${seen.rows.length.toLocaleString('en')} shown</span></div>
    <div>${state.filterError ? html`<p id="filter-note" class="wrongly" role="alert">${state.filterError}</p>` : nothing}
    <div class="cols" aria-hidden="true"><span>Time</span><span>Method</span><span>Host and path</span><span>Status</span><span class="num">Took</span><span class="num">Size</span><span>Credential</span><span class="num">${duration(step)}</span></div></div>
    ${count ? html`<div class="rows" role="treegrid" aria-label="Exchanges, newest last" aria-rowcount=${count} @scroll=${scrolled}>
      <div class="spacer" role="presentation" data-height=${end}><div class="inner" role="presentation" data-top=${seen.at[part.from]}>${visible.map((line, at) => lineOf(line, part.from + at, step))}</div></div></div>` : html`<div class="rows" tabindex="0">${empty()}</div>`}
    <footer class="foot">
      <button type="button" class="btn follow ${state.following ? 'ink' : ''}" aria-pressed=${state.following} @click=${() => set({ following: true, fresh: 0 })}>${icon('down')}${state.following ? 'Following' : state.fresh ? `${state.fresh} new` : 'Follow'}</button>
      <span class="opt">${size(state.bytes)} kept${state.notKept ? `, ${state.notKept.toLocaleString('en')} came too fast` : ''}</span>
      <span class="key opt"><svg viewBox="0 0 14 6" aria-hidden="true"><rect class="w-ours" y="1" width="14" height="4"></rect></svg>ours</span>
      <span class="end">
        <button type="button" class="btn ${state.paused ? 'ink' : ''}" aria-pressed=${state.paused} @click=${pause}>${icon(state.paused ? 'play' : 'pause')}${state.paused ? `Go on${state.held.length ? `, ${state.held.length} wait` : ''}` : 'Pause'}</button>
        <details class="files"><summary class="btn">${icon('file')}Files</summary><div class="menu" @click=${closeFiles}>
          <a class="btn" href="/api/har?filter=${encodeURIComponent(state.filter)}" download="countersign.har">Save as HAR</a>
          <a class="btn" href="/api/csv?filter=${encodeURIComponent(state.filter)}" download="countersign.csv">Save as CSV</a>
          <label class="btn">Read a HAR file<input class="sr" type="file" accept=".har,application/json" @change=${chosen}></label></div></details>
        ${button('clear', 'Clear', clear)}
      </span>
    </footer>
  </section>`;
}

/** Puts the geometry in place: attributes of style are against the page's policy, properties are not. */
export function geometry() {
  const spacer = document.querySelector('.spacer');
  const inner = document.querySelector('.inner');
  if (spacer instanceof HTMLElement) spacer.style.setProperty('height', `${spacer.dataset.height}px`);
  if (inner instanceof HTMLElement) inner.style.setProperty('transform', `translateY(${inner.dataset.top}px)`);
}

/** @param {Event} event */
function closeFiles(event) {
  if (/** @type {HTMLElement} */ (event.target).closest('a')) /** @type {HTMLElement} */ (event.currentTarget).closest('details')?.removeAttribute('open');
}

/** @param {Event} event */
function chosen(event) {
  const field = /** @type {HTMLInputElement} */ (event.currentTarget);
  const file = field.files?.[0];
  field.closest('details')?.removeAttribute('open');
  if (file) void importHar(file);
  field.value = '';
}

function empty() {
  if (!state.loaded) return html`<p class="lead dim">Reading what is recorded.</p>`;
  if (state.filter) return html`<div class="lead"><p>Nothing matches.</p><p class="gap-s">${button('cross', 'Drop the filter', () => setFilter(''), 'edge')}</p></div>`;
  return html`<div class="lead"><p>No traffic yet.</p><p class="dim gap-s">Point a tool at the proxy: <code>eval "$(countersign env)"</code></p><p class="gap-s">${button('', 'Setup', () => set({ view: 'setup' }), 'edge')}</p></div>`;
}

function entered() {
  const field = /** @type {HTMLInputElement} */ (document.querySelector('#filter'));
  const text = field.value.trim();
  if (!text) return;
  field.value = '';
  setFilter([state.filter, text].filter(Boolean).join(' '));
}

/** @param {KeyboardEvent} event */
function typed(event) {
  const field = /** @type {HTMLInputElement} */ (event.currentTarget);
  const chips = words(state.filter);
  if (event.key === 'Backspace' && !field.value && chips.length) {
    field.value = chips[chips.length - 1];
    drop(chips.length - 1);
    event.preventDefault();
  }
}

/** @param {number} at */
function drop(at) {
  setFilter(words(state.filter).filter((_, index) => index !== at).join(' '));
}

/** @param {Line} line @param {number} at @param {number} step */
function lineOf(line, at, step) {
  if (line.kind === 'gap') return html`<div class="quiet" role="presentation">${quiet(line.gap ?? 0)}</div>`;
  return line.kind === 'send' ? sendLine(line, at, step) : rowLine(line.row, at, step);
}

/** @param {Row} row @param {number} at @param {number} step */
function rowLine(row, at, step) {
  const how = outcome(row);
  const isChosen = state.chosen === row.id;
  const upward = row.sent_bytes > row.received_bytes;
  const opens = row.sends + row.own_sends > 1;
  const focusable = isChosen || (state.chosen === null && at === seen.all.length - 1);
  return html`<div role="row" class="row ${row.credentials.length || row.outcome !== 'answered' ? '' : 'mute'}" tabindex=${focusable ? 0 : -1}
      aria-rowindex=${at + 1} aria-level="1" aria-selected=${isChosen} aria-expanded=${opens ? String(isChosen && state.unfolded.has(row.id)) : nothing}
      data-x=${row.id} @click=${() => open(row)} @keydown=${(/** @type {KeyboardEvent} */ event) => event.key === 'Enter' && open(row)}>
    <span role="gridcell" class="time">${clock(row.started_ms)}</span>
    <span role="gridcell" class="verb cut" title=${row.method}>${row.kind === 'tunnel' ? 'TUNNEL' : row.method}</span>
    <span role="gridcell" class="target" title=${row.url}><span class="host">${row.host}</span><span class="path">${row.path}</span></span>
    <span role="gridcell" class="stat">${icon(how.glyph, how.tone)}<span>${how.text}<span class="sr"> ${how.spoken}</span></span>${how.note ? html`<small>${how.note}</small>` : nothing}</span>
    <span role="gridcell" class="num dur">${duration(row.duration_ms)}</span>
    <span role="gridcell" class="num size">${upward ? `↑ ${size(row.sent_bytes)}` : size(row.received_bytes)}</span>
    <span role="gridcell" class="credcell">${row.credentials.length ? cred(row.credentials.join(' + ')) : html`<span class="dim">none</span>`}</span>
    ${waterfall(row, step)}
  </div>`;
}

/** @param {Row} row */
function open(row) {
  const opens = row.sends + row.own_sends > 1;
  if (state.chosen === row.id && opens) {
    if (!state.unfolded.delete(row.id)) state.unfolded.add(row.id);
    return draw();
  }
  if (opens) state.unfolded.add(row.id);
  void choose(row.id);
}

/** @param {Line} line @param {number} index @param {number} step */
function sendLine(line, index, step) {
  const send = /** @type {import('./types').Send} */ (line.send);
  const at = line.at ?? 0;
  const ours = send.kind !== 'request';
  const how = outcome({ outcome: 'answered', status: send.response?.status ?? null, sends: 1 });
  const time = took(send);
  const target = `${(send.target ?? '').replace(/^https?:\/\//, '')}${send.request?.target?.startsWith('/') ? send.request.target : ''}`;
  const name = ours ? target || 'tunnel' : sendName(state.detail?.sends ?? [], at);
  return html`<div role="row" class="row send of ${ours ? 'ours' : ''}" tabindex="-1" aria-rowindex=${index + 1} aria-level="2" aria-selected=${state.send === at} @click=${() => set({ send: at })}>
    <span role="gridcell" class="time"></span><span role="gridcell" class="verb cut">${send.request?.method ?? ''}</span>
    <span role="gridcell" class="target"><span class="path">${name}</span></span>
    <span role="gridcell" class="stat">${icon(how.glyph, how.tone)}<span>${how.text}</span></span>
    <span role="gridcell" class="num dur">${duration(time)}</span><span role="gridcell" class="num size">${size(send.response?.body_bytes ?? 0)}</span>
    <span role="gridcell" class="credcell"></span>${bar(ours ? 'ours' : 'wait', send.at_ms ?? 0, time, step)}
  </div>`;
}
