// Texts that a person takes away: a rule for a host, the fields of a request to edit. Pure: no DOM.

/**
 * A rule for the host of an exchange, to be put under `rules:`.
 * @param {import('./types').Detail} found @param {string[]} credentials those that are configured
 */
export function rule(found, credentials) {
  const target = found.target ?? hostOf(found.url ?? '');
  const host = target.replace(/^https:\/\//, '');
  const name = host.replace(/^http:\/\//, '').replace(/:\d+$/, '');
  const auth = credentials[0] ?? 'none';
  return `  - name: ${quoted(name)}\n    host: ${quoted(host)}\n    auth: ${quoted(auth)}\n`;
}

/** @param {string} url */
function hostOf(url) {
  const found = /^(https?:\/\/[^/?#]*)/.exec(url);
  return found ? found[1] : url;
}

/** A YAML scalar that is this text and nothing else. @param {string} text */
export const quoted = (text) => (/^[A-Za-z][\w.-]*$/.test(text) && !/^(true|false|null|yes|no|on|off|y|n)$/i.test(text) ? text : JSON.stringify(text));

const LEFT_OUT = ['host', 'content-length', 'proxy-connection', 'connection', 'proxy-authorization', 'transfer-encoding', 'content-encoding'];

/** The request of an exchange as fields to edit; masked values stay out. @param {import('./types').Detail} found */
export function edit(found) {
  const first = found.sends?.find((send) => send.kind === 'request');
  const masked = (/** @type {string} */ value) => /…|\*\*\*/.test(value);
  const headers = (found.request?.headers ?? []).filter(([name, value]) => !masked(value) && !LEFT_OUT.includes(name.toLowerCase()));
  const body = first?.request?.body ?? '';
  return { method: found.method, url: found.url ?? '', headers: headers.map(([name, value]) => `${name}: ${value}`).join('\n'), body: masked(body) ? '' : body };
}

/** Lines `name: value` as pairs. @param {string} text @returns {import('./types').Header[]} */
export function pairs(text) {
  return text.split('\n').filter((line) => line.includes(':')).map((line) => {
    const at = line.indexOf(':');
    return [line.slice(0, at).trim(), line.slice(at + 1).trim()];
  });
}
