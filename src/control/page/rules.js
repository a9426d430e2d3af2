// Rules: the tree as a table with live counts, why a file was refused, and which rule a request would meet.

import { html, nothing } from './lit-html.js';
import { reload, setFilter, wonder } from './act.js';
import { ago, clock } from './format.js';
import { button, cred, icon, place, section, tree, wire } from './parts.js';
import { term } from './rows.js';
import { state } from './state.js';

/** @typedef {import('./types').Rule} Rule */

export function rules() {
  const found = state.rules;
  if (!found) return html`<div class="pane"><p class="lead dim">Reading.</p></div>`;
  const most = Math.max(1, ...flat(found.rules).map((rule) => rule.decided));
  const newest = new Map(state.rows.map((row) => [row.rule, row.started_ms]));
  const since = state.status?.in_force_since ? `, in force since ${clock(Date.parse(state.status.in_force_since))}` : '';
  return html`<div class="pane"><div class="page"><header><h1>Rules</h1><span class="dim">${found.files.map((file) => file.split('/').pop()).join(', ')}${state.status?.environment ? `, environment ${state.status.environment}` : ''}${since}</span></header>
    ${found.reload_error ? alarm(found.reload_error) : nothing}
    ${found.rules.length ? html`<div class="rcols" aria-hidden="true"><span>Rule</span><span>When</span><span>Credential</span><span>Matches</span><span class="num">Last</span><span class="num">Line</span></div>
      <ul role="tree" aria-label="Rules in file order">${found.rules.map((rule) => branch(rule, 1, most, newest, []))}</ul>` : html`<p class="note">There are no rules. Everything passes untouched.</p>`}
    </div></div>
    <aside class="pane aside beside" aria-label="Which rule"><div class="inspect">${which()}</div></aside>`;
}

/** @param {Rule[]} rules @returns {Rule[]} */
const flat = (rules) => rules.flatMap((rule) => [rule, ...flat(rule.rules)]);

/** Why a file was refused: the proxy's words, source lines and marks included. @param {string} text */
function alarm(text) {
  return html`<section class="alarm" role="alert"><p>${icon('bad', 'bad')}<span>The file was refused. The rules that were in force stay in force.</span>${button('', 'Check again', reload, 'edge')}</p>
    <pre class="frames" tabindex="0">${text.split('\n').map((line) => html`<span class=${/^\s*(?:\d*\s*\|)?\s*\^+/.test(line) ? 'mark' : /^(error|warning)\b/.test(line) ? 'what' : ''}>${wire(line)}\n</span>`)}</pre></section>`;
}

/** @param {Rule} rule */
function conditions(rule) {
  const more = [...rule.when.header.map(([name, glob]) => `${name}: ${glob}`), ...rule.when.query.map(([name, glob]) => `?${name}=${glob}`), ...rule.when.client.map((name) => `client ${name}`)];
  return html`${rule.methods.length ? html`<em>${rule.methods.join(' ')}</em> ` : nothing}${[...rule.host, ...rule.path].join(' ')}${more.length ? html` <em>${more.join(' ')}</em>` : nothing}`;
}

/** @param {Rule} rule @param {number} level @param {number} most @param {Map<string | null, number>} newest @param {string[]} above @returns {unknown} */
function branch(rule, level, most, newest, above) {
  const last = newest.get(rule.name);
  const inherits = level > 1 && rule.credentials.length > 0 && rule.credentials.join() === above.join();
  return html`<li role="treeitem" aria-level=${level} aria-expanded=${rule.rules.length ? 'true' : nothing} aria-selected="false" class=${level > 1 ? 'branch' : ''}>
    <div class="rule ${level > 1 ? 'kid' : ''}"><button type="button" class="nm" title="Show its traffic" @click=${() => setFilter(term('rule', rule.name))}><span class="cut">${rule.name}</span></button>
      <span class="cond">${conditions(rule)}</span>
      <span class="cut">${inherits ? html`<span class="dim">${rule.credentials.join(' + ')}, inherited</span>` : rule.credentials.length ? rule.credentials.map((name) => html`${cred(name)} `) : html`<span class="dim">none</span>`}</span>
      <span class="cnt"><svg viewBox="0 0 100 4" preserveAspectRatio="none" aria-hidden="true"><rect width=${Math.max(rule.decided ? 2 : 0, (rule.decided / most) * 100)} height="4"></rect></svg><span class="num">${rule.decided}<span class="sr"> matches</span></span></span>
      <span class="num dim last">${last ? ago((Date.now() - last) / 1000) : rule.decided ? '' : 'never'}</span><span class="at" title=${place(rule)}>${rule.line}</span></div>
    ${rule.rules.length ? html`<ul role="group">${rule.rules.map((child) => branch(child, level + 1, most, newest, rule.credentials))}</ul>` : nothing}</li>`;
}

function which() {
  const answer = state.answer;
  return html`<h2>Which rule?</h2><p class="dim">Nothing is sent. <code>countersign explain</code> shows also how it would leave.</p>
    <label class="field gap-s"><span class="sr">Method and URL</span><input id="wonder" spellcheck="false" autocomplete="off" placeholder="GET https://host/path" .value=${state.wonder} @input=${(/** @type {Event} */ event) => wonder(/** @type {HTMLInputElement} */ (event.target).value)}></label>
    <div role="status">${state.wonderError ? html`<p class="gap-s bad">${state.wonderError}</p>` : nothing}
    ${answer ? html`${section('Answer', html`<p class="say big">${answer.rule ? html`${answer.rule.path.join(' › ')}, ${answer.rule.credentials.length ? html`with ${answer.rule.credentials.join(' and ')}` : 'without a credential'}.` : 'No rule. It passes untouched.'}</p>`)}
      ${answer.considered.length ? section('Path taken', tree(answer.considered)) : nothing}` : nothing}</div>`;
}
