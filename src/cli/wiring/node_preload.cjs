// Written by countersign. Versions of Node.js before 22.21 and 24.5 do not follow HTTP_PROXY and HTTPS_PROXY; loaded by
// `--require`, this teaches http, https and fetch to. Newer versions do it themselves (NODE_USE_ENV_PROXY) and skip it.
'use strict';

(() => {
  const [major, minor] = process.versions.node.split('.').map(Number);
  if (major > 24 || (major === 24 && minor >= 5) || (major === 22 && minor >= 21)) return;

  const http = require('http');
  const https = require('https');
  const net = require('net');

  const read = (name) => process.env[name.toLowerCase()] || process.env[name.toUpperCase()] || '';

  const parse = (text) => {
    if (!text) return null;
    let url;
    try {
      url = new URL(text.includes('://') ? text : `http://${text}`);
    } catch {
      return null;
    }
    if (url.protocol !== 'http:') return null;
    const user = decodeURIComponent(url.username);
    const login = user ? Buffer.from(`${user}:${decodeURIComponent(url.password)}`).toString('base64') : '';
    return {
      host: url.hostname.replace(/^\[|\]$/g, ''),
      port: Number(url.port || 80),
      authorization: login ? `Basic ${login}` : null,
    };
  };

  const proxies = {
    'http:': parse(read('http_proxy') || read('all_proxy')),
    'https:': parse(read('https_proxy') || read('all_proxy')),
  };
  if (!proxies['http:'] && !proxies['https:']) return;

  const direct = read('no_proxy').split(/[\s,]+/).filter(Boolean).map((entry) => {
    const match = /^(.*?)(?::(\d+))?$/.exec(entry.includes(']') || entry.split(':').length === 2 ? entry : `[${entry}]`);
    const host = match[1].replace(/^\[|\]$/g, '').replace(/^\*?\./, '').toLowerCase();
    return { host, port: match[2] ? Number(match[2]) : 0, all: entry === '*' };
  });

  // The proxy for a destination, or null if it is reached directly.
  const proxyFor = (protocol, host, port) => {
    const proxy = proxies[protocol];
    if (!proxy || !host) return null;
    const name = String(host).replace(/^\[|\]$/g, '').toLowerCase();
    const number = Number(port) || (protocol === 'https:' ? 443 : 80);
    const skipped = direct.some((entry) => entry.all ||
      ((!entry.port || entry.port === number) && (name === entry.host || name.endsWith(`.${entry.host}`))));
    return skipped ? null : proxy;
  };

  const authority = (host, port) => {
    const bare = String(host).replace(/^\[|\]$/g, '');
    return `${bare.includes(':') ? `[${bare}]` : bare}:${port}`;
  };

  // A tunnel through the proxy: done(error) or done(null, socket).
  const tunnel = (proxy, host, port, done) => {
    const target = authority(host, port);
    const headers = { host: target };
    if (proxy.authorization) headers['proxy-authorization'] = proxy.authorization;
    const request = http.request({
      method: 'CONNECT',
      path: target,
      headers,
      createConnection: () => net.connect({ host: proxy.host, port: proxy.port }),
    });
    request.once('connect', (response, socket, head) => {
      if (response.statusCode !== 200) {
        socket.destroy();
        const why = response.headers['x-countersign-error'];
        done(new Error(`the proxy answered ${response.statusCode} to CONNECT ${target}${why ? ` (${why})` : ''}`));
        return;
      }
      if (head.length) socket.unshift(head);
      done(null, socket);
    });
    request.once('response', (response) => {
      response.resume();
      done(new Error(`the proxy answered ${response.statusCode} to CONNECT ${target}`));
    });
    request.once('error', done);
    request.end();
  };

  // https: every agent that makes its connections as the built-in one does.
  const connectTls = https.Agent.prototype.createConnection;
  https.Agent.prototype.createConnection = function createConnection(...args) {
    const options = typeof args[0] === 'object' && args[0] !== null ? args[0] : args.find((arg) => arg && typeof arg === 'object');
    const done = args.find((arg) => typeof arg === 'function');
    const proxy = options && done && !options.socketPath && !options.socket &&
      proxyFor('https:', options.host || options.hostname, options.port);
    if (!proxy) return connectTls.apply(this, args);
    tunnel(proxy, options.host || options.hostname, options.port || 443, (error, socket) => {
      if (error) return done(error);
      try {
        done(null, connectTls.call(this, { ...options, socket }));
      } catch (failure) {
        done(failure);
      }
      return undefined;
    });
    return undefined;
  };

  // http: the request goes to the proxy in absolute form. Agents that are proxies themselves are left alone.
  const addRequest = http.Agent.prototype.addRequest;
  http.Agent.prototype.addRequest = function patchedAddRequest(request, options, ...rest) {
    const own = typeof this.connect === 'function' || typeof this.callback === 'function';
    const plain = (options.protocol || this.protocol) === 'http:' && this.protocol !== 'https:';
    const proxy = plain && !own && !options.socketPath && request.method !== 'CONNECT' &&
      proxyFor('http:', options.host || options.hostname, options.port);
    if (!proxy) return addRequest.call(this, request, options, ...rest);
    const port = Number(options.port) || 80;
    const host = request.getHeader('host') || authority(options.host || options.hostname, port).replace(/:80$/, '');
    rewrite(request, `http://${host}${request.path}`, proxy);
    const next = { ...options, host: proxy.host, hostname: proxy.host, port: proxy.port, servername: undefined };
    return addRequest.call(this, request, next, ...rest);
  };

  const rewrite = (request, path, proxy) => {
    const written = request._header;
    request.path = path;
    if (!written) {
      if (proxy.authorization) request.setHeader('proxy-authorization', proxy.authorization);
      return;
    }
    // The head was made when the request was: its first line and one field are changed in the text.
    const end = written.indexOf('\r\n');
    const line = `${request.method} ${path} HTTP/1.1\r\n`;
    const field = proxy.authorization ? `proxy-authorization: ${proxy.authorization}\r\n` : '';
    const head = line + field + written.slice(end + 2);
    const queued = request.outputData && request.outputData[0];
    if (queued && typeof queued.data === 'string' && queued.data.startsWith(written)) {
      queued.data = head + queued.data.slice(written.length);
      if (typeof request.outputSize === 'number') request.outputSize += head.length - written.length;
    }
    request._header = head;
  };

  // fetch: the built-in undici keeps its dispatcher under a well-known symbol once it is loaded, and its class with it.
  const SYMBOL = Symbol.for('undici.globalDispatcher.1');
  let installed = false;
  const install = () => {
    if (installed) return;
    installed = true;
    const before = globalThis[SYMBOL];
    const Agent = before && before.constructor;
    if (typeof Agent !== 'function' || typeof before.dispatch !== 'function') return;
    const tls = require('tls');

    const tunnelled = new Agent({
      allowH2: false,
      connect: (options, done) => {
        const port = Number(options.port) || (options.protocol === 'https:' ? 443 : 80);
        const proxy = proxyFor(options.protocol, options.hostname, port);
        tunnel(proxy, options.hostname, port, (error, socket) => {
          if (error) return done(error, null);
          if (options.protocol !== 'https:') return done(null, socket);
          const name = options.servername || options.hostname;
          const secure = tls.connect({
            socket,
            servername: net.isIP(name.replace(/^\[|\]$/g, '')) ? undefined : name,
            host: options.hostname.replace(/^\[|\]$/g, ''),
            ALPNProtocols: ['http/1.1'],
          });
          secure.once('secureConnect', () => done(null, secure));
          secure.once('error', (failure) => done(failure, null));
          return undefined;
        });
      },
    });

    const proxied = Object.create(before, {
      dispatch: {
        value: (options, handler) => {
          let origin;
          try {
            origin = new URL(options.origin);
          } catch {
            return before.dispatch(options, handler);
          }
          const proxy = proxyFor(origin.protocol, origin.hostname, origin.port);
          if (!proxy) return before.dispatch(options, handler);
          if (origin.protocol === 'https:' || options.upgrade) return tunnelled.dispatch(options, handler);
          return before.dispatch(absolute(options, origin, proxy), handler);
        },
      },
      close: { value: (...args) => before.close(...args) },
      destroy: { value: (...args) => before.destroy(...args) },
    });
    Object.defineProperty(globalThis, SYMBOL, { value: proxied, writable: true, enumerable: false, configurable: false });
  };

  // A plain request in absolute form over a connection to the proxy.
  const absolute = (options, origin, proxy) => {
    const headers = [];
    const given = options.headers || [];
    if (Array.isArray(given)) {
      headers.push(...given.flat());
    } else if (typeof given[Symbol.iterator] === 'function') {
      for (const [name, value] of given) headers.push(name, value);
    } else {
      for (const [name, value] of Object.entries(given)) headers.push(name, value);
    }
    const has = headers.some((name, at) => at % 2 === 0 && String(name).toLowerCase() === 'host');
    if (!has) headers.push('host', origin.host);
    if (proxy.authorization) headers.push('proxy-authorization', proxy.authorization);
    return {
      ...options,
      origin: `http://${authority(proxy.host, proxy.port)}`,
      path: origin.origin + options.path,
      headers,
    };
  };

  const fetch = globalThis.fetch;
  if (typeof fetch === 'function') {
    const patched = function fetch(...args) {
      if (!installed) {
        // Makes undici load and set its dispatcher; nothing is sent.
        inner('data:,').catch(() => {});
        install();
      }
      return inner(...args);
    };
    const inner = fetch;
    Object.defineProperty(globalThis, 'fetch', { value: patched, writable: true, enumerable: true, configurable: true });
  }
})();
