// Five of the six ways to look at an exchange: Overview, Request, Response, Timing, Raw.

import { html, nothing } from './lit-html.js';
import { copy } from './act.js';
import { decode, duration, hex, pretty, sendName, size, visible } from './format.js';
import { bar, copier, cred, facts, icon, place, section, wire } from './parts.js';
import { set, state } from './state.js';

/** @typedef {import('./types').Detail} Detail */
/** @typedef {import('./types').Send} Send */
/** @typedef {import('./types').Head} Head */

/** @param {import('./types').Header[] | undefined} headers @param {string} name */
export const field = (headers, name) => headers?.find(([known]) => known === name)?.[1];

/** @param {Detail} found */
function summary(found) {
  const status = found.response?.status;
  const sends = (found.sends ?? []).filter((send) => send.kind === 'request').length;
  if (found.error?.id) return `Countersign answered itself: ${found.error.message}`;
  if (found.error) return `It broke off: ${found.error.message}`;
  if (found.kind === 'tunnel') return 'Passed through without a look inside: no rule could match this host.';
  if (!status) return 'There was no answer.';
  if (sends > 1) return `${status < 400 ? 'Accepted' : 'Answered'} on send ${sends}. The client saw one answer, ${status}.`;
  return `${status} in ${duration(found.duration_ms ?? 0)}.`;
}

/** @param {Detail} found @param {Send | undefined} send */
export function overview(found, send) {
  const type = field(send?.response?.headers, 'content-type');
  const coding = field(send?.response?.headers, 'content-encoding');
  const kind = field(send?.request?.headers, 'content-type');
  return html`${section('Summary', html`<p class="say big">${wire(summary(found))}</p>`)}
    ${section('Request', facts([
      ['url', html`<code>${wire(found.url ?? found.target ?? '')}</code>`],
      ['client', [found.client?.name, found.client?.address].filter(Boolean).join(', ')],
      ['started', found.started?.replace('T', ' ').replace(/\.\d+/, '').replace('Z', ' UTC')],
      ['body', send?.request?.body_bytes ? `${size(send.request.body_bytes)}${kind ? `, ${kind}` : ''}` : null],
      ['sent', found.kind === 'tunnel' ? size(found.sent_bytes ?? 0) : null],
      ['received', found.kind === 'tunnel' ? size(found.received_bytes ?? 0) : null],
    ]))}
    ${send ? section('Answer', facts([
      ['status', send.response ? html`<b>${send.response.status}</b>` : null],
      ['body', send.response?.body_bytes ? `${size(send.response.body_bytes)}${type ? `, ${type}` : ''}${coding ? `, ${coding}` : ''}` : null],
      ['server', html`<code>${send.peer ?? send.target ?? ''}</code>${send.protocol ? `, ${send.protocol === 'h2' ? 'HTTP/2' : 'HTTP/1.1'}` : ''}${send.reused ? ', connection reused' : ''}`],
      ['via', send.via], ['tls', send.tls ? `${send.tls.version}, ${send.tls.suite}` : null],
      ['certificate', send.tls ? `${send.tls.subject}, issued by ${send.tls.issuer}` : null],
    ])) : nothing}
    ${section('Auth', found.rule ? facts([
      ['rule', html`${found.rule.path.join(' › ')} <span class="at mono">${place(found.rule)}</span>`],
      ['credential', found.credential?.length ? found.credential.map(cred) : 'none'],
      ['environment', found.environment],
    ]) : html`<p class="note">No rule matches. Nothing was added.</p>`)}
    ${found.notes?.length ? section('Notes', html`<ul class="notes">${found.notes.map((note) => html`<li>${wire(note)}</li>`)}</ul>`) : nothing}`;
}

/** @param {string | null | undefined} protocol */
const version = (protocol) => (protocol === 'h2' ? 'HTTP/2' : 'HTTP/1.1');

/** @param {string} sign @param {string} kind @param {string} name @param {string} value @param {unknown} by */
const line = (sign, kind, name, value, by) => html`<div class=${kind}><span class="sg">${sign}</span><span class="v">${
  sign ? html`<span class="sr">${sign === '+' ? 'added: ' : sign === '~' ? 'changed: ' : 'removed: '}</span>` : nothing}<span class="hn">${name}:</span> ${wire(value)}</span><span class="by">${by}</span></div>`;

/** Fields that concern one connection go at every hop. */
const HOP = ['connection', 'proxy-connection', 'keep-alive', 'proxy-authorization', 'te', 'trailer', 'transfer-encoding', 'upgrade'];

/** A head as a diff: what we wrote in ink, what went dim. @param {Detail} found @param {Send} send */
export function head(found, send) {
  const request = /** @type {Head} */ (send.request);
  const changes = request.changes ?? [];
  const filled = (send.injected ?? []).filter((one) => one.where === 'header').map((one) => one.name);
  const by = (/** @type {string} */ name) => (filled.includes(name) ? found.credential?.join(' + ') || send.credential || 'ours' : `rule ${found.rule?.name ?? ''}`);
  return html`<div class="wire">
    <div class="first"><span class="sg"></span><span class="v">${request.method} ${wire(request.target ?? '')} ${version(send.protocol)}</span><span class="by"></span></div>
    ${request.headers.map(([name, value]) => {
      const change = send.kind === 'request' ? changes.find((one) => one.name === name && one.change !== 'removed') : undefined;
      if (!change) return line('', '', name, value, '');
      if (change.change === 'added') return line('+', 'add', name, value, by(name));
      const was = field(found.request?.headers, name) ?? '';
      return line('~', 'add', name, value, html`${by(name)}, was ${wire(was.length > 32 ? `${was.slice(0, 32)} …` : was)}`);
    })}
    ${send.kind === 'request' ? changes.filter((one) => one.change === 'removed').map((one) => line('−', 'del', one.name, one.value, HOP.includes(one.name) ? 'removed, hop-by-hop' : 'removed')) : nothing}
  </div>`;
}

/** @param {import('./types').Header[]} headers @param {string} first */
const plain = (headers, first) => html`<div class="wire"><div class="first"><span class="sg"></span><span class="v">${first}</span><span class="by"></span></div>${headers.map(([name, value]) => line('', '', name, value, ''))}</div>`;

/** @param {Detail} found @param {Send | undefined} send */
export function request(found, send) {
  if (send?.request) return html`${section('Headers', head(found, send), 'as it left')}${section('Body', body(send.request, 'request'))}`;
  if (found.request) return section('Headers', plain(found.request.headers, `${found.method} ${found.request.target}`), 'never left');
  return html`<p class="note">Not recorded.</p>`;
}

/** @param {Detail} found @param {Send | undefined} send */
export function response(found, send) {
  const from = send?.response;
  if (!from) return html`<p class="note">${found.error ? wire(found.error.message) : 'There was no answer.'}</p>`;
  return html`${section('Headers', plain(from.headers, `${version(send.protocol)} ${from.status}`))}
    ${send.interim?.length ? section('Interim', send.interim.join(', ')) : nothing}${section('Body', body(from, 'response'))}`;
}

const PICTURE = /^(iVBORw0KGgo|\/9j\/|R0lGOD|UklGR)/;

/** @param {Head} from @param {string} side */
function body(from, side) {
  if (!from.body_bytes) return html`<p class="note">No body.</p>`;
  const text = from.body;
  if (text === undefined && from.body_base64 === undefined) return html`<p class="note">${size(from.body_bytes)}, not recorded: the rule says <code>record: heads</code>, or there was no room.</p>`;
  const picture = side === 'response' && text === undefined && !from.truncated && PICTURE.test(from.body_base64 ?? '');
  const modes = text !== undefined ? ['pretty', 'raw', 'hex'] : picture ? ['picture', 'hex'] : ['hex'];
  const as = modes.includes(state.bodyAs) ? state.bodyAs : modes[0];
  return html`<div class="bodybar"><span class="note">${size(from.body_bytes)} on the wire${from.truncated ? ', cut: longer than what is kept' : ''}</span>
    <span class="modes" role="group" aria-label="Show as">${modes.map((mode) => html`<button type="button" class="btn" aria-pressed=${as === mode} @click=${() => set({ bodyAs: mode })}>${mode}</button>`)}${copier(text ?? from.body_base64 ?? '', `${side} body`)}</span></div>
    ${as === 'picture' ? html`<iframe class="picture" sandbox title="Picture in a sandbox" src="/api/exchanges/${state.chosen}/picture?send=${state.send}"></iframe>` : content(from, as)}`;
}

const MOST = 200_000;

/** @param {Head} from @param {string} as */
function content(from, as) {
  const text = from.body;
  const shown = as === 'hex' ? hex(text === undefined ? decode(from.body_base64 ?? '') : new TextEncoder().encode(text)) : visible(as === 'pretty' ? pretty(text ?? '') : (text ?? ''));
  return html`<pre class="box" tabindex="0">${wire(shown.length > MOST ? `${shown.slice(0, MOST)}\n(${shown.length - MOST} characters more)` : shown)}</pre>`;
}

/** @param {Detail} found */
export function timing(found) {
  const sends = found.sends ?? [];
  if (!sends.length) return html`<p class="note">Nothing was sent. ${duration(found.duration_ms ?? 0)} from the request to the end.</p>`;
  const total = Math.max(1, found.duration_ms ?? 0);
  return section('Waterfall', html`<div class="tl" role="list">${sends.map((send, index) => {
    const ours = send.kind !== 'request';
    const times = send.timing;
    const opening = (times?.dns_ms ?? 0) + (times?.connect_ms ?? 0) + (times?.tls_ms ?? 0);
    // A send begins when its head leaves; what opened its connection came before.
    let at = Math.max(0, (send.at_ms ?? 0) - opening);
    const phases = /** @type {[string, number | null | undefined, string][]} */ ([
      ['dns', times?.dns_ms, 'conn'], ['connect', times?.connect_ms, 'conn'], ['tls', times?.tls_ms, 'conn'], ['wait', times?.wait_ms, 'wait'], ['body', times?.body_ms, 'body'],
    ]);
    return html`<div class="grp" role="listitem">${icon(ours ? 'refresh' : 'up', ours ? 'ink' : 'dim')}${sendName(sends, index)}${send.response ? `, ${send.response.status}` : ''}</div>
      ${phases.filter(([, ms]) => typeof ms === 'number').map(([name, ms, kind]) => {
        const drawn = bar(ours ? 'ours' : kind, at, ms ?? 0, total);
        at += ms ?? 0;
        return html`<span class="lab">${name}</span>${drawn}<span class="num">${duration(ms ?? 0)}</span>`;
      })}`;
  })}</div><p class="note gap">${duration(total)} from the request to the end of the answer. <span class="key"><svg viewBox="0 0 14 6" aria-hidden="true"><rect class="w-ours" y="1" width="14" height="4"></rect></svg>ours</span></p>`);
}

/** @param {Send | undefined} send */
export function raw(send) {
  if (!send) return html`<p class="note">Nothing was sent.</p>`;
  const side = (/** @type {string} */ label, /** @type {import('./types').Raw | undefined} */ bytes) => {
    if (!bytes) return section(label, html`<p class="note">${send.protocol === 'h2' ? 'HTTP/2 has no text of its own: see Request and Response.' : 'Not recorded.'}</p>`);
    const text = new TextDecoder().decode(decode(bytes.base64));
    const how = `${size(bytes.bytes)}${bytes.cut ? ', cut' : ''}${bytes.masked ? ', secrets masked' : ', exact'}`;
    return section(label, html`<div class="bodybar"><span class="note">${how}</span><span class="modes"><button type="button" class="btn" aria-label="Copy ${label.toLowerCase()}" @click=${() => copy(text, label)}>${icon('copy')}Copy</button></span></div>
      <pre class="box" tabindex="0">${wire(visible(text.replace(/\r\n/g, '\n')))}</pre>`);
  };
  return html`${side('Sent', send.raw_out)}${side('Received', send.raw_in)}`;
}
