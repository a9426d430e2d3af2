// Tokens: grouped by what they ask of the person.

import { html, nothing, svg } from './lit-html.js';
import { login, setFilter, token as ask } from './act.js';
import { ago, clock, doings, left, trouble } from './format.js';
import { button, facts, icon, life, place, section, wire } from './parts.js';
import { term } from './rows.js';
import { set, state } from './state.js';

/** @typedef {import('./types').Holding} Holding */
/** @typedef {import('./types').Rule} Rule */

/** @param {Holding} token */
const needs = (token) => token.state === 'login-needed' || token.state === 'unknown';

/** @param {Holding[]} tokens */
export const needy = (tokens) => tokens.filter(needs).length;

/** Seconds that are left of a token, or null. @param {Holding} token */
const rest = (token) => (token.expires ? (Date.parse(token.expires) - Date.now()) / 1000 : null);

/** Of its whole life, from 1 to 0. @param {Holding} token */
function share(token) {
  const seconds = rest(token);
  if (seconds === null || !token.issued || !token.expires) return null;
  const whole = (Date.parse(token.expires) - Date.parse(token.issued)) / 1000;
  return whole > 0 ? Math.min(1, Math.max(0, seconds / whole)) : null;
}

/** When it is refreshed: a minute before its end, or a tenth of its life if that is less. @param {Holding} token */
function due(token) {
  if (!token.issued || !token.expires) return null;
  const whole = (Date.parse(token.expires) - Date.parse(token.issued)) / 1000;
  return whole > 0 ? 1 - Math.min(60, whole / 10) / whole : null;
}

export function tokens() {
  // Tokens of the proxy's named clients are for the command line.
  const all = state.tokens?.filter((one) => !one.client);
  if (!all) return html`<div class="pane"><p class="lead dim">Reading.</p></div>`;
  const plain = fixed(all.map((one) => one.credential));
  const groups = /** @type {[string, Holding[]][]} */ ([
    ['Needs you', all.filter(needs)], ['Working', all.filter((one) => !needs(one) && one.expires)], ['Not fetched yet, or without an end', all.filter((one) => !needs(one) && !one.expires)],
  ]);
  const chosen = all.find((one) => one.credential === state.token);
  return html`<div class="pane"><div class="page"><header><h1>Tokens</h1>${state.status?.environment ? html`<span class="dim">environment ${state.status.environment}</span>` : nothing}</header>
    ${state.login ? pendingLogin(state.login) : nothing}
    ${all.length || plain.length ? nothing : html`<p class="note">There are no credentials. Those of type oauth2 and others that fetch tokens show up here.</p>`}
    ${groups.filter(([, list]) => list.length).map(([name, list]) => html`<h2 class="group">${name}</h2><ul>${list.map(line)}</ul>`)}
    ${plain.length ? html`<h2 class="group">Never expire</h2><ul>${plain.map(flat)}</ul>` : nothing}</div></div>
    ${chosen ? html`<div class="veil" @click=${() => set({ token: null })}></div><aside class="pane aside" aria-label=${chosen.credential}>${inspect(chosen)}</aside>` : nothing}`;
}

/** Credentials of rules that hold no tokens, and how often they decided. @param {string[]} known @returns {{name: string, used: number}[]} */
function fixed(known) {
  /** @type {Map<string, number>} */ const used = new Map();
  const walk = (/** @type {Rule[]} */ rules) => rules.forEach((rule) => {
    for (const name of rule.credentials) if (!known.includes(name)) used.set(name, (used.get(name) ?? 0) + rule.decided);
    walk(rule.rules);
  });
  walk(state.rules?.rules ?? []);
  return [...used].map(([name, count]) => ({ name, used: count }));
}

/** @param {{name: string, used: number}} one */
const flat = (one) => html`<li class="tok flat"><svg class="ring" viewBox="0 0 30 30" aria-hidden="true"><circle class="core" cx="15" cy="15" r="2.5"></circle></svg>
  <div class="cut"><span class="nm">${one.name}</span></div><div class="st">${one.used ? `used ${one.used} ${one.used === 1 ? 'time' : 'times'}` : 'not used yet'}</div><div class="lf"></div>
  <div class="do-s">${button('', 'Its traffic', () => setFilter(term('cred', one.name)))}</div></li>`;

/** @param {Holding} token @returns {[string, string, string]} tone, the state, what follows */
function says(token) {
  const seconds = rest(token);
  const at = due(token);
  const next = at !== null && token.issued && token.expires ? `Refresh due ${clock(Date.parse(token.issued) + at * (Date.parse(token.expires) - Date.parse(token.issued)))}` : '';
  switch (token.state) {
    case 'good':
      if (seconds === null) return ['', 'Good', 'It names no end'];
      return seconds <= 0 ? ['warn', 'Ended', 'The next request refreshes it'] : [seconds < 60 ? 'warn' : '', left(seconds), next];
    case 'expired': return ['warn', seconds === null ? 'Expired' : `Expired ${ago(-seconds)}`, 'The next request refreshes it'];
    case 'login-needed': return ['warn', 'Login needed', token.notes?.[0] ?? `Or run countersign login ${token.credential}`];
    case 'empty': return ['mid', 'Not fetched yet', 'The first request fetches it'];
    default: return ['bad', 'Cannot be read', token.notes?.[0] ?? ''];
  }
}

/** @param {Holding} token */
function ring(token) {
  const of = share(token);
  if (needs(token)) return html`<svg class="ring" viewBox="0 0 30 30" aria-hidden="true"><circle class="miss" cx="15" cy="15" r="12"></circle><path class="sym warn" d="M10 15h9M15.5 11.5 19 15l-3.5 3.5"></path></svg>`;
  if (of === null) return html`<svg class="ring" viewBox="0 0 30 30" aria-hidden="true">${token.state === 'good' ? svg`<circle class="r1" cx="15" cy="15" r="12"></circle>` : svg`<circle class="r0" cx="15" cy="15" r="12"></circle>`}</svg>`;
  return html`<svg class="ring" viewBox="0 0 30 30" aria-hidden="true"><circle class="r0" cx="15" cy="15" r="12"></circle><circle class="r1" cx="15" cy="15" r="12" pathLength="100" stroke-dasharray="${of * 100} 100" transform="rotate(-90 15 15)"></circle></svg>`;
}

/** @param {Holding} token */
function line(token) {
  const [tone, what, then] = says(token);
  const of = share(token);
  const isChosen = state.token === token.credential;
  return html`<li class="tok ${isChosen ? 'chosen' : ''}">${ring(token)}
    <div class="cut"><button type="button" class="nm" aria-expanded=${isChosen} @click=${() => set({ token: isChosen ? null : token.credential })}>${token.credential}</button><small class="cut">${(token.grant ?? '').replaceAll('_', ' ')}</small></div>
    <div class="st"><b class=${trouble(token) ? 'bad' : tone}>${what}</b><small>${trouble(token) || wire(then)}</small></div>
    <div class="lf">${of === null ? html`<svg class="life" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true"><rect class="none" x=".5" y="3.5" width="99" height="3" vector-effect="non-scaling-stroke"></rect></svg>` : life(of, due(token), what)}
      ${token.issued ? `last ${clock(Date.parse(token.issued))}` : needs(token) ? 'never logged in' : 'never'}</div>
    <div class="do-s">${acts(token)}</div></li>`;
}

/** @param {Holding} token */
function acts(token) {
  const name = token.credential;
  if (state.asked === name) return html`<span class="asks">Revoke?</span>${button('', 'Revoke', () => ask('revoke', name), 'edge bad')}${button('', 'Keep', () => set({ asked: null }))}`;
  if (needs(token)) return html`${button('', 'Log in', () => login(name), 'do')}`;
  return html`${button('', 'Refresh', () => ask('refresh', name), token.state === 'expired' ? 'edge' : '')}${token.access_token ? button('', 'Revoke', () => set({ asked: name })) : nothing}`;
}

/** Rules that use a credential. @param {string} name @param {Rule[]} rules @param {string[]} above @returns {{path: string, rule: Rule}[]} */
const users = (name, rules, above = []) => rules.flatMap((rule) => {
  const path = [...above, rule.name];
  return [...(rule.credentials.includes(name) ? [{ path: path.join(' › '), rule }] : []), ...users(name, rule.rules, path)];
});

/** @param {Holding} token */
function inspect(token) {
  const of = share(token);
  const seconds = rest(token);
  const used = users(token.credential, state.rules?.rules ?? []);
  const fetches = state.rows.filter((row) => row.own_sends > 0 && row.credentials.includes(token.credential)).slice(-8).reverse();
  const [, what] = says(token);
  return html`<div class="inspect"><div class="grab" aria-hidden="true"></div><p class="pair"><span class="grow"><b class="title">${token.credential}</b></span><button type="button" class="btn" aria-label="Close" @click=${() => set({ token: null })}>${icon('cross')}</button></p>
    <p class="dim">${(token.grant ?? '').replaceAll('_', ' ')}${token.endpoint ? html` at <code>${token.endpoint}</code>` : nothing}</p>
    <p class="big gap-s">${seconds !== null && seconds > 0 && token.state === 'good' ? html`${left(seconds).replace(/ left$/, '')} <span class="dim">left</span>` : what}</p>
    ${of === null ? nothing : html`${life(of, due(token), what)}<p class="axis"><span>issued ${clock(Date.parse(token.issued ?? ''))}</span><span>expires ${clock(Date.parse(token.expires ?? ''))}</span></p>`}
    ${section('Token', facts([
      ['scope', token.scope ? html`<code>${wire(token.scope)}</code>` : null], ['audience', token.audience?.length ? html`<code>${wire(token.audience.join(' '))}</code>` : null],
      ['type', token.token_type], ['token', token.access_token ? html`<code>${wire(token.access_token)}</code>` : null],
      ['refresh token', token.refresh_token ? html`<code>${wire(token.refresh_token)}</code>` : null], ['ID token', token.id_token ? html`<code>${wire(token.id_token)}</code>` : null], ['bound to', token.bound_to],
    ]))}
    ${token.claims && Object.keys(token.claims).length ? section('Claims', facts(Object.entries(token.claims).map(([name, value]) => [name, html`<code>${wire(typeof value === 'string' ? value : JSON.stringify(value))}</code>`]))) : nothing}
    ${used.length ? section('Used by', facts(used.map(({ path, rule }) => [path, html`${rule.decided} ${rule.decided === 1 ? 'request' : 'requests'} <span class="at mono">${place(rule)}</span>`]))) : nothing}
    ${doings(token).some(([, what]) => what) ? section('Since the start', facts(doings(token))) : nothing}
    ${fetches.length ? section('Fetches', html`<ul class="hist">${fetches.map((row) => html`<li><span class="at">${clock(row.started_ms)}</span>${icon(row.outcome === 'answered' ? 'tick' : 'cross', row.outcome === 'answered' ? 'ok' : 'bad')}<button type="button" class="link" @click=${() => setFilter(`id:${row.id}`)}>${row.sends > 1 ? 'after a refusal' : 'before a request'}</button><span class="num dim">${row.id}</span></li>`)}</ul>`) : nothing}
    ${token.notes?.length ? section('Notes', html`<ul class="notes">${token.notes.map((note) => html`<li>${wire(note)}</li>`)}</ul>`) : nothing}
    <p class="pair gap">${button('', 'Its traffic', () => setFilter(term('cred', token.credential)), 'edge')}${button('', 'Forget', () => ask('delete', token.credential))}</p></div>`;
}

/** @param {import('./types').Login} login */
function pendingLogin(login) {
  return html`<p class="fix" role="status"><span>Login for <b>${login.credential}</b>: open <a href=${safe(login.url)} target="_blank" rel="noopener noreferrer">the login page</a>${login.code ? html` and enter <code>${login.code}</code>` : nothing}. Waiting.</span></p>`;
}

/** Only addresses of the web become links. @param {string} url */
export const safe = (url) => (/^https?:\/\//i.test(url) ? url : '#');
