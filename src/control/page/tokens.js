// Tokens: grouped by what they ask of the person.

import { html, nothing } from './lit-html.js';
import * as api from './api.js';
import { attempt, draw, notice, refreshFacts, setFilter, show, state as page } from './main.js';
import { left } from './format.js';
import { icon, pairs, section, wire } from './parts.js';

const needs = (/** @type {any} */ token) => token.state === 'login-needed' || token.state === 'unknown';

/** Tells tokens apart: clients of the proxy may have their own. @param {any} token */
const id = (token) => `${token.credential}/${token.client ?? ''}`;

/** @param {any[]} tokens */
export const needy = (tokens) => tokens.filter(needs).length;

/** @param {any} state */
export function tokens(state) {
  if (!state.tokens) return html`<p class="lead dim">Reading.</p>`;
  if (!state.tokens.length) return html`<div class="lead"><p>No credential holds tokens.</p><p class="dim">Credentials of type oauth2 and others that fetch tokens show up here.</p></div>`;
  const groups = [['Needs you', state.tokens.filter(needs)], ['Working', state.tokens.filter((/** @type {any} */ one) => !needs(one) && one.expires)], ['Never expire, or not fetched yet', state.tokens.filter((/** @type {any} */ one) => !needs(one) && !one.expires)]];
  const chosen = state.tokens.find((/** @type {any} */ one) => id(one) === state.token);
  return html`<div class="pages"><div class="pagebody"><h1>Tokens</h1>
    ${state.login ? pendingLogin(state.login) : nothing}
    ${groups.filter(([, list]) => list.length).map(([name, list]) => html`<h2>${name}</h2><ul class="tokens">${list.map(line)}</ul>`)}</div>
    ${chosen ? html`<aside class="pane side" aria-label=${name(chosen)}>${one(chosen)}</aside>` : nothing}</div>`;
}

/** @param {any} token */
const name = (token) => (token.client ? `${token.credential}, client ${token.client}` : token.credential);

/** @param {any} token */
function sentence(token) {
  switch (token.state) {
    case 'good': return token.expires_in === undefined ? 'Good.' : `Good, ${left(token.expires_in)}.`;
    case 'expired': return 'Expired. The next request refreshes it.';
    case 'login-needed': return 'Login needed.';
    case 'empty': return 'Not fetched yet. The first request fetches it.';
    default: return token.notes?.[0] ?? token.state;
  }
}

/** @param {any} token */
function line(token) {
  const tone = token.state === 'good' ? 'ok' : needs(token) ? 'bad' : token.state === 'expired' ? 'warn' : 'dim';
  const asked = page.asked === id(token);
  return html`<li class=${page.token === id(token) ? 'chosen' : ''}>
    ${icon(token.state === 'good' ? 'ok' : needs(token) ? 'refused' : token.state === 'expired' ? 'warn' : 'open', tone)}
    <button class="name" @click=${() => { page.token = id(token); draw(); }}><b>${name(token)}</b><span class="dim">${token.grant}</span></button>
    <span class="sentence">${sentence(token)}</span>
    <span class="acts">${needs(token) ? html`<button class="main" @click=${() => login(token)}>Log in</button>` : html`<button class="quiet" @click=${() => act('refresh', token)}>Refresh</button>`}
      ${asked ? html`<span>Revoke? </span><button class="quiet bad" @click=${() => act('revoke', token)}>Revoke</button><button class="quiet" @click=${() => { page.asked = null; draw(); }}>Keep</button>`
    : html`<button class="quiet" @click=${() => { page.asked = id(token); draw(); }}>Revoke</button>`}</span>
  </li>`;
}

/** @param {any} token */
function one(token) {
  const life = token.issued && token.expires ? Date.parse(token.expires) - Date.parse(token.issued) : 0;
  const used = life ? Math.min(1, Math.max(0, 1 - (token.expires_in * 1000) / life)) : 0;
  return html`<h2>${name(token)}</h2><p class="dim">${token.grant}${token.endpoint ? html` at <code>${token.endpoint}</code>` : nothing}</p>
    ${token.expires_in === undefined ? nothing : html`<p class="big">${left(token.expires_in)}</p>`}
    ${life ? html`<svg class="wf long" viewBox="0 0 1000 12" preserveAspectRatio="none" aria-hidden="true"><rect class="w-conn" x="0" y="4" width="1000" height="4"></rect><rect class="w-ours" x=${used * 1000} y="4" width=${(1 - used) * 1000} height="4"></rect></svg>` : nothing}
    ${section('Token', pairs([['Issued', token.issued], ['Expires', token.expires], ['Type', token.token_type], ['Scope', token.scope], ['Audience', token.audience?.join(', ')], ['Access token', token.access_token ? wire(token.access_token) : null],
      ['Refresh token', token.refresh_token ? wire(token.refresh_token) : null], ['ID token', token.id_token ? wire(token.id_token) : null], ['Bound to', token.bound_to]]))}
    ${token.claims && Object.keys(token.claims).length ? section('Claims', pairs(Object.entries(token.claims).map(([name, value]) => [name, typeof value === 'object' ? JSON.stringify(value) : String(value)]))) : nothing}
    ${token.notes?.length ? section('Notes', html`<ul>${token.notes.map((/** @type {string} */ note) => html`<li>${note}</li>`)}</ul>`) : nothing}
    <button class="link" @click=${() => { setFilter(`cred:${token.credential}`); show('traffic'); }}>Its traffic</button>`;
}

/** @param {any} login */
function pendingLogin(login) {
  return html`<section class="banner" role="status"><span>Login for <b>${login.credential}</b>: open <a href=${safe(login.url)} target="_blank" rel="noopener noreferrer">the login page</a>${login.code ? html` and enter <code>${login.code}</code>` : nothing}. Waiting.</span></section>`;
}

/** Only addresses of the web become links. @param {string} url */
export const safe = (url) => (/^https?:\/\//i.test(url) ? url : '#');

/** @param {string} what @param {any} token */
const act = (what, token) => attempt(async () => {
  page.asked = null;
  const done = await api.tokens(what, { credential: token.credential, client: token.client ?? null });
  notice(done.message ?? 'Done');
  await refreshFacts();
});

/** @param {any} token */
const login = (token) => attempt(async () => {
  page.login = await api.tokens('login', { credential: token.credential, client: token.client ?? null });
  draw();
  for (let turn = 0; turn < 60 && page.login; turn += 1) {
    const done = await api.tokens('await', { id: page.login.id, seconds: 10 });
    if (done.state === 'pending') continue;
    page.login = null;
    notice(`${name(token)} is logged in`);
    return refreshFacts();
  }
  page.login = null;
});
