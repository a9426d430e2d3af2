// The list of exchanges: virtual, follows the newest until one scrolls.

import { html, nothing } from './lit-html.js';
import { choose, clear, draw, pause, setFilter, state as page } from './main.js';
import { clock, duration, outcome, quiet, scale, sendName, size } from './format.js';
import { icon, waterfall } from './parts.js';

const ROW = 28;
const NARROW_ROW = 54;
const SPARE = 20;
/** A pause in the traffic that is worth a line. */
const GAP_MS = 5000;

let top = 0;
let height = 600;
let wanted = -1;

const rowHeight = () => (window.matchMedia('(max-width: 860px)').matches ? NARROW_ROW : ROW);

/** @param {any} state */
export const visibleRows = (state) => (state.open.length ? [...state.rows, ...state.open].sort((a, b) => a.id - b.id) : state.rows);

/** Lines: a row, one of its sends, or a gap. @param {any} state */
function lines(state) {
  const rows = visibleRows(state);
  const out = [];
  let last = 0;
  for (const row of rows) {
    if (last && row.started_ms - last > GAP_MS) out.push({ gap: row.started_ms - last });
    last = Math.max(last, row.started_ms + row.duration_ms);
    out.push({ row });
    if (state.unfolded.has(row.id) && state.detail?.id === row.id) {
      for (const [at, send] of (state.detail.sends ?? []).entries()) out.push({ row, send, at });
    }
  }
  return out;
}

/** Brings a row into view with the next drawing. @param {number} at */
export function rowAt(at) {
  wanted = at;
}

/** After drawing: keep to the end, or go where a key went. @param {any} state */
export function scrollTo(state) {
  const box = document.querySelector('.rows');
  if (!(box instanceof HTMLElement)) return;
  height = box.clientHeight;
  const spacer = box.querySelector('.spacer');
  const inner = box.querySelector('.inner');
  const unit = rowHeight();
  const count = lines(state).length;
  if (spacer instanceof HTMLElement) spacer.style.setProperty('height', `${count * unit}px`);
  if (inner instanceof HTMLElement) inner.style.setProperty('transform', `translateY(${firstShown(count) * unit}px)`);
  if (wanted >= 0) {
    const at = wanted * unit;
    if (at < box.scrollTop) box.scrollTop = at;
    else if (at + unit > box.scrollTop + height) box.scrollTop = at + unit - height;
    wanted = -1;
  } else if (state.following && box.scrollTop + height < count * unit - 1) {
    box.scrollTop = count * unit;
  }
}

/** @param {number} count */
function firstShown(count) {
  const unit = rowHeight();
  const first = page.following ? count - Math.ceil(height / unit) - SPARE : Math.floor(top / unit) - SPARE;
  return Math.max(0, Math.min(first, count));
}

/** @param {Event} event */
function scrolled(event) {
  const box = /** @type {HTMLElement} */ (event.currentTarget);
  top = box.scrollTop;
  height = box.clientHeight;
  const atEnd = top + height >= box.scrollHeight - 4;
  if (page.following !== atEnd) {
    page.following = atEnd;
    if (atEnd) page.fresh = 0;
  }
  draw();
}

function follow() {
  page.following = true;
  page.fresh = 0;
  draw();
}

/** @param {any} state */
export function traffic(state) {
  const all = lines(state);
  const first = firstShown(all.length);
  const shown = all.slice(first, first + Math.ceil(height / rowHeight()) + 2 * SPARE);
  const step = scale(shown.flatMap((line) => (line.row && !line.send ? [line.row] : [])));
  const chips = words(state.filter);
  return html`<section class="pane list" aria-label="Exchanges">
    <form class="filter ${state.filterError ? 'wrong' : ''}" role="search" @submit=${(/** @type {Event} */ event) => { event.preventDefault(); entered(); }}>
      ${icon('search')}
      ${chips.map((chip, at) => html`<span class="chip"><code>${chip}</code><button type="button" aria-label="Drop ${chip}" @click=${() => drop(at)}>×</button></span>`)}
      <input id="filter" type="text" autocomplete="off" spellcheck="false" placeholder=${chips.length ? '' : 'host: status: rule: cred: or any text'}
        aria-label="Filter" aria-describedby="filter-note" @change=${entered} @keydown=${typed}>
      <kbd aria-hidden="true">/</kbd>
    </form>
    <p id="filter-note" class="note ${state.filterError ? 'bad' : ''}">${state.filterError ?? ''}</p>
    <div class="heads" aria-hidden="true"><span>Time</span><span>Method</span><span>Host and path</span><span>Status</span><span class="num">Took</span><span class="num">Size</span><span>Credential</span><span class="num">${duration(step)}</span></div>
    <div class="rows" role="treegrid" aria-label="Exchanges, newest last" aria-rowcount=${all.length} tabindex="-1" @scroll=${scrolled}>
      ${all.length ? html`<div class="spacer"><div class="inner">${shown.map((line, at) => lineOf(line, first + at, step, state))}</div></div>` : empty(state)}
    </div>
    <footer class="foot">
      <button class="quiet ${state.following ? 'ink' : ''}" aria-pressed=${state.following} @click=${follow}>${state.following ? 'Following' : state.fresh ? `${state.fresh} new` : 'Follow'}</button>
      <span class="dim">${visibleRows(state).length} shown, ${size(state.bytes)} kept${state.notKept ? `, ${state.notKept} came too fast` : ''}</span>
      <span class="push"></span>
      <button class="quiet" aria-pressed=${state.paused} @click=${pause}>${state.paused ? `Go on${state.held.length ? `, ${state.held.length} wait` : ''}` : 'Pause'}</button>
      <a class="quiet" href="/api/har?filter=${encodeURIComponent(state.filter)}" download="countersign.har">HAR</a>
      <button class="quiet" @click=${clear}>Clear</button>
    </footer>
  </section>`;
}

/** @param {any} state */
function empty(state) {
  if (!state.loaded) return html`<p class="lead">Reading what is recorded.</p>`;
  if (state.filter) return html`<div class="lead"><p>Nothing matches.</p><button class="link" @click=${() => setFilter('')}>Drop the filter</button></div>`;
  return html`<div class="lead"><p>No traffic yet.</p><p class="dim">Point a tool at the proxy: <code>eval "$(countersign env)"</code></p></div>`;
}

/** The words of a filter, quotes kept together. @param {string} filter */
export const words = (filter) => filter.match(/(?:[^\s"]|"(?:\\.|[^"\\])*")+/g) ?? [];

function entered() {
  const field = /** @type {HTMLInputElement} */ (document.querySelector('#filter'));
  const text = field.value.trim();
  if (!text) return;
  field.value = '';
  setFilter([page.filter, text].filter(Boolean).join(' '));
}

/** @param {KeyboardEvent} event */
function typed(event) {
  const field = /** @type {HTMLInputElement} */ (event.currentTarget);
  const chips = words(page.filter);
  if (event.key === 'Backspace' && !field.value && chips.length) {
    field.value = chips[chips.length - 1];
    drop(chips.length - 1);
    event.preventDefault();
  }
}

/** @param {number} at */
function drop(at) {
  setFilter(words(page.filter).filter((_, index) => index !== at).join(' '));
}

/** @param {any} line @param {number} at @param {number} step @param {any} state */
function lineOf(line, at, step, state) {
  if (line.gap) return html`<div class="gap" role="presentation">${quiet(line.gap)}</div>`;
  return line.send ? sendLine(line, at) : rowLine(line.row, at, step, state);
}

/** @param {any} row @param {number} at @param {number} step @param {any} state */
function rowLine(row, at, step, state) {
  const how = outcome(row);
  const chosen = state.chosen === row.id;
  const credential = row.credentials?.length ? row.credentials.join(' + ') : '';
  const upward = row.sent_bytes > row.received_bytes;
  const tree = row.sends + row.own_sends > 1;
  const focusable = chosen || (state.chosen === null && at === 0);
  return html`<div role="row" class="row ${row.rule || row.outcome === 'refused' ? '' : 'mute'} ${chosen ? 'chosen' : ''}" tabindex=${focusable ? 0 : -1}
      aria-rowindex=${at + 1} aria-level="1" aria-selected=${chosen} aria-expanded=${tree ? String(state.unfolded.has(row.id)) : nothing}
      data-x=${row.id} @click=${() => open(row)} @keydown=${(/** @type {KeyboardEvent} */ event) => event.key === 'Enter' && open(row)}>
    <span role="gridcell" class="time">${clock(row.started_ms)}</span>
    <span role="gridcell" class="verb">${row.method}</span>
    <span role="gridcell" class="target" title=${row.url}><span class="host">${row.host}</span><span class="path">${row.path}</span></span>
    <span role="gridcell" class="stat">${icon(how.glyph, how.tone)}<span>${how.text}<span class="unseen"> ${how.spoken}</span></span>${how.note ? html`<small>${how.note}</small>` : nothing}</span>
    <span role="gridcell" class="num took">${duration(row.duration_ms)}</span>
    <span role="gridcell" class="num size">${upward ? `↑ ${size(row.sent_bytes)}` : size(row.received_bytes)}</span>
    <span role="gridcell" class="credcell">${credential ? html`<span class="cred">${credential}</span>` : html`<span class="dim">none</span>`}</span>
    ${waterfall(row, step)}
  </div>`;
}

/** @param {any} row */
function open(row) {
  if (page.chosen === row.id && row.sends + row.own_sends > 1) {
    if (!page.unfolded.delete(row.id)) page.unfolded.add(row.id);
    return draw();
  }
  if (row.sends + row.own_sends > 1) page.unfolded.add(row.id);
  void choose(row.id);
}

/** @param {any} line @param {number} at */
function sendLine({ row, send, at: index }, at) {
  const ours = send.kind !== 'request';
  const how = outcome({ outcome: 'answered', status: send.response?.status, sends: 1 });
  const took = (send.timing?.wait_ms ?? 0) + (send.timing?.body_ms ?? 0);
  const name = ours ? `${(send.target ?? '').replace(/^https?:\/\//, '')}${send.request?.target ?? ''}` : sendName(page.detail.sends, index);
  return html`<div role="row" class="row of ${ours ? 'ours' : ''}" tabindex="-1" aria-rowindex=${at + 1} aria-level="2" @click=${() => { page.send = index; draw(); }}>
    <span role="gridcell" class="time"></span><span role="gridcell" class="verb">${send.request?.method ?? ''}</span>
    <span role="gridcell" class="target"><span class="path">${name}</span></span>
    <span role="gridcell" class="stat">${icon(how.glyph, how.tone)}<span>${how.text}</span></span>
    <span role="gridcell" class="num took">${duration(took)}</span><span role="gridcell" class="num size">${size(send.response?.body_bytes ?? 0)}</span>
    <span role="gridcell" class="credcell">${send.credential ?? ''}</span><span></span>
  </div>`;
}
