// Rules: the tree as a table with live counts, and why a file was refused.

import { html, nothing } from './lit-html.js';
import * as api from './api.js';
import { attempt, notice, refreshFacts, setFilter, show } from './main.js';

/** @param {any} state */
export function rules(state) {
  const found = state.rules;
  if (!found) return html`<p class="lead dim">Reading.</p>`;
  return html`<div class="pages"><div class="pagebody"><h1>Rules</h1>
    <p class="dim">${(found.files ?? []).map((/** @type {string} */ file) => html`<code>${file}</code> `)} generation ${found.generation} <button class="quiet" @click=${reload}>Reload</button></p>
    ${found.reload_error ? html`<section class="refusal" role="alert"><p><b>Refused. The rules of generation ${found.generation} stay in force.</b></p><pre class="code">${found.reload_error}</pre></section>` : nothing}
    ${found.rules.length ? html`<table class="rules"><thead><tr><th>Rule</th><th>Matches</th><th>Credential</th><th class="num">Decided</th><th>Line</th></tr></thead><tbody>${found.rules.map((/** @type {any} */ rule) => rows(rule, 0))}</tbody></table>`
    : html`<p class="lead">There are no rules. Everything passes untouched.</p>`}</div></div>`;
}

/** @param {any} rule */
function conditions(rule) {
  const when = [...rule.when.header.map(([name, glob]) => `${name}: ${glob}`), ...rule.when.query.map(([name, glob]) => `?${name}=${glob}`), ...rule.when.client.map((/** @type {string} */ name) => `client ${name}`)];
  return [rule.methods.join(', '), rule.host.join(', '), rule.path.join(', '), when.join(', ')].filter(Boolean).join('  ');
}

/** @param {any} rule @param {number} depth @returns {unknown} */
function rows(rule, depth) {
  return html`<tr class="depth-${Math.min(depth, 6)}"><td><button class="link" @click=${() => { setFilter(`rule:"${rule.name}"`); show('traffic'); }}>${rule.name}</button></td><td><code>${conditions(rule)}</code></td>
    <td>${rule.credentials.length ? html`<span class="cred">${rule.credentials.join(' + ')}</span>` : html`<span class="dim">none</span>`}</td><td class="num">${rule.decided}</td><td><code>${rule.file.split('/').pop()}:${rule.line}</code></td></tr>
    ${rule.rules.map((/** @type {any} */ child) => rows(child, depth + 1))}`;
}

const reload = () => attempt(async () => {
  try {
    notice((await api.post('/api/reload')).message);
  } finally {
    await refreshFacts();
  }
});
