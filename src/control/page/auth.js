// The Auth tab: why this rule, what was injected, what was signed, why a 401.

import { html, nothing } from './lit-html.js';
import { copy } from './main.js';
import { icon, pairs, section, wire } from './parts.js';
import { field, head } from './detail.js';
import { sendName, status } from './format.js';

/** @param {any} found @param {any} send */
export function auth(found, send) {
  const explanation = found.explanation;
  const token = send?.request ? claims(send) : null;
  return html`
    ${why(found)}
    ${explanation ? section('Rule', tree(explanation.considered, found), 'first fit, deepest wins') : nothing}
    ${explanation ? close(explanation.considered) : nothing}
    ${send?.request ? section('Injected', html`${injected(send)}${head(found, send)}`, 'as it left') : nothing}
    ${(send?.canonical ?? []).map((/** @type {any} */ one) => section(one.label, html`<div class="bodybar"><span class="dim">${one.scheme}</span><span class="push"></span><button class="quiet" @click=${() => copy(one.text, one.label)}>Copy</button></div><pre class="code body" tabindex="0">${wire(one.text)}</pre>`, 'what was signed'))}
    ${token ? section('Token', token) : nothing}
    ${send?.notes?.length ? section('Notes', html`<ul>${send.notes.map((/** @type {string} */ note) => html`<li>${wire(note)}</li>`)}</ul>`) : nothing}`;
}

/** @param {any} found */
function why(found) {
  const sends = found.sends ?? [];
  const requests = sends.filter((/** @type {any} */ send) => send.kind === 'request');
  const tokens = sends.filter((/** @type {any} */ send) => send.kind === 'token');
  const refused = requests.find((/** @type {any} */ send) => send.response?.status === 401 || send.response?.status === 403);
  const last = found.response?.status;
  const steps = sends.map((/** @type {any} */ send, /** @type {number} */ at) => {
    const how = status(send.response?.status ?? 0);
    const word = send.kind === 'token' ? `token request for ${send.credential}` : send.kind === 'connect' ? 'tunnel through the parent proxy' : sendName(sends, at);
    return html`<li>${icon(send.kind === 'request' ? how.glyph : 'turn', send.kind === 'request' ? how.tone : 'ink')}<span><b>${how.text}</b> ${word}${(send.notes ?? []).map((/** @type {string} */ note) => html`<small>${wire(note)}</small>`)}</span></li>`;
  });
  let sentence = '';
  if (found.error?.id) sentence = `Countersign refused: ${found.error.message}`;
  else if (refused && last && last < 400) sentence = tokens.length ? 'The first try was refused. Countersign fetched a new token and sent the request again.' : 'The server asked for proof. Countersign answered and sent the request again.';
  else if (last === 401 || last === 403) sentence = 'The server refused the credential.';
  else if (found.rule && found.credential?.length) sentence = `${found.credential.join(' and ')} went along, as rule ${found.rule.name} says.`;
  else if (found.rule) sentence = `Rule ${found.rule.name} adds no credential.`;
  else sentence = 'No rule matches, so nothing was added.';
  const words = refused && field(refused.response.headers, 'www-authenticate');
  return section(refused ? `Why ${refused.response.status}` : 'Why', html`<p class="say">${wire(sentence)}</p>${words ? html`<p class="code">www-authenticate: ${wire(words)}</p>` : nothing}
    ${sends.length > 1 ? html`<ol class="steps">${steps}</ol>` : nothing}
    ${(found.notes ?? []).map((/** @type {string} */ note) => html`<p class="dim">${wire(note)}</p>`)}`);
}

/** @param {any} send */
function injected(send) {
  const places = send.injected ?? [];
  return places.length ? html`<p class="dim">Filled: ${places.map((/** @type {any} */ one) => `${one.where} ${one.name}`).join(', ')}</p>` : html`<p class="dim">Nothing was filled in this send.</p>`;
}

const OUTCOMES = { decides: 'decides', leads: '', too_late: 'fits, but an earlier rule came first', only_groups: 'only groups', close: 'one condition fails', fails: '' };

/** @param {any[]} nodes @param {any} found @returns {unknown} */
function tree(nodes, found) {
  if (!nodes?.length) return html`<p class="dim">No rule has to do with this request.</p>`;
  return html`<ul class="tree">${nodes.map((node) => {
    const fits = ['decides', 'leads', 'too_late', 'only_groups'].includes(node.outcome);
    const word = OUTCOMES[/** @type {keyof typeof OUTCOMES} */ (node.outcome)];
    return html`<li><div class="rule">${icon(fits ? 'tick' : 'cross', fits ? 'ok' : 'bad')}<b>${node.name}</b>${node.outcome === 'decides' ? html`<span class="cred">decides</span>` : html`<span class="dim">${word}</span>`}<code class="push-right">${node.file.split('/').pop()}:${node.line}</code></div>
      ${node.conditions.length ? html`<ul>${node.conditions.map((/** @type {any} */ one) => html`<li class="condition">${icon(one.holds ? 'tick' : 'cross', one.holds ? 'ok' : 'bad')}<span class="dim">${one.condition}</span><span><code>${one.wanted}</code>${one.note ? html` <span class="dim">${wire(one.note)}</span>` : nothing}<span class="unseen">${one.holds ? 'holds' : 'fails'}</span></span></li>`)}</ul>` : nothing}
      ${node.children.length ? tree(node.children, found) : nothing}</li>`;
  })}</ul>`;
}

/** @param {any[]} nodes @returns {any[]} */
const nearly = (nodes) => nodes.flatMap((node) => [...(node.outcome === 'close' || node.outcome === 'too_late' ? [node] : []), ...nearly(node.children)]);

/** @param {any[]} nodes */
function close(nodes) {
  const near = nearly(nodes);
  if (!near.length) return nothing;
  return section('Came close', html`<ul class="near">${near.map((node) => {
    const missing = node.conditions.filter((/** @type {any} */ one) => !one.holds);
    const holds = node.conditions.length - missing.length;
    return html`<li><b>${node.name}</b> <span>${holds} of ${node.conditions.length}. ${node.outcome === 'too_late' ? 'An earlier rule came first.' : `Needs ${missing.map((/** @type {any} */ one) => `${one.condition} ${one.wanted}`).join(', ')}.`}</span></li>`;
  })}</ul>`);
}

/** What the masked token still says of itself. @param {any} send */
function claims(send) {
  const described = send.token;
  return described ? pairs(Object.entries(described)) : null;
}
