/** The bench of one widget: what Python says, as signals, and the ways to ask and to act. */
import { batch, computed, signal } from "@preact/signals";
import { Shown } from "./state.js";
import { Dropped, Wire } from "./wire.js";

const NOTHING = Object.freeze({
  run: null, layer: null, position: null, head: null, expert: null, site: null, key: null, token: null, span: null,
});

export class Bench {
  #shown = new Shown();
  #streams = new Map(); // view → Set of listeners
  #busy = new Map(); // key → { next } : a change of that key is on its way, `next` waits behind it
  #closed = false;

  /** Python's state, with what was just done here laid over it; null before Python has answered. */
  state = this.#shown.state;
  selection = computed(() => this.state.value?.selection ?? NOTHING);
  revision = computed(() => this.state.value?.revision ?? null);
  jobs = signal([]);
  memory = signal(null);
  theme = signal("light");
  /** Device pixels to a CSS pixel: what is painted on a canvas is painted again where it changes. */
  sharpness = signal(1);
  /** What the mouse is on, shared by all views and never sent: { position, key, layer, head, expert } or null. */
  hover = signal(null);
  /** The last thing that went wrong, or was done, in words: { kind: "error"|"note", text } or null. */
  notice = signal(null);
  connected = signal(true);
  /** The tab that is in front; null: the first. */
  active = signal(null);
  /** Counts the times that we said hello: data is asked again after each. */
  session = signal(0);

  constructor(model) {
    this.model = model;
    this.wire = new Wire(model, {
      state: (state) => this.#receive(state),
      jobs: (jobs, memory) => batch(() => ((this.jobs.value = jobs ?? []), (this.memory.value = memory))),
      stream: (view, key, json, arrays) => this.#streams.get(view)?.forEach((listen) => listen(key, json, arrays)),
      fault: (error) => this.fail(error),
    });
    this.onLive = () => this.#reconnect();
    model.on("comm_live_update", this.onLive);
    this.hello();
  }

  /** Says hello; Python answers with its state. */
  hello() {
    if (!this.#closed) this.wire.hello();
  }

  /** The kernel went away or came back: what was under way will not be answered, and data are asked anew. */
  #reconnect() {
    if (this.#closed) return;
    this.#busy.clear();
    this.#shown.clear();
    this.connected.value = false;
    this.wire.drop("the kernel was restarted or is gone; run the cell again");
    this.session.value += 1;
    this.hello();
  }

  /** A computed part of the state, that changes only when that part says something else. */
  part(/** @type {string} */ name, fallback = null) {
    return computed(() => this.state.value?.[name] ?? fallback);
  }

  /**
   * Has Python do something. Rejects with the reason, in words, which also goes to the status line unless `quiet`.
   * @returns {Promise<object>}
   */
  act(view, action, { quiet = false } = {}) {
    const answer = this.wire.act(view, action);
    answer.catch((error) => {
      if (!quiet) this.fail(error);
    });
    return answer;
  }

  /** Merges fields into the selection, shown at once; null clears a field. */
  select(/** @type {object} */ fields) {
    this.change("select", { kind: "select", ...fields }, (state) => ({
      ...state,
      selection: { ...state.selection, ...cleared(fields, state.selection.layer) },
    }));
  }

  /** Sets options of a view, shown at once. Kept in Python, and in a saved workspace. */
  option(/** @type {string} */ view, /** @type {object} */ values) {
    this.change(`option ${view}`, { kind: "option", view, values }, (state) => ({
      ...state,
      options: { ...state.options, [view]: { ...state.options?.[view], ...values } },
    }));
  }

  /**
   * A change that the screen shows before Python has confirmed it. While one of a key is on its way, newer ones of that
   * key are merged into one that waits: holding an arrow key does not fill the kernel's queue.
   */
  change(key, action, show) {
    const patch = this.#shown.lay(show);
    const busy = this.#busy.get(key);
    if (busy) {
      busy.action = busy.action ? merged(busy.action, action) : action;
      busy.patches.push(patch);
      return;
    }
    this.#send(key, action, [patch]);
  }

  #send(key, action, patches) {
    const busy = { action: null, patches: [] };
    this.#busy.set(key, busy);
    const after = (settle) => {
      batch(() => patches.forEach(settle));
      if (this.#busy.get(key) !== busy) return;
      this.#busy.delete(key);
      if (busy.action) this.#send(key, busy.action, busy.patches);
    };
    this.act("bench", action).then(
      () => after((patch) => this.#shown.confirm(patch)),
      () => after((patch) => this.#shown.lift(patch)),
    );
  }

  /** Listens to what Python streams to a view. Returns a function that stops it. */
  listen(view, listener) {
    if (!this.#streams.has(view)) this.#streams.set(view, new Set());
    this.#streams.get(view).add(listener);
    return () => this.#streams.get(view)?.delete(listener);
  }

  /** Shows that something went wrong. */
  fail(/** @type {Error} */ error) {
    if (error instanceof Dropped) return;
    console.error(error);
    this.notice.value = { kind: "error", text: error?.message || String(error) };
  }

  /** Shows that something was done. */
  note(/** @type {string} */ text) {
    this.notice.value = { kind: "note", text };
  }

  close() {
    this.#closed = true;
    this.model.off("comm_live_update", this.onLive);
    this.#streams.clear();
    this.wire.close();
  }

  #receive(state) {
    batch(() => {
      this.connected.value = true;
      this.#shown.receive(state);
    });
  }
}

const COMPONENTS = ["head", "expert", "site"];

/** A change of the selection with what it clears: of head, expert and site one is chosen, and only in one layer. */
export function cleared(fields, layer) {
  const made = { ...fields };
  const other = "layer" in fields && fields.layer !== layer;
  const given = COMPONENTS.some((name) => fields[name] !== null && fields[name] !== undefined);
  if (other || given) for (const name of [...COMPONENTS, "key"]) made[name] ??= null;
  if ("position" in fields && !("span" in fields)) made.span = null;
  return made;
}

/** Two changes of one key, one after the other, as one. */
export function merged(older, newer) {
  if (newer.values) return { ...newer, values: { ...older.values, ...newer.values } };
  return newer.kind === "select" ? { ...older, ...cleared(newer, undefined) } : { ...older, ...newer };
}
