// Setup: how to point a tool at the proxy, and lights that turn as things become true.

import { html, nothing } from './lit-html.js';
import { copier, icon } from './parts.js';
import { arrows, set, state } from './state.js';

/** @param {string} proxy @returns {Record<string, [name: string, said: string, command: string]>} */
const tools = (proxy) => ({
  curl: ['curl', 'Follows the variables above. Nothing else to do.', 'curl https://api.example.com/user'],
  git: ['git', 'Follows the variables above. Nothing else to do.', 'git ls-remote https://git.example.com/team/project.git'],
  python: ['Python', 'requests, httpx and pip follow the variables. aiohttp wants trust_env=True.', 'python3 -c "import requests; print(requests.get(\'https://api.example.com/user\').status_code)"'],
  node: ['Node', 'npm follows the variables; fetch does from Node 22.21 and 24.5 on.', 'NODE_USE_ENV_PROXY=1 node app.mjs'],
  java: ['Java', 'countersign run gives Java a port of its own, because it cannot log in to a proxy.', 'countersign run -- java -jar app.jar'],
  docker: ['Docker', 'The variables go into the container, the certificate is mounted.', 'countersign env --format docker > proxy.env && docker run --env-file proxy.env IMAGE'],
  browser: ['Browser', `Set the proxy to ${proxy} and import this certificate.`, 'countersign ca export --out countersign.pem'],
});

export function setup() {
  const proxy = (state.status?.proxy ?? '127.0.0.1:8080').replace(/^https?:\/\//, '');
  const all = tools(proxy);
  const [, said, command] = all[state.tool];
  const total = state.status?.exchanges.total ?? 0;
  const came = state.rows.length > 0 || total > 0;
  return html`<div class="pane"><div class="setup">
    <div><h1>${came ? 'Point more tools at the proxy' : 'Nothing has come through yet'}</h1>
      <p class="say">Run this in a terminal, then use any tool there as before. Requests that match a rule leave with their credential.</p>
      <div class="cmd main"><span aria-hidden="true">$</span><code>eval "$(countersign env)"</code>${copier('eval "$(countersign env)"', 'the command', 'do')}</div>
      <p class="note gap-s">For a single command: <code>countersign run -- COMMAND</code></p>
      <div class="tools"><div role="tablist" class="tabs" aria-label="Tools" @keydown=${arrows}>${Object.entries(all).map(([key, [name]]) => html`<button type="button" role="tab" id="tool-t-${key}" aria-controls="tool" aria-selected=${state.tool === key} tabindex=${state.tool === key ? 0 : -1} @click=${() => set({ tool: key })}>${name}</button>`)}</div>
        <div role="tabpanel" id="tool" aria-labelledby="tool-t-${state.tool}" tabindex="0"><p class="mid">${said}</p><div class="cmd"><span aria-hidden="true">$</span><code>${command}</code>${copier(command, 'the command')}</div></div></div></div>
    <ul class="lights" aria-label="What is true so far">
      ${light(!state.lost && !!state.status, 'Proxy listens', html`<code>${proxy}</code>`)}
      ${light((state.status?.rules ?? 0) > 0, state.status ? `${state.status.rules} ${state.status.rules === 1 ? 'rule' : 'rules'} for ${state.status.hosts} ${state.status.hosts === 1 ? 'host' : 'hosts'}` : 'Rules', html`${(state.status?.files ?? []).map((file) => file.split('/').pop()).join(', ')}${state.status?.environment ? `, environment ${state.status.environment}` : ''}, watched`)}
      ${light(came, came ? 'A request came through' : 'Waiting for your client', came ? `${total} so far` : 'This light turns to a dot with the first request.')}
      ${light(state.rows.some((row) => row.injected), 'A credential was added', 'By a rule, in ink in the list.')}
    </ul></div></div>`;
}

/** @param {boolean} on @param {string} name @param {unknown} more */
const light = (on, name, more) => html`<li>${icon(on ? 'ok' : 'wait', on ? 'ok' : 'ink')}<div><p class=${on ? '' : 'ink'}><b>${name}</b><span class="sr">${on ? ': yes' : ': not yet'}</span></p>${more ? html`<p>${more}</p>` : nothing}</div></li>`;
