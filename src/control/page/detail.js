// One exchange: its sends, and six ways to look at the chosen one.

import { html, nothing } from './lit-html.js';
import { TABS, back, beginEdit, copy, copyCurl, copyHar, draft, mark, replay, setFilter, setTab } from './act.js';
import { auth } from './auth.js';
import { compared, drafted, editor } from './edit.js';
import { clock, decode, duration, sendName, size, status, took } from './format.js';
import { overview, raw, request, response, timing } from './panels.js';
import { button, icon, wire } from './parts.js';
import { term } from './rows.js';
import { arrows, set, state } from './state.js';

/** @typedef {import('./types').Detail} Detail */
/** @typedef {import('./types').Send} Send */

const NAMES = { overview: 'Overview', request: 'Request', response: 'Response', auth: 'Auth', timing: 'Timing', raw: 'Raw' };

export function detail() {
  return html`<div class="veil" @click=${back}></div><aside class="pane aside" aria-label="Selected exchange">${inside()}</aside>`;
}

function inside() {
  const found = state.detail;
  if (state.detailError) return html`<div class="lead"><p>${state.detailError}</p><p class="gap-s">${button('', 'Back', back, 'edge')}</p></div>`;
  if (!found || found.id !== state.chosen) return html`<p class="lead dim">Reading.</p>`;
  const send = found.sends?.[state.send];
  return html`<article class="detail" aria-label="Exchange ${found.id}">
    <div class="grab" aria-hidden="true"></div>
    <header class="head">
      <div class="line"><button type="button" class="btn back" aria-label="Back to the list" @click=${back}>${icon('chev')}</button>
        <h2><span class="verb">${found.method}</span>${address(found)}</h2>${acts(found)}</div>
      <p class="facts"><span>${duration(found.duration_ms ?? 0)}</span><span>${size(found.response?.body_bytes ?? found.received_bytes ?? 0)}</span><span class="cut">${agent(found)}</span>
        ${found.rule ? html`<button type="button" class="link" @click=${() => setFilter(term('rule', found.rule?.name ?? ''))}>${found.rule.path.join(' › ')}</button>` : nothing}
        ${found.credential?.map((name) => html`<button type="button" class="link" @click=${() => setFilter(term('cred', name))}>${name}</button>`)}</p>
      ${(found.sends?.length ?? 0) > 1 ? rail(found) : nothing}
    </header>
    <div class="tabs" role="tablist" aria-label="Exchange ${found.id}" @keydown=${arrows}>${TABS.map((tab) => html`<button type="button" role="tab" id="x-${tab}" aria-controls="panel"
      aria-selected=${state.tab === tab} tabindex=${state.tab === tab ? 0 : -1} @click=${() => setTab(tab)}>${NAMES[/** @type {keyof typeof NAMES} */ (tab)]}${
        tab === 'auth' && (send?.injected?.length || send?.refused) ? html`<i class="dot"></i>` : nothing}</button>`)}</div>
    <div class="panel" id="panel" role="tabpanel" aria-labelledby="x-${state.tab}" tabindex="0">${shown(found, send)}</div>
  </article>`;
}

/** Scheme and host dim, the rest strong, with places to break at. @param {Detail} found */
function address(found) {
  const url = found.url ?? found.target ?? '';
  const parts = /^([a-z]+:\/\/[^/?#]*)(.*)$/s.exec(url);
  if (!parts) return wire(url);
  const pieces = parts[2].split(/(?=[/?&])/);
  return html`<span class="host">${wire(parts[1])}</span>${pieces.map((piece) => html`<wbr>${wire(piece)}`)}`;
}

/** @param {Detail} found */
function acts(found) {
  if (found.kind === 'open') return nothing;
  const tunnel = found.kind === 'tunnel';
  const send = found.sends?.[state.send];
  const text = (/** @type {import('./types').Raw | undefined} */ part) => new TextDecoder().decode(decode(part?.base64 ?? ''));
  return html`<span class="acts">
    ${tunnel ? nothing : html`${button('copy', 'curl', () => copyCurl(found.id))}${button('refresh', 'Replay', () => replay(found.id))}`}
    <button type="button" class="btn" aria-label="More" aria-haspopup="true" aria-expanded=${state.menu} @click=${() => set({ menu: !state.menu })}>${icon('more')}</button>
    ${state.menu ? html`<div class="menu" role="group" aria-label="More">
      ${tunnel ? nothing : html`${button('', 'Edit and replay', () => beginEdit(found))}
      ${button('', 'Copy as HAR', () => copyHar(found.id))}
      ${send?.raw_out ? button('', 'Copy what was sent', () => copy(text(send.raw_out), 'What was sent')) : nothing}
      ${send?.raw_in ? button('', 'Copy what came back', () => copy(text(send.raw_in), 'What came back')) : nothing}
      ${button('', 'Compare with another', () => mark(found))}`}
      ${button('', 'Draft a rule for this host', () => draft(found))}</div>` : nothing}</span>`;
}

/** @param {Detail} found */
function agent(found) {
  const named = found.request?.headers.find(([name]) => name === 'user-agent')?.[1];
  return found.client?.name ?? named ?? found.client?.address ?? '';
}

/** @param {Detail} found */
function rail(found) {
  const sends = found.sends ?? [];
  const began = Date.parse(found.started ?? '');
  return html`<div class="rail" role="radiogroup" aria-label="Which send the tabs show" @keydown=${arrows}>${sends.map((send, at) => {
    const ours = send.kind !== 'request';
    const how = status(send.response?.status ?? 0);
    const word = sendName(sends, at);
    return html`${at ? html`<span class="arrow" aria-hidden="true"></span>` : nothing}
      <button type="button" role="radio" class=${ours ? 'ours' : ''} aria-checked=${state.send === at} tabindex=${state.send === at ? 0 : -1} @click=${() => set({ send: at })}>
      <b>${icon(ours ? 'refresh' : how.glyph, ours ? 'ink' : how.tone)}${ours ? html`<span>${word}</span><span class="long">${how.text}</span>` : html`<span>${how.text}</span><span class="long">${word}</span>`}</b><small>${clock(began + (send.at_ms ?? 0), true)} · ${duration(took(send))}</small></button>`;
  })}</div>`;
}

/** @param {Detail} found @param {Send | undefined} send */
function shown(found, send) {
  if (found.kind === 'open') return html`<p class="note">Still open. What it holds is shown when it is over.</p>`;
  if (state.editing) return editor(state.editing, found);
  if (state.draft !== null) return drafted(state.draft);
  if (state.comparing && state.other) return compared(state.other, found);
  switch (state.tab) {
    case 'request': return request(found, send);
    case 'response': return response(found, send);
    case 'auth': return auth(found, send);
    case 'timing': return timing(found);
    case 'raw': return raw(send);
    default: return overview(found, send);
  }
}
