// The arithmetic of the list: which lines there are, where they stand, and which of them are on the screen. Pure: no DOM.

/** @typedef {import('./types').Row} Row */
/** @typedef {import('./types').Line} Line */
/** @typedef {import('./types').Detail} Detail */

/** A pause in the traffic that is worth a line. */
export const GAP_MS = 5000;
/** Rows kept in the page. */
export const MAX_ROWS = 5000;

/** Finished and open rows by number. @param {Row[]} rows @param {Row[]} open */
export const merged = (rows, open) => (open.length ? [...rows, ...open].sort((a, b) => a.id - b.id) : rows);

/**
 * Puts a row where its number belongs. The oldest goes where there are too many.
 * @param {Row[]} rows by number @param {Row} row
 * @returns {boolean} false if it was there
 */
export function insert(rows, row) {
  let low = 0;
  let high = rows.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (rows[middle].id < row.id) low = middle + 1;
    else high = middle;
  }
  if (rows[low]?.id === row.id) return false;
  rows.splice(low, 0, row);
  if (rows.length > MAX_ROWS) rows.shift();
  return true;
}

/**
 * The lines of the list: rows, the sends of unfolded ones, and gaps.
 * @param {Row[]} rows @param {Set<number>} unfolded @param {Detail | null} detail
 * @returns {Line[]}
 */
export function lines(rows, unfolded, detail) {
  /** @type {Line[]} */ const out = [];
  let last = 0;
  for (const row of rows) {
    if (last && row.started_ms - last > GAP_MS) out.push({ kind: 'gap', row, gap: row.started_ms - last });
    last = Math.max(last, row.started_ms + row.duration_ms);
    out.push({ kind: 'row', row });
    if (detail?.id === row.id && unfolded.has(row.id) && (detail.sends?.length ?? 0) > 1) {
      for (const [at, send] of (detail.sends ?? []).entries()) out.push({ kind: 'send', row, send, at });
    }
  }
  return out;
}

/**
 * Where each line begins; one more for the end.
 * @param {Line[]} lines @param {{row: number, send: number, gap: number}} heights
 */
export function offsets(lines, heights) {
  const at = new Float64Array(lines.length + 1);
  for (let index = 0; index < lines.length; index += 1) at[index + 1] = at[index] + heights[lines[index].kind];
  return at;
}

/** The line that covers a height. @param {Float64Array} at @param {number} y */
export function lineAt(at, y) {
  let low = 0;
  let high = Math.max(0, at.length - 2);
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (at[middle] <= y) low = middle;
    else high = middle - 1;
  }
  return low;
}

/**
 * The lines to draw for a part of the list, with some to spare on both sides.
 * @param {Float64Array} at @param {number} top @param {number} height @param {number} spare
 */
export function shown(at, top, height, spare) {
  const count = at.length - 1;
  if (count <= 0) return { from: 0, to: 0 };
  return { from: Math.max(0, lineAt(at, top) - spare), to: Math.min(count, lineAt(at, top + height) + 1 + spare) };
}

/** The words of a filter, quotes kept together. @param {string} filter */
export const words = (filter) => filter.match(/(?:[^\s"]|"(?:\\.|[^"\\])*")+/g) ?? [];

/** A term for a name that may hold blanks and quotes. @param {string} term @param {string} name */
export const term = (term, name) => (/^[\w.*-]+$/.test(name) ? `${term}:${name}` : `${term}:"${name.replace(/["\\]/g, '\\$&')}"`);
