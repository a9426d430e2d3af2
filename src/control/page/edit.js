// What replaces the tabs for a while: editing a request, a drafted rule, a comparison.

import { html } from './lit-html.js';
import { replayEdited } from './act.js';
import { lines, text } from './compare.js';
import { button, copier, section, wire } from './parts.js';
import { set } from './state.js';

/** @param {import('./types').Edit} editing @param {import('./types').Detail} found */
export function editor(editing, found) {
  const field = (/** @type {keyof import('./types').Edit} */ name) => (/** @type {Event} */ event) => {
    editing[name] = /** @type {HTMLInputElement} */ (event.target).value;
  };
  const submit = (/** @type {Event} */ event) => {
    event.preventDefault();
    void replayEdited(editing, found.id);
  };
  return section('Edit', html`<form class="edit" @submit=${submit}>
    <label>Method<input name="method" autocomplete="off" .value=${editing.method} @input=${field('method')}></label>
    <label>URL<input name="url" autocomplete="off" .value=${editing.url} @input=${field('url')}></label>
    <label>Header fields<textarea name="headers" rows="8" spellcheck="false" .value=${editing.headers} @input=${field('headers')}></textarea></label>
    <label>Body<textarea name="body" rows="8" spellcheck="false" .value=${editing.body} @input=${field('body')}></textarea></label>
    <p class="note">It goes through the proxy like any request: the rule adds the credential.</p>
    <p class="pair"><button class="btn do">Send</button>${button('', 'Leave it', () => set({ editing: null }))}</p></form>`);
}

/** @param {string} rule */
export function drafted(rule) {
  return section('Rule', html`<p class="say">Put this under <code>rules:</code> in your file and save it. It is in force at once.</p>
    <pre class="box gap-s" tabindex="0">${rule}</pre><p class="pair gap-s">${copier(rule, 'the rule')}${button('', 'Close', () => set({ draft: null }))}</p>`, 'a draft');
}

/** @param {import('./types').Detail} left @param {import('./types').Detail} right */
export function compared(left, right) {
  const rows = lines(text(left), text(right));
  const same = rows.every(([mark]) => mark === '');
  return section('Diff', html`<p class="note">${same ? 'They are the same.' : html`<b>−</b> only in ${left.id}, <b>+</b> only in ${right.id}.`}</p>
    <div class="wire gap-s">${rows.map(([mark, line]) => html`<div class=${mark === '+' ? 'add' : mark === '−' ? 'del' : ''}><span class="sg">${mark}</span><span class="v">${mark ? html`<span class="sr">${mark === '+' ? 'added: ' : 'removed: '}</span>` : ''}${wire(line)}</span><span class="by"></span></div>`)}</div>
    <p class="pair gap-s">${button('', 'Close', () => { set({ comparing: false, other: null }); })}</p>`, `${left.id} and ${right.id}`);
}
