// Setup: how to point a tool at the proxy, and lights that turn as things become true.

import { html } from './lit-html.js';
import { copy, draw, state as page } from './main.js';
import { icon } from './parts.js';

let tool = 'shell';

/** @param {any} state */
export function setup(state) {
  const proxy = state.status?.proxy ?? '127.0.0.1:8080';
  const tools = {
    shell: ['This shell', 'eval "$(countersign env)"'],
    one: ['One command', 'countersign run --attach -- curl https://api.github.com/user'],
    curl: ['curl', `curl --proxy http://${proxy} --cacert <(countersign ca export) https://api.github.com/user`],
    docker: ['Docker', 'countersign env --format docker > proxy.env && docker run --env-file proxy.env IMAGE'],
    browser: ['Browser', `Set the proxy to ${proxy} and import the certificate of: countersign ca export --out countersign.pem`],
  };
  const [, command] = tools[/** @type {keyof typeof tools} */ (tool)];
  const seen = state.rows.length > 0;
  const lights = [
    ['The proxy runs', !state.lost && !!state.status],
    ['Rules are in force', (state.status?.rules ?? 0) > 0],
    ['A request came through', seen || (state.status?.exchanges?.total ?? 0) > 0],
    ['A credential was added', state.rows.some((/** @type {any} */ row) => row.injected)],
  ];
  return html`<div class="pages"><div class="pagebody"><h1>Point a tool at the proxy. Matching requests leave authenticated.</h1>
    <nav class="tabs" role="tablist" aria-label="Tools">${Object.entries(tools).map(([key, [name]]) => html`<button role="tab" aria-selected=${tool === key} tabindex=${tool === key ? 0 : -1} @click=${() => { tool = key; draw(); }}>${name}</button>`)}</nav>
    <div class="command"><pre class="code" tabindex="0">${command}</pre><button class="main" @click=${() => copy(command, 'The command')}>Copy</button></div>
    <ul class="lights">${lights.map(([name, on]) => html`<li>${icon(on ? 'ok' : 'open', on ? 'ok' : 'dim')}<span>${name}<span class="unseen">${on ? ': yes' : ': not yet'}</span></span></li>`)}</ul>
    <p class="dim">Rules are in <code>${state.status?.files?.[0] ?? 'countersign.yaml'}</code>; what is saved there is in force at once.</p></div></div>`;
}

export { page };
