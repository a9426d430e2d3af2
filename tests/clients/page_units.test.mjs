// Unit tests of the page's pure modules, run by `node --test`.
import assert from 'node:assert/strict';
import { test } from 'node:test';

const at = (name) => new URL(`../../src/control/page/${name}.js`, import.meta.url);
const format = await import(at('format'));
const rows = await import(at('rows'));
const compare = await import(at('compare'));
const draft = await import(at('draft'));

const row = (id, more = {}) => ({ id, sequence: id, kind: 'exchange', started_ms: id * 1000, duration_ms: 10, wait_ms: 8, ours_ms: 1, outcome: 'answered', status: 200, sends: 1, own_sends: 0, ...more });

test('durations keep their units', () => {
  for (const [ms, text] of [[0, '0 ms'], [999.4, '999 ms'], [1000, '1.0 s'], [59_999, '60.0 s'], [60_000, '1:00'], [112_000, '1:52'], [3_723_000, '1:02:03'], [NaN, '']]) assert.equal(format.duration(ms), text);
});

test('sizes are decimal', () => {
  for (const [bytes, text] of [[0, '0 B'], [999, '999 B'], [1000, '1.0 kB'], [18_204, '18.2 kB'], [1_100_000, '1.1 MB'], [2e9, '2.0 GB']]) assert.equal(format.size(bytes), text);
});

test('what is left, and how long ago', () => {
  for (const [seconds, text] of [[-1, 'ended'], [0, 'ended'], [61, '1:01 left'], [3600, '1 h 0 min left'], [200_000, '2 days left']]) assert.equal(format.left(seconds), text);
  for (const [seconds, text] of [[0, '0 s ago'], [59, '59 s ago'], [61, '1 min ago'], [7200, '2 h ago'], [200_000, '2 days ago']]) assert.equal(format.ago(seconds), text);
  assert.equal(format.quiet(8000), '8 s quiet');
  assert.equal(format.quiet(79_000), '1 min 19 s quiet');
});

test('every class of outcome has its own glyph and words', () => {
  const of = (more) => format.outcome(row(1, more));
  const seen = [of({}), of({ status: 304 }), of({ status: 404 }), of({ status: 500 }), of({ outcome: 'refused', status: 403, error: 'denied' }), of({ outcome: 'refused', status: 511, error: 'login-needed' }),
    of({ outcome: 'broken', status: null }), of({ outcome: 'open', status: null }), of({ kind: 'tunnel' })];
  assert.equal(new Set(seen.map((one) => one.glyph)).size, seen.length);
  for (const one of seen) assert.ok(one.spoken.length > 3 && one.text);
  assert.equal(of({ sends: 2 }).note, '×2');
});

test('masked parts stand behind the hatch, what surrounds them stays', () => {
  assert.deepEqual(format.masked('Bearer eyJh…9f2c, x=***&y'), [
    { text: 'Bearer ', masked: false }, { text: 'eyJh', masked: false }, { text: '…', masked: true }, { text: '9f2c', masked: false },
    { text: ', x=', masked: false }, { text: '…', masked: true }, { text: '&y', masked: false }]);
  assert.deepEqual(format.masked('plain'), [{ text: 'plain', masked: false }]);
  assert.deepEqual(format.masked(''), []);
});

test('characters that steer or reorder are visible, line ends stay', () => {
  assert.equal(format.visible('a\u001b]52;\u0007b\u202ec\u200bd\r\n\te'), 'a\\u001b]52;\\u0007b\\u202ec\\u200bd\\u000d\n\te');
  assert.equal(format.visible('grüße 😀'), 'grüße 😀');
});

test('a hex dump has sixteen columns and ends where it is told', () => {
  const bytes = Uint8Array.from({ length: 20 }, (_, index) => index + 60);
  assert.equal(format.hex(bytes), '00000000  3c 3d 3e 3f 40 41 42 43 44 45 46 47 48 49 4a 4b  <=>?@ABCDEFGHIJK\n00000010  4c 4d 4e 4f                                      LMNO');
  assert.match(format.hex(bytes, 16), /\n4 bytes more$/);
  assert.deepEqual([...format.decode('AP8=')], [0, 255]);
});

test('JSON is set out, other text stays', () => {
  assert.equal(format.pretty('{"a":[1]}'), '{\n  "a": [\n    1\n  ]\n}');
  assert.equal(format.pretty('<a>'), '<a>');
});

test('bars add up and stay within the scale', () => {
  for (const one of [row(1), row(1, { duration_ms: 9000 }), row(1, { duration_ms: 0, wait_ms: null, ours_ms: 0 }), row(1, { ours_ms: 50, wait_ms: 80, duration_ms: 100, own_sends: 1 }), row(1, { kind: 'tunnel', wait_ms: null })]) {
    const { parts, cut } = format.bars(one, 500);
    for (const part of parts) assert.ok(part.x >= 0 && part.width > 0 && part.x + part.width <= 1000.001, JSON.stringify(part));
    assert.equal(cut, one.duration_ms > 500);
  }
  assert.equal(format.bars(row(1), 500).parts[0].kind, 'conn');
  assert.equal(format.bars(row(1, { own_sends: 1 }), 500).parts[0].kind, 'ours');
  assert.equal(format.scale([row(1), row(2, { duration_ms: 300 })]), 500);
  assert.equal(format.scale([]), 100);
});

test('sends have names', () => {
  const sends = [{ kind: 'connect' }, { kind: 'request' }, { kind: 'token' }, { kind: 'request' }];
  assert.deepEqual(sends.map((_, index) => format.sendName(sends, index)), ['tunnel', 'first send', 'token', 'sent again']);
  assert.equal(format.sendName([{ kind: 'request' }], 0), 'the request');
  assert.equal(format.sendName([], 0), '');
});

test('a token tells how fetching it goes', () => {
  const good = { credential: 'a', state: 'good', last_refresh: '2026-01-02T03:04:05Z', refreshed: 2, failed: 1, failures: 0, waiters: 0 };
  assert.equal(format.trouble(good), '');
  assert.deepEqual(format.doings(good).filter(([, what]) => what).map(([name]) => name), ['last fetch', 'fetched', 'failed']);
  const bad = { ...good, failures: 3, failed: 4, waiters: 1 };
  assert.equal(format.trouble(bad), 'The last 3 fetches failed');
  assert.deepEqual(format.doings(bad).slice(2), [['failed', '4 times, 3 in a row now'], ['waiting', '1 request']]);
  assert.equal(format.trouble({ credential: 'a', state: 'empty' }), '');
});

test('rows are kept by number, once, and not more than fit', () => {
  const kept = [];
  for (const id of [2, 1, 3, 2]) rows.insert(kept, row(id));
  assert.deepEqual(kept.map((one) => one.id), [1, 2, 3]);
  assert.equal(rows.insert(kept, row(2)), false);
  for (let id = 4; id < rows.MAX_ROWS + 10; id += 1) rows.insert(kept, row(id));
  assert.equal(kept.length, rows.MAX_ROWS);
  assert.equal(kept[0].id, 10);
  assert.deepEqual(rows.merged([row(1), row(3)], [row(2)]).map((one) => one.id), [1, 2, 3]);
});

test('lines: rows, sends of the unfolded one, gaps', () => {
  const all = [row(1), row(2), row(20)];
  const detail = { id: 2, sends: [{ kind: 'request' }, { kind: 'request' }] };
  assert.deepEqual(rows.lines(all, new Set(), null).map((line) => line.kind), ['row', 'row', 'gap', 'row']);
  assert.deepEqual(rows.lines(all, new Set([2]), detail).map((line) => line.kind), ['row', 'row', 'send', 'send', 'gap', 'row']);
  assert.deepEqual(rows.lines(all, new Set([1]), detail).map((line) => line.kind), ['row', 'row', 'gap', 'row']);
});

test('the window covers what is on the screen, at every position', () => {
  const lines = Array.from({ length: 5000 }, (_, index) => ({ kind: index % 7 ? (index % 11 ? 'row' : 'gap') : 'send' }));
  const heights = { row: 28, send: 24, gap: 22 };
  const offsets = rows.offsets(lines, heights);
  assert.equal(offsets[5000], lines.reduce((sum, line) => sum + heights[line.kind], 0));
  for (let y = 0; y < offsets[5000]; y += 997) {
    const { from, to } = rows.shown(offsets, y, 700, 3);
    assert.ok(offsets[from] <= y && (to === 5000 || offsets[to] >= Math.min(y + 700, offsets[5000])), `at ${y}`);
    assert.ok(to - from < 60);
    const index = rows.lineAt(offsets, y);
    assert.ok(offsets[index] <= y && y < offsets[index + 1]);
  }
  assert.deepEqual(rows.shown(new Float64Array(1), 0, 700, 3), { from: 0, to: 0 });
});

test('words of a filter keep their quotes, names become terms', () => {
  assert.deepEqual(rows.words('host:a  body:"not found" -x "a \\" b"'), ['host:a', 'body:"not found"', '-x', '"a \\" b"']);
  assert.deepEqual(rows.words(''), []);
  assert.equal(rows.term('rule', 'Acme'), 'rule:Acme');
  assert.equal(rows.term('rule', 'a "b" c'), 'rule:"a \\"b\\" c"');
});

test('a comparison finds the longest common lines', () => {
  assert.deepEqual(compare.lines(['a', 'b', 'c'], ['a', 'x', 'c']), [['', 'a'], ['−', 'b'], ['+', 'x'], ['', 'c']]);
  assert.deepEqual(compare.lines([], ['a']), [['+', 'a']]);
  assert.deepEqual(compare.lines(['a'], []), [['−', 'a']]);
  const one = { method: 'GET', url: 'http://a/', response: { status: 200 }, sends: [{ kind: 'request', request: { headers: [['x', '1']], body: '{"b":1}' }, response: { headers: [], body: 'ok' } }] };
  assert.deepEqual(compare.text(one), ['GET http://a/', '> x: 1', '> {', '>   "b": 1', '> }', 'status 200', '< ok']);
  assert.equal(compare.text({ method: 'GET', url: 'u', sends: [{ kind: 'request', response: { headers: [], body: 'x\n'.repeat(9000) } }] }).length, 1500);
});

test('a drafted rule is YAML whatever the host is called', () => {
  assert.equal(draft.rule({ target: 'https://api.example:8443' }, ['hub']), '  - name: api.example\n    host: "api.example:8443"\n    auth: hub\n');
  assert.equal(draft.rule({ target: null, url: 'http://[::1]:81/x' }, []), '  - name: "[::1]"\n    host: "http://[::1]:81"\n    auth: none\n');
  assert.match(draft.rule({ target: 'https://a"}\nx: y' }, []), /name: "a\\"}\\nx: y"/);
  for (const odd of ['no', 'true', '1', '- a', '#x', '{}']) assert.equal(draft.quoted(odd), JSON.stringify(odd));
});

test('an edit leaves out what was masked and what belongs to the connection', () => {
  const found = { method: 'POST', url: 'http://a/', request: { headers: [['host', 'a'], ['authorization', 'Bearer eyJh…9f2c'], ['x-one', '1'], ['cookie', 'a=***']] }, sends: [{ kind: 'request', request: { body: 'password=***' } }] };
  assert.deepEqual(draft.edit(found), { method: 'POST', url: 'http://a/', headers: 'x-one: 1', body: '' });
  assert.deepEqual(draft.pairs('a: b: c\nnothing\n x :y '), [['a', 'b: c'], ['x', 'y']]);
});
