// The Auth tab, in the order of the question: why, which rule, what came close, what was injected, what was signed, and
// what the token says.

import { html, nothing } from './lit-html.js';
import { clock, duration, left, sendName, status, took } from './format.js';
import { head } from './panels.js';
import { copier, facts, icon, life, place, section, tree, wire } from './parts.js';
import { set, state } from './state.js';

/** @typedef {import('./types').Detail} Detail */
/** @typedef {import('./types').Send} Send */
/** @typedef {import('./types').Considered} Considered */

/** @param {Detail} found @param {Send | undefined} send */
export function auth(found, send) {
  const explanation = found.explanation;
  const at = (found.sends ?? []).indexOf(/** @type {Send} */ (send)) + 1;
  return html`${why(found)}
    ${explanation ? section('Rule', tree(explanation.considered), 'first fit, deepest wins') : nothing}
    ${explanation ? close(explanation.considered) : nothing}
    ${send?.request ? section('Injected', html`${places(send)}${head(found, send)}`, `${(found.sends?.length ?? 0) > 1 ? `send ${at}, ` : ''}as it left`) : nothing}
    ${send?.canonical?.length ? section('Canonical', send.canonical.map((one) => html`<p class="cap">${one.label}${copier(one.text, one.label)}</p><pre class="box" tabindex="0">${wire(one.text)}</pre>`), 'what was signed') : nothing}
    ${(send?.tokens ?? []).map((token) => section('Token', facets(token), token.credential ?? 'as it says'))}
    ${send?.notes?.length ? section('Notes', html`<ul class="notes">${send.notes.map((note) => html`<li>${wire(note)}</li>`)}</ul>`) : nothing}`;
}

const AS = { expired: 'as expired', too_early: 'as not valid yet', scope: 'because a scope is missing', scheme: 'because it wants another kind of credential' };

/** The strongest reason as words in a sentence. @param {Send | undefined} send */
function grounds(send) {
  const reasons = send?.refused?.reasons ?? [];
  const kinds = reasons.map((reason) => reason.kind);
  for (const kind of /** @type {(keyof typeof AS)[]} */ (['expired', 'too_early', 'scope'])) if (kinds.includes(kind)) return ` ${AS[kind]}`;
  if (reasons.some((reason) => reason.kind === 'audience' && reason.text.includes('wants'))) return ' because it is for another audience';
  if (reasons.some((reason) => reason.kind === 'said' && reason.text.includes('expired'))) return ' as expired';
  return kinds.includes('scheme') ? ` ${AS.scheme}` : '';
}

/** @param {Detail} found */
function sentence(found) {
  const sends = found.sends ?? [];
  const requests = sends.filter((send) => send.kind === 'request');
  const fetched = sends.some((send) => send.kind === 'token');
  const refused = requests.find((send) => send.response?.status === 401 || send.response?.status === 403);
  const last = found.response?.status ?? 0;
  const names = found.credential?.join(' and ') ?? '';
  if (found.error?.id) return `Countersign answered itself: ${found.error.message}`;
  if (refused && last < 400 && fetched) return `The API refused the first token${grounds(refused)}. Countersign fetched a new one and sent the request again.`;
  if (refused && last < 400) return 'The server asked for proof. Countersign gave it and sent the request again.';
  if (refused && names) return `The server refused ${names}${grounds(refused)}.`;
  if (refused) return `The server refused the request${grounds(refused)}.`;
  if (names) return `${names} went along, as rule ${found.rule?.name} says.${last && last < 400 ? ' The server accepted it.' : ''}`;
  if (found.rule) return `Rule ${found.rule.name} adds no credential.`;
  return 'No rule matches, so nothing was added.';
}

/** @param {Detail} found */
function why(found) {
  const sends = found.sends ?? [];
  const requests = sends.filter((send) => send.kind === 'request');
  const refused = requests.find((send) => send.response?.status === 401 || send.response?.status === 403);
  const words = refused?.response?.headers.filter(([name]) => name === 'www-authenticate').map(([, value]) => value) ?? [];
  const accepted = (found.response?.status ?? 500) < 400;
  const told = sends.map((send) => send.refused?.text).filter(Boolean);
  const notes = (found.notes ?? []).filter((note) => !told.includes(note));
  return section(refused ? `Why ${refused.response?.status}` : 'Why', html`<p class="say big">${wire(sentence(found))}</p>
    ${words.map((word) => html`<p class="quote gap-s">www-authenticate: ${wire(word)}</p>`)}
    ${sends.length > 1 || refused ? html`<ol class="steps gap">${sends.map((send, at) => step(found, send, at))}</ol>` : nothing}
    ${notes.map((note) => html`<p class="note gap-s">${wire(upper(note))}.</p>`)}
    ${refused && accepted ? html`<p class="note gap">Nothing to do.</p>` : nothing}`);
}

/** @param {Detail} found @param {Send} send @param {number} at */
function step(found, send, at) {
  const began = Date.parse(found.started ?? '') + (send.at_ms ?? 0);
  const ours = send.kind !== 'request';
  const how = status(send.response?.status ?? 0);
  const reasons = send.refused?.reasons ?? [];
  const what = send.kind === 'token' ? html`<b class="ink">${send.credential} asked for a token</b> in ${duration(took(send))}, ${how.text}`
    : send.kind === 'connect' ? html`<b class="ink">tunnel through the parent proxy</b>, ${how.text}`
      : html`<b>${how.text}, ${sendName(found.sends ?? [], at)}</b>`;
  return html`<li><span class="at">${clock(began + took(send), true)}</span>${icon(ours ? 'refresh' : how.glyph, ours ? 'ink' : how.tone)}<div><p>${what}</p>
    ${reasons.map((reason) => html`<p>${wire(upper(reason.text))}.</p>`)}
    ${(found.sends?.length ?? 0) > 1 ? html`<p><button type="button" class="link" @click=${() => set({ send: at, tab: ours ? 'request' : state.tab })}>${state.send === at ? 'Shown here' : 'Open this send'}</button></p>` : nothing}</div></li>`;
}

/** @param {string} text */
const upper = (text) => text.slice(0, 1).toUpperCase() + text.slice(1);

/** @param {Send} send */
function places(send) {
  const other = (send.injected ?? []).filter((one) => one.where !== 'header');
  if (!send.injected?.length) return html`<p class="note">Nothing was filled in this send.</p>`;
  return other.length ? html`<p class="note">Filled: ${other.map((one) => (one.where === one.name ? one.where : `${one.where} ${one.name}`)).join(', ')}</p>` : nothing;
}

/** @param {Considered[]} nodes @returns {Considered[]} */
const nearly = (nodes) => nodes.flatMap((one) => [...(one.outcome === 'close' || one.outcome === 'too_late' ? [one] : []), ...nearly(one.children)]);

/** @param {Considered[]} nodes */
function close(nodes) {
  const near = nearly(nodes);
  if (!near.length) return nothing;
  return section('Came close', html`<ul class="near">${near.map((one) => {
    const missing = one.conditions.filter((check) => !check.holds);
    const holds = one.conditions.length - missing.length;
    const needs = missing.map((check) => html`${check.condition.replace(/^when\./, '')} <code>${check.wanted}</code>`);
    return html`<li><b class="cut">${one.name}</b><span class="pips" aria-hidden="true">${'●'.repeat(Math.min(6, holds))}${'○'.repeat(Math.min(6, missing.length))}</span><span class="mid">${holds} of ${one.conditions.length}. ${
      one.outcome === 'too_late' ? 'It fits, but an earlier rule came first.' : html`Needs ${needs}`}</span><span class="at">${place(one)}</span></li>`;
  })}</ul>`);
}

/** What is known of a token: times as a bar, then what it claims. @param {import('./types').TokenFacts} token */
function facets(token) {
  const ends = token.expires ? Date.parse(token.expires) : 0;
  const began = token.issued ? Date.parse(token.issued) : 0;
  const now = Date.now();
  const rest = ends && began && ends > began ? Math.min(1, Math.max(0, (ends - now) / (ends - began))) : null;
  const shown = ['iss', 'sub', 'aud', 'scope', 'scp', 'exp', 'iat', 'nbf'];
  const more = Object.entries(token.claims).filter(([name]) => !shown.includes(name));
  const text = (/** @type {unknown} */ value) => (typeof value === 'string' ? value : JSON.stringify(value));
  const claim = (/** @type {string} */ name) => (token.claims[name] === undefined ? null : html`<code>${wire(text(token.claims[name]))}</code>`);
  const alg = [token.header.alg, token.header.kid].filter(Boolean).map(text).join(', ');
  return html`${rest === null ? nothing : html`${life(rest, null, `${left((ends - now) / 1000)}`)}<p class="axis"><span>issued ${clock(began)}</span><b class=${rest ? 'ink' : 'warn'}>${rest ? left((ends - now) / 1000) : 'ended'}</b><span>expires ${clock(ends)}</span></p>`}
    ${facts([
      ['iss', claim('iss')], ['sub', claim('sub')], ['aud', token.audience.length ? html`<code>${wire(token.audience.join(' '))}</code>` : null],
      ['scope', token.scope ? html`<code>${wire(token.scope)}</code>` : null],
      ...more.slice(0, 20).map(([name, value]) => /** @type {[unknown, unknown]} */ ([name, html`<code>${wire(text(value))}</code>`])),
      ['alg, kid', alg ? html`<code>${wire(alg)}</code> <span class="dim">signature not checked: that is the API’s part</span>` : null],
      ['expires', rest === null && token.expires ? token.expires : null],
      ['from', token.from ? wire(token.from) : null],
    ])}
    ${Object.keys(token.header).length ? nothing : html`<p class="note gap-s">An opaque token: it says nothing of itself.</p>`}`;
}

