// Small pieces that every view is made of.

import { html, nothing, svg } from './lit-html.js';
import { bars, masked } from './format.js';

/** @param {string} name @param {string} [tone] */
export const icon = (name, tone = '') => svg`<svg class="g ${tone}" aria-hidden="true"><use href="#${name}"></use></svg>`;

/** Text from the wire, its secrets behind a hatch. @param {string} text */
export function wire(text) {
  return masked(text).map((part) => (part.masked ? html`<span class="hatch" role="img" aria-label="masked">…</span>` : part.text));
}

/** @param {any} row @param {number} scale */
export function waterfall(row, scale) {
  const { parts, cut } = bars(row, scale);
  return svg`<svg class="wf" viewBox="0 0 1000 12" preserveAspectRatio="none" aria-hidden="true">
    ${parts.map((part) => svg`<rect class="w-${part.kind}" x=${part.x} y="4" width=${part.width} height="4"></rect>`)}
    ${cut ? svg`<rect class="w-cut" x="900" y="3" width="24" height="6"></rect>` : nothing}
  </svg>`;
}

/** A part of a pane with its label in the gutter. @param {unknown} label @param {unknown} content @param {unknown} [under] */
export const section = (label, content, under) => html`<section class="part"><h3>${label}${under ? html`<small>${under}</small>` : nothing}</h3><div>${content}</div></section>`;

/** @param {[unknown, unknown][]} pairs */
export const pairs = (pairs) => html`<dl class="pairs">${pairs.filter(([, value]) => value !== null && value !== undefined && value !== '').map(([name, value]) => html`<div><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>`;
