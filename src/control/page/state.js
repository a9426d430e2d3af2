// What is shown, and how it gets onto the screen.

/** @type {import('./types').State} */
export const state = {
  view: 'traffic', filter: '', filterError: null, rows: [], open: [], total: 0, notKept: 0, bytes: 0,
  loaded: false, following: true, fresh: 0, paused: false, held: [],
  chosen: null, detail: null, detailError: null, tab: 'overview', send: 0, unfolded: new Set(),
  other: null, comparing: false, editing: null, draft: null, menu: false,
  status: null, rules: null, tokens: null, token: null, asked: null, login: null,
  wonder: '', answer: null, wonderError: null, tool: 'curl',
  lost: null, notice: null, help: false, bodyAs: 'pretty', drawn: 0,
};

let pending = false;
let paint = () => {};

/** Says how to draw. @param {() => void} how */
export function drawWith(how) {
  paint = how;
}

/** Draws with the next frame. */
export function draw() {
  if (pending) return;
  pending = true;
  requestAnimationFrame(() => {
    pending = false;
    state.drawn += 1;
    paint();
  });
}

/** Changes something and draws. @param {Partial<import('./types').State>} change */
export function set(change) {
  Object.assign(state, change);
  draw();
}

/** Says something to a screen reader. @param {string} text */
export function say(text) {
  const voice = document.getElementById('say');
  if (voice) voice.textContent = text;
}

let fading = 0;

/** Shows a remark for a while. @param {string} text */
export function notice(text) {
  say(text);
  set({ notice: text });
  clearTimeout(fading);
  fading = window.setTimeout(() => set({ notice: null }), 8000);
}

/** Runs work whose failure a person should see. @param {() => Promise<void>} work */
export async function attempt(work) {
  try {
    await work();
  } catch (error) {
    notice(error instanceof Error ? error.message : String(error));
  }
  draw();
}

/** Arrows move along a row of tabs or choices. @param {KeyboardEvent} event */
export function arrows(event) {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!step) return;
  const tabs = /** @type {HTMLElement[]} */ ([.../** @type {HTMLElement} */ (event.currentTarget).querySelectorAll('[role=tab], [role=radio]')]);
  const at = tabs.indexOf(/** @type {HTMLElement} */ (document.activeElement));
  const next = tabs[(at + step + tabs.length) % tabs.length];
  next?.click();
  next?.focus();
  event.preventDefault();
  event.stopPropagation();
}
