// One exchange: its sends, and six ways to look at the chosen one.

import { html, nothing } from './lit-html.js';
import * as api from './api.js';
import { arrows, attempt, back, compare, copy, copyCurl, draw, replay, setFilter, setTab, state as page } from './main.js';
import { clock, decode, duration, hex, pretty, sendName, size, status } from './format.js';
import { icon, pairs, section, wire } from './parts.js';
import { auth } from './auth.js';

export const TABS = ['overview', 'request', 'response', 'auth', 'timing', 'raw'];
const NAMES = { overview: 'Overview', request: 'Request', response: 'Response', auth: 'Auth', timing: 'Timing', raw: 'Raw' };

/** @param {any} state */
export function detail(state) {
  if (state.detailError) {
    return html`<section class="pane detail" aria-label="Exchange"><div class="lead"><p>${state.detailError}</p><button class="link" @click=${back}>Back</button></div></section>`;
  }
  const found = state.detail;
  if (!found || found.id !== state.chosen) return html`<section class="pane detail" aria-label="Exchange"><p class="lead dim">Reading.</p></section>`;
  const send = found.sends?.[state.send];
  return html`<section class="pane detail" aria-label="Exchange ${found.id}">
    <header class="title">
      <div class="line"><button class="quiet only-narrow" aria-label="Back" @click=${back}>←</button>
        <h2><span class="verb">${found.method}</span> <span class="url">${wire(found.url ?? found.target ?? '')}</span></h2>
        <span class="acts">
          ${found.kind === 'tunnel' ? nothing : html`<button class="quiet" @click=${() => copyCurl(found.id)}>curl</button>
          <button class="quiet" @click=${() => replay(found.id)}>Replay</button>
          <button class="quiet" @click=${() => edit(found)}>Edit</button>
          <button class="quiet" @click=${() => compare(found.id)} ?disabled=${state.against === found.id}>Diff</button>`}
        </span></div>
      <p class="meta"><span>${duration(found.duration_ms ?? 0)}</span><span>${size(found.response?.body_bytes ?? 0)}</span><span>${found.client?.name ?? agent(found)}</span>
        ${found.rule ? html`<button class="link" @click=${() => setFilter(`rule:"${found.rule.name}"`)}>${found.rule.path.join(' › ')}</button>` : html`<button class="link" @click=${() => draft(found)}>Draft a rule for this host</button>`}
        ${found.credential?.map((/** @type {string} */ name) => html`<button class="link" @click=${() => setFilter(`cred:${name}`)}>${name}</button>`)}</p>
      ${found.sends?.length > 1 ? strip(found) : nothing}
      <nav class="tabs" role="tablist" aria-label="Exchange" @keydown=${arrows}>${TABS.map((tab) => html`<button role="tab" id="x-${tab}" aria-controls="panel"
        aria-selected=${state.tab === tab} tabindex=${state.tab === tab ? 0 : -1} @click=${() => setTab(tab)}>${NAMES[/** @type {keyof typeof NAMES} */ (tab)]}</button>`)}</nav>
    </header>
    <div class="panel" id="panel" role="tabpanel" aria-labelledby="x-${state.tab}" tabindex="0">
      ${state.editing ? editor(state.editing, found) : state.against && state.other && state.against !== found.id ? difference(state.other, found) : panel(state.tab, found, send)}
    </div>
  </section>`;
}

/** @param {any} found */
function agent(found) {
  return field(found.request?.headers, 'user-agent') ?? found.client?.address ?? '';
}

/** @param {any[] | undefined} headers @param {string} name */
export const field = (headers, name) => headers?.find(([known]) => known === name)?.[1];

/** @param {any} found */
function strip(found) {
  return html`<div class="strip" role="radiogroup" aria-label="Sends" @keydown=${arrows}>${found.sends.map((/** @type {any} */ send, /** @type {number} */ at) => {
    const ours = send.kind !== 'request';
    const how = status(send.response?.status ?? 0);
    const word = sendName(found.sends, at);
    return html`<button role="radio" class=${ours ? 'ours' : ''} aria-checked=${page.send === at} tabindex=${page.send === at ? 0 : -1} @click=${() => { page.send = at; draw(); }}>
      ${icon(ours ? 'turn' : how.glyph, ours ? 'ink' : how.tone)}<b>${how.text}</b> ${word}<small>${duration((send.timing?.wait_ms ?? 0) + (send.timing?.body_ms ?? 0))}</small></button>`;
  })}</div>`;
}

/** @param {string} tab @param {any} found @param {any} send */
function panel(tab, found, send) {
  if (found.kind === 'open') return html`<p class="lead">Still open. What it holds is shown when it is over.</p>`;
  switch (tab) {
    case 'request': return request(found, send);
    case 'response': return response(found, send);
    case 'auth': return auth(found, send);
    case 'timing': return timing(found);
    case 'raw': return raw(found, send);
    default: return overview(found, send);
  }
}

/** @param {any} found @param {any} send */
function overview(found, send) {
  return html`
    ${found.error ? section('Failed', html`<p class="say"><b>${found.error.id ?? 'Broken off'}</b></p><p>${wire(found.error.message)}</p>`) : nothing}
    ${section('Exchange', pairs([
      ['Status', found.response?.status], ['URL', wire(found.url ?? '')], ['Started', found.started], ['Took', duration(found.duration_ms ?? 0)],
      ['Client', [found.client?.name, found.client?.address].filter(Boolean).join(', ')],
      ['Sent', found.kind === 'tunnel' ? size(found.sent_bytes) : null], ['Received', found.kind === 'tunnel' ? size(found.received_bytes) : null],
    ]))}
    ${found.rule ? section('Rule', pairs([['Rule', found.rule.path.join(' › ')], ['Written at', html`<code>${found.rule.file}:${found.rule.line}</code>`], ['Credential', found.credential.join(' + ') || 'none']])) : nothing}
    ${send ? section('Connection', pairs([
      ['To', send.target], ['Peer', send.peer], ['Protocol', send.protocol], ['Via', send.via], ['Reused', send.reused === undefined ? null : send.reused ? 'yes' : 'no'],
      ['TLS', send.tls ? `${send.tls.version} ${send.tls.suite}` : null], ['Certificate', send.tls ? `${send.tls.subject}, issued by ${send.tls.issuer}` : null],
    ])) : nothing}
    ${found.notes?.length ? section('Notes', html`<ul>${found.notes.map((/** @type {string} */ note) => html`<li>${wire(note)}</li>`)}</ul>`) : nothing}`;
}

/** A head as a diff: ours in ink, what went dim. @param {any} found @param {any} send */
export function head(found, send) {
  const request = send.request;
  const changes = request.changes ?? [];
  const before = (/** @type {string} */ name) => field(found.request?.headers, name);
  return html`<div class="diff code">
    <div><i></i><span><b>${request.method} ${wire(request.target)} ${send.protocol === 'h2' ? 'HTTP/2' : 'HTTP/1.1'}</b></span></div>
    ${request.headers.map(([name, value]) => {
      const change = changes.find((/** @type {any} */ one) => one.name === name && one.change !== 'removed');
      const was = change?.change === 'changed' ? before(name) : undefined;
      return html`<div class=${change ? 'ours' : ''}><i>${change ? (change.change === 'added' ? '+' : '~') : ''}<span class="unseen">${change?.change ?? ''}</span></i>
        <span><span class="name">${name}:</span> ${wire(value)}</span>${change ? html`<em>${was === undefined ? (found.credential?.join(' + ') ?? '') : html`was ${wire(was)}`}</em>` : nothing}</div>`;
    })}
    ${changes.filter((/** @type {any} */ one) => one.change === 'removed').map((/** @type {any} */ one) => html`<div class="gone"><i>−<span class="unseen">removed</span></i><span><span class="name">${one.name}:</span> ${wire(one.value)}</span><em>removed</em></div>`)}
  </div>`;
}

/** @param {any} found @param {any} send */
function request(found, send) {
  if (!send?.request) {
    return found.request ? html`${section('Head', html`<div class="code">${found.request.headers.map(([name, value]) => html`<div><span class="name">${name}:</span> ${wire(value)}</div>`)}</div>`, 'never left')}` : html`<p class="lead dim">Not recorded.</p>`;
  }
  return html`${section('Head', head(found, send), 'as it left')}${section('Body', body(send.request, 'request'))}`;
}

/** @param {any} found @param {any} send */
function response(found, send) {
  const from = send?.response;
  if (!from) return html`<p class="lead">${found.error ? wire(found.error.message) : 'There was no answer.'}</p>`;
  return html`${section('Head', html`<div class="code"><div><b>${send.protocol === 'h2' ? 'HTTP/2' : 'HTTP/1.1'} ${from.status}</b></div>${from.headers.map(([name, value]) => html`<div><span class="name">${name}:</span> ${wire(value)}</div>`)}</div>`)}
    ${send.interim?.length ? section('Interim', send.interim.join(', ')) : nothing}${section('Body', body(from, 'response'))}`;
}

/** @param {any} from @param {string} side */
function body(from, side) {
  if (!from.body_bytes) return html`<p class="dim">No body.</p>`;
  const text = from.body;
  if (text === undefined && from.body_base64 === undefined) return html`<p class="dim">${size(from.body_bytes)}, not recorded: the rule says <code>record: heads</code>, or it came too fast.</p>`;
  const bytes = text === undefined ? decode(from.body_base64) : new TextEncoder().encode(text);
  const as = text === undefined ? 'hex' : page.bodyAs;
  const shown = as === 'hex' ? hex(bytes) : as === 'pretty' ? pretty(text) : text;
  return html`<div class="bodybar"><span class="dim">${size(from.body_bytes)} on the wire${from.truncated ? ', cut' : ''}</span><span class="push"></span>
    ${(text === undefined ? ['hex'] : ['pretty', 'raw', 'hex']).map((mode) => html`<button class="quiet" aria-pressed=${as === mode} @click=${() => { page.bodyAs = mode; draw(); }}>${mode}</button>`)}
    <button class="quiet" @click=${() => copy(text ?? from.body_base64, `${side} body`)}>Copy</button></div>
    <pre class="code body" tabindex="0">${wire(shown.length > 200_000 ? `${shown.slice(0, 200_000)}\n(${shown.length - 200_000} characters more)` : shown)}</pre>`;
}

/** @param {any} found */
function timing(found) {
  const sends = found.sends ?? [];
  const total = found.duration_ms || 1;
  let at = 0;
  const rows = sends.flatMap((/** @type {any} */ send, /** @type {number} */ index) => {
    const ours = send.kind !== 'request';
    const name = sendName(sends, index);
    const phases = [['dns', send.timing.dns_ms], ['connect', send.timing.connect_ms], ['tls', send.timing.tls_ms], ['wait', send.timing.wait_ms], ['body', send.timing.body_ms]];
    return phases.filter(([, ms]) => typeof ms === 'number').map(([phase, ms]) => {
      const row = { name, phase, ms, at, ours };
      at += ms;
      return row;
    });
  });
  const width = Math.max(total, at) || 1;
  return section('Waterfall', html`<table class="times"><thead class="unseen"><tr><th>Send</th><th>Phase</th><th>Time</th><th>Bar</th></tr></thead><tbody>${rows.map((/** @type {any} */ row) => html`<tr><td>${row.name}</td><td>${row.phase}</td><td class="num">${duration(row.ms)}</td>
    <td><svg class="wf long" viewBox="0 0 1000 12" preserveAspectRatio="none" aria-hidden="true"><rect class=${row.ours ? 'w-ours' : row.phase === 'body' ? 'w-body' : row.phase === 'wait' ? 'w-wait' : 'w-conn'} x=${(row.at / width) * 1000} y="3" width=${Math.max(3, (row.ms / width) * 1000)} height="6"></rect></svg></td></tr>`)}</tbody></table>
    <p class="dim">${duration(total)} from the request to the end of the answer.</p>`);
}

/** @param {any} found @param {any} send */
function raw(found, send) {
  if (!send) return html`<p class="lead dim">Nothing was sent.</p>`;
  const side = (/** @type {string} */ label, /** @type {any} */ bytes) => {
    if (!bytes) return section(label, html`<p class="dim">${send.protocol === 'h2' ? 'HTTP/2 has no text of its own: see Request and Response.' : 'Not recorded.'}</p>`);
    const text = new TextDecoder('utf-8', { fatal: false }).decode(decode(bytes.base64));
    return section(label, html`<div class="bodybar"><span class="dim">${size(bytes.bytes)}${bytes.cut ? ', cut' : ''}${bytes.masked ? ', secrets masked' : ', exact'}</span><span class="push"></span><button class="quiet" @click=${() => copy(text, label)}>Copy</button></div><pre class="code body" tabindex="0">${wire(visible(text))}</pre>`);
  };
  return html`${side('Sent', send.raw_out)}${side('Received', send.raw_in)}`;
}

/** Control characters made visible. @param {string} text */
function visible(text) {
  return text.replace(/\r\n/g, '\n').replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`);
}

// ── Edit and replay ──

/** @param {any} found */
function edit(found) {
  const first = found.sends?.find((/** @type {any} */ send) => send.kind === 'request');
  const masked = (/** @type {string} */ value) => /…|\*\*\*/.test(value);
  const headers = (found.request?.headers ?? []).filter(([name, value]) => !masked(value) && !['host', 'content-length', 'proxy-connection', 'connection'].includes(name));
  page.editing = { method: found.method, url: found.url, headers: headers.map(([name, value]) => `${name}: ${value}`).join('\n'), body: first?.request?.body ?? '' };
  draw();
}

/** @param {any} editing @param {any} found */
function editor(editing, found) {
  const set = (/** @type {string} */ name) => (/** @type {Event} */ event) => { editing[name] = /** @type {HTMLInputElement} */ (event.target).value; };
  const send = () => {
    const headers = editing.headers.split('\n').filter((/** @type {string} */ line) => line.includes(':')).map((/** @type {string} */ line) => {
      const at = line.indexOf(':');
      return [line.slice(0, at).trim(), line.slice(at + 1).trim()];
    });
    void replay(found.id, { method: editing.method, url: editing.url, headers, body: editing.body });
  };
  return section('Edit', html`<form class="edit" @submit=${(/** @type {Event} */ event) => { event.preventDefault(); send(); }}>
    <label>Method <input .value=${editing.method} @input=${set('method')}></label><label>URL <input .value=${editing.url} @input=${set('url')}></label>
    <label>Header fields <textarea rows="8" .value=${editing.headers} @input=${set('headers')}></textarea></label>
    <label>Body <textarea rows="8" .value=${editing.body} @input=${set('body')}></textarea></label>
    <p class="dim">It goes through the proxy like any request: the rule adds the credential.</p>
    <button class="main">Send</button> <button type="button" class="quiet" @click=${() => { page.editing = null; draw(); }}>Keep as it was</button></form>`);
}

/** @param {any} found */
const draft = (found) => attempt(async () => {
  const host = (found.target ?? '').replace('https://', '');
  const name = host.replace(/^http:\/\//, '').split(':')[0];
  await copy(`  - {name: ${name}, host: "${host}", auth: YOUR-CREDENTIAL}\n`, 'A rule for your file');
});

// ── Diff ──

/** @param {any} left @param {any} right */
function difference(left, right) {
  const lines = (/** @type {any} */ found) => {
    const send = found.sends?.findLast((/** @type {any} */ one) => one.kind === 'request');
    const out = [`${found.method} ${found.url}`];
    for (const [name, value] of send?.request?.headers ?? []) out.push(`> ${name}: ${value}`);
    if (send?.request?.body) out.push(...pretty(send.request.body).split('\n').map((/** @type {string} */ line) => `> ${line}`));
    out.push(`status ${found.response?.status ?? 'none'}`);
    for (const [name, value] of send?.response?.headers ?? []) out.push(`< ${name}: ${value}`);
    if (send?.response?.body) out.push(...pretty(send.response.body).split('\n').map((/** @type {string} */ line) => `< ${line}`));
    return out.slice(0, 2000);
  };
  const rows = compareLines(lines(left), lines(right));
  return section('Diff', html`<div class="diff code">${rows.map(([mark, line]) => html`<div class=${mark === '+' ? 'ours' : mark === '−' ? 'gone' : ''}><i>${mark}</i><span>${wire(line)}</span></div>`)}</div>
    <button class="quiet" @click=${() => { Object.assign(page, { against: null, other: null }); draw(); }}>Close</button>`, `${left.id} and ${right.id}`);
}

/** The longest common lines, and what differs. @param {string[]} left @param {string[]} right @returns {[string, string][]} */
export function compareLines(left, right) {
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
    if (i < left.length && j < right.length && left[i] === right[j]) { out.push(['', left[i]]); i += 1; j += 1; }
    else if (i < left.length && (j === right.length || table[(i + 1) * width + j] >= table[i * width + j + 1])) { out.push(['−', left[i]]); i += 1; }
    else { out.push(['+', right[j]]); j += 1; }
  }
  return out;
}

export { api, clock };
