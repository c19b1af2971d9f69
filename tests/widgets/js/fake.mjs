// A model as anywidget gives it, with Python's side of the conversation in the test's hands.

export class FakeModel {
  sent = [];
  handlers = new Map();
  on(name, handler) {
    this.handlers.set(name, [...(this.handlers.get(name) ?? []), handler]);
  }
  off(name, handler) {
    this.handlers.set(name, (this.handlers.get(name) ?? []).filter((other) => other !== handler));
  }
  send(content) {
    this.sent.push(structuredClone(content));
  }
  get() {
    return undefined;
  }
  /** Python says something. */
  say(content, buffers = []) {
    for (const handler of this.handlers.get("msg:custom") ?? []) handler(structuredClone(content), buffers);
  }
  trigger(name) {
    for (const handler of this.handlers.get(name) ?? []) handler();
  }
  /** The newest message of a kind. */
  last(kind) {
    return this.sent.filter((message) => message.do === kind).at(-1);
  }
  listeners() {
    return [...this.handlers.values()].flat().length;
  }
}

export const SELECTION = {
  run: null, layer: null, position: null, head: null, expert: null, site: null, key: null, token: null, span: null,
};

/** A state as Python describes it. */
export const stateOf = (more = {}) => ({
  revision: 1, running: false, error: null, subject: "prompt", shown: "prompt", runs: ["prompt"], answer: null, chips: [],
  prompts: [{ name: "prompt", kind: "text", text: "a", messages: [], length: 1 }], selection: { ...SELECTION }, options: {},
  open: ["routing"], layout: "tabs", views: [{ name: "routing", title: "Routing" }], single: null, ...more,
});

/** Lets promises that are settled run their handlers. */
export const settled = () => new Promise((resolve) => setTimeout(resolve, 0));
