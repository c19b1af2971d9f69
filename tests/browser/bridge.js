// What JupyterLab gives a widget, as little as anywidget's own script needs: models with events and a comm, views.
// The real anywidget script runs on top of it, so loading, styles, order and cleaning up are as in a notebook.

class Events {
  #handlers = []; // [name, callback, context]
  on(name, callback, context) { for (const one of name.split(" ")) this.#handlers.push([one, callback, context]); return this; }
  once(name, callback, context) {
    const once = (...args) => { this.off(name, once); callback.apply(context ?? this, args); };
    return this.on(name, once, context);
  }
  off(name, callback, context) {
    const differs = (given, own) => given != null && given !== own;
    const names = name?.split(" ");
    this.#handlers = this.#handlers.filter(([n, f, c]) => (names && !names.includes(n)) || differs(callback, f) || differs(context, c));
    return this;
  }
  trigger(name, ...args) {
    for (const [n, f, c] of [...this.#handlers]) if (n === name) f.apply(c ?? this, args);
    return this;
  }
}

class DOMWidgetModel extends Events {
  constructor(id, attributes) {
    super();
    this.model_id = id;
    this.attributes = attributes;
    this.changed = {};
    this.views = {};
    this.widget_manager = manager;
    this.initialize(attributes, { model_id: id });
  }
  initialize() {}
  get(name) { return this.attributes[name]; }
  set(names, value) {
    const given = typeof names === "string" ? { [names]: value } : names;
    for (const name of Object.keys(given)) this.changed[name] = given[name];
    return this.assign(given);
  }
  assign(given) {
    const fresh = Object.keys(given).filter((name) => this.attributes[name] !== given[name]);
    Object.assign(this.attributes, given);
    for (const name of fresh) this.trigger(`change:${name}`, this, given[name], {});
    if (fresh.length) this.trigger("change", this, {});
    return this;
  }
  save_changes() {
    const buffers = [], buffer_paths = [], state = this.serialize(this.changed);
    this.changed = {};
    for (const name of Object.keys(state)) if (isBinary(state[name])) {
      buffers.push(state[name]); buffer_paths.push([name]); delete state[name];
    }
    post(this.model_id, { method: "update", state, buffer_paths }, buffers);
  }
  send(content, callbacks, buffers) { post(this.model_id, { method: "custom", content }, buffers ?? []); }
  serialize(state) { return { ...state }; }
  async _handle_comm_msg(message) {
    const { data } = message.content;
    if (data.method === "custom") this.trigger("msg:custom", data.content, message.buffers);
    else if (data.method === "close") this.close();
    else this.assign(withBuffers(data.state, data.buffer_paths, message.buffers));
  }
  close() {
    for (const view of Object.values(this.views)) view.remove();
    models.delete(this.model_id);
    this.trigger("destroy", this, {});
    this.off();
  }
}

class DOMWidgetView extends Events {
  constructor({ model }) {
    super();
    this.model = model;
    this.el = document.createElement("div");
    this.el.className = "lm-Widget jupyter-widgets";
    this.$el = { empty: () => this.el.replaceChildren() };
  }
  remove() { this.trigger("remove"); this.el.remove(); }
}

const isBinary = (value) => ArrayBuffer.isView(value) || value instanceof ArrayBuffer;
const models = new Map();
const manager = { get_model: async (id) => models.get(id), has_model: (id) => models.has(id) };

function withBuffers(state, paths, buffers) {
  (paths ?? []).forEach((path, i) => {
    const holder = path.slice(0, -1).reduce((at, key) => at[key], state);
    holder[path.at(-1)] = buffers[i];
  });
  return state;
}

// ---------------------------------------------------------------- the wire (see pack and unpack in bridge.py)

let socket = null;
const crossed = { received: 0, sent: 0 }; // messages that this page has handled, and has given to the socket

function connect() {
  socket = new WebSocket(`ws://${location.host}/wire`);
  socket.binaryType = "arraybuffer";
  socket.onmessage = ({ data: frame }) => {
    const message = unpack(frame);
    crossed.received++;
    if (message.data.method === "open") return open(message);
    models.get(message.comm)?._handle_comm_msg({ content: { data: message.data }, buffers: message.buffers });
  };
}

function unpack(frame) {
  const n = new DataView(frame).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(frame, 4, n)));
  let at = 4 + n;
  const buffers = header.sizes.map((size) => {
    at += 1 + (at % 2);
    const view = new DataView(frame, at, size);
    at += size;
    return view;
  });
  return { ...header, buffers };
}

function post(comm, data, buffers = []) {
  const bytes = buffers.map((b) => (b instanceof ArrayBuffer ? new Uint8Array(b) : new Uint8Array(b.buffer, b.byteOffset, b.byteLength)));
  const text = new TextEncoder().encode(JSON.stringify({ comm, data, sizes: bytes.map((b) => b.length) }));
  let length = 4 + text.length;
  const starts = bytes.map((b) => { const start = length + 1 + (length % 2); length = start + b.length; return start; });
  const frame = new Uint8Array(length);
  new DataView(frame.buffer).setUint32(0, text.length, true);
  frame.set(text, 4);
  bytes.forEach((b, i) => frame.set(b, starts[i]));
  crossed.sent++;
  socket.send(frame);
}

// ---------------------------------------------------------------- models and views

let AnyModel, AnyView;
// anywidget's script calls this when it has loaded: a message before that would find no models.
window.define = (needs, make) => {
  ({ AnyModel, AnyView } = make({ DOMWidgetModel, DOMWidgetView }));
  connect();
};

function open({ comm, data, buffers }) {
  models.set(comm, new AnyModel(comm, withBuffers(data.state, data.buffer_paths, buffers)));
  harness.show(comm);
}

let views = 0;
const harness = {
  /** How many views hold something: anywidget draws into a view when the widget's script is loaded. */
  drawn: () => [...document.querySelectorAll(".jupyter-widgets")].filter((e) => e.childElementCount || e.shadowRoot).length,
  /**
   * How many messages came and went, when all that follows from them is on screen: effects and sizes take some frames,
   * and what was dimmed while it was computed comes back in a transition. What turns for ever (a spinner) is not awaited.
   */
  async crossed() {
    for (let i = 0; i < 4; i++) await new Promise((frame) => requestAnimationFrame(() => setTimeout(frame)));
    const ending = document.getAnimations().filter((each) => each.effect.getComputedTiming().endTime < Infinity);
    await Promise.allSettled(ending.map((each) => each.finished));
    return { ...crossed };
  },
  /** Show a model once more, as a second cell would. */
  async show(id) {
    const model = models.get(id), view = new AnyView({ model }), key = `view-${views++}`;
    model.views[key] = view;
    await view.render();
    const cell = document.createElement("div");
    cell.className = "jp-OutputArea-output";
    cell.id = key;
    cell.append(view.el);
    document.querySelector("main").append(cell);
    return key;
  },
  /** Take a view away, as clearing the output does. */
  hide(key) {
    for (const model of models.values()) if (model.views[key]) { model.views[key].remove(); delete model.views[key]; }
    document.getElementById(key).remove();
  },
};
window.harness = harness;
