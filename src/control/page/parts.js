// Small pieces that every view is made of.

import { html, nothing, svg } from './lit-html.js';
import { bars, masked, visible } from './format.js';
import { copy } from './act.js';

/** @param {string} name @param {string} [tone] */
export const icon = (name, tone = '') => html`<svg class="g ${tone}" aria-hidden="true"><use href="#${name}"></use></svg>`;

/** A quiet button: an icon and a word. @param {string} glyph @param {string} word @param {() => void} act @param {string} [tone] */
export const button = (glyph, word, act, tone = '') =>
  html`<button type="button" class="btn ${tone}" aria-label=${word} @click=${act}>${glyph ? icon(glyph) : nothing}<span class="text">${word}</span></button>`;

/** @param {string} text @param {string} what @param {string} [tone] */
export const copier = (text, what, tone = '') => html`<button type="button" class="btn ${tone}" aria-label="Copy ${what}" @click=${() => copy(text, what)}>${icon('copy')}Copy</button>`;

/** Text from the wire, its secrets behind a hatch. @param {string} text */
export function wire(text) {
  return masked(visible(text)).map((part) => (part.masked ? html`<span class="sec"><i role="img" aria-label="masked"></i><span class="gone" aria-hidden="true">…</span></span>` : part.text));
}

/** @param {string} name */
export const cred = (name) => html`<span class="cred" title=${name}><span>${name}</span></span>`;

/** @param {import('./types').Row} row @param {number} scale */
export function waterfall(row, scale) {
  const { parts, cut } = bars(row, scale);
  return html`<svg class="wf" viewBox="0 0 1000 12" preserveAspectRatio="none" aria-hidden="true">
    ${parts.map((part) => svg`<rect class="w-${part.kind}" x=${part.x} y="4" width=${part.width} height="4"></rect>`)}
    ${cut ? svg`<rect class="w-cut" x="900" y="3" width="28" height="6"></rect>` : nothing}
  </svg>`;
}

/** One bar on a scale. @param {string} kind @param {number} from @param {number} ms @param {number} scale */
export function bar(kind, from, ms, scale) {
  const x = Math.min(994, (from / scale) * 1000);
  const width = Math.min(1000 - x, Math.max(6, (ms / scale) * 1000));
  return html`<svg class="wf" viewBox="0 0 1000 12" preserveAspectRatio="none" aria-hidden="true"><rect class="w-${kind}" x=${x} y="4" width=${width} height="4"></rect></svg>`;
}

/** A part of a pane with its label in the gutter. @param {unknown} label @param {unknown} content @param {unknown} [under] */
export const section = (label, content, under) => html`<section class="sect"><h3>${label}${under ? html`<small>${under}</small>` : nothing}</h3><div>${content}</div></section>`;

/** @param {[unknown, unknown][]} pairs */
export const facts = (pairs) => html`<dl class="kv">${pairs.filter(([, value]) => value !== null && value !== undefined && value !== '').map(([name, value]) => html`<dt>${name}</dt><dd>${value}</dd>`)}</dl>`;

/** The life of a token as a bar. @param {number} left of 1 @param {number | null} due of 1 @param {string} spoken */
export function life(left, due, spoken) {
  const x = Math.min(100, Math.max(0, (1 - left) * 100));
  return html`<svg class="life" viewBox="0 0 100 10" preserveAspectRatio="none" role="img" aria-label=${spoken}>
    <rect class="all" y="3" width="100" height="4"></rect>
    ${left > 0 ? svg`<rect class="left ${left < 0.1 ? 'low' : ''}" x=${x} y="3" width=${100 - x} height="4"></rect>` : nothing}
    ${due === null ? nothing : svg`<line class="due" x1=${due * 100} x2=${due * 100} y1="1" y2="9" vector-effect="non-scaling-stroke"></line>`}</svg>`;
}

const OUTCOMES = { too_late: 'fits, but an earlier rule came first', only_groups: 'only groups', close: 'one condition fails' };

/** Which rules were looked at, with tick or cross for each condition. @param {import('./types').Considered[]} nodes @returns {unknown} */
export function tree(nodes) {
  if (!nodes.length) return html`<p class="note">No rule has to do with this request.</p>`;
  return html`<div class="tree">${nodes.map(node)}</div>`;
}

/** @param {import('./types').Considered} one @returns {unknown} */
function node(one) {
  const fits = ['decides', 'leads', 'too_late', 'only_groups'].includes(one.outcome);
  const word = OUTCOMES[/** @type {keyof typeof OUTCOMES} */ (one.outcome)] ?? '';
  return html`<div class=${one.outcome === 'decides' ? 'won' : ''}>
    <div class="t ${fits ? '' : 'lost'}">${icon(fits ? 'tick' : 'cross', fits ? 'ok' : 'bad')}<span class="name">${one.name}${
      word ? html` <span class="why">${word}</span>` : nothing}<span class="sr">${one.outcome === 'decides' ? ' decides' : fits ? ' fits' : ' does not fit'}</span></span><span class="at">${place(one)}</span></div>
    ${one.conditions.length || one.children.length ? html`<div class="kids">
      ${one.conditions.map((check) => html`<div class="c">${icon(check.holds ? 'tick' : 'cross', check.holds ? 'ok' : 'bad')}<span class="k">${check.condition.replace(/^when\./, '')}</span><span><code>${check.wanted}</code>${
        check.note ? html` <span class="dim">${wire(check.note)}</span>` : nothing}<span class="sr">${check.holds ? ' holds' : ' fails'}</span></span></div>`)}
      ${one.children.map(node)}</div>` : nothing}</div>`;
}

/** File and line. @param {{file: string, line: number}} at */
export const place = (at) => `${at.file.split('/').pop()}:${at.line}`;
