/** Messages between the browser and Python, over the model of one widget. Nothing here knows about the screen. */

/**
 * @typedef {{ send(content: object, callbacks?: object, buffers?: ArrayBuffer[]): void,
 *   on(name: string, callback: Function): void, off(name: string, callback: Function): void }} Model
 * @typedef {{ name: string, dtype: string, shape: number[] }} Spec
 * @typedef {(Float32Array|Int32Array|Uint8Array|Uint16Array) & { shape: number[] }} Values
 * @typedef {{ json: object, arrays: Record<string, Values> }} Data
 */

const KINDS = { float32: Float32Array, int32: Int32Array, uint8: Uint8Array, uint16: Uint16Array };

/** One buffer as a typed array with a `shape`. Copies only where the host put it at an odd address. */
export function decode(/** @type {Spec} */ spec, /** @type {DataView|ArrayBuffer} */ buffer) {
  const Kind = KINDS[spec.dtype];
  if (!Kind) throw new Error(`an array of dtype ${spec.dtype} came from Python: float32, int32, uint8, uint16 are known`);
  const [bytes, start, size] = ArrayBuffer.isView(buffer)
    ? [buffer.buffer, buffer.byteOffset, buffer.byteLength]
    : [buffer, 0, buffer.byteLength];
  const count = spec.shape.reduce((product, length) => product * length, 1);
  if (size !== count * Kind.BYTES_PER_ELEMENT) {
    throw new Error(`the array ${spec.name} should hold ${count} ${spec.dtype}, and ${size} bytes came`);
  }
  const aligned = start % Kind.BYTES_PER_ELEMENT === 0;
  const values = aligned ? new Kind(bytes, start, count) : new Kind(bytes.slice(start, start + size));
  return Object.assign(values, { shape: spec.shape });
}

/** All arrays of a message, by name. */
export function decodeAll(specs = [], buffers = []) {
  if (specs.length !== buffers.length) {
    throw new Error(`a message names ${specs.length} arrays and brings ${buffers.length} buffers`);
  }
  return Object.fromEntries(specs.map((spec, i) => [spec.name, decode(spec, buffers[i])]));
}

/** Says that a newer ask took this one's place: not an error that anybody should see. */
export class Dropped extends Error {}

export class Wire {
  #model;
  #next = 1;
  #open = new Map(); // id → { resolve, reject, slot }
  #slots = new Map(); // slot → id of its newest ask
  #handlers;
  #listener = (content, buffers) => this.#receive(content, buffers);

  /**
   * @param {Model} model
   * @param {{ state(state: object): void, jobs(jobs: object[], memory: object): void,
   *   stream(view: string, key: string, json: object, arrays: object): void, fault(error: Error): void }} handlers
   */
  constructor(model, handlers) {
    this.#model = model;
    this.#handlers = handlers;
    model.on("msg:custom", this.#listener);
  }

  hello() {
    this.#send({ do: "hello" });
  }

  /** @returns {Promise<Data>} rejects with Dropped where a newer ask of the same slot was made meanwhile */
  ask(/** @type {string} */ view, /** @type {object} */ ask, /** @type {string} */ slot) {
    const older = this.#slots.get(slot);
    if (older !== undefined) this.#settle(older, "reject", new Dropped());
    return this.#post((id) => {
      this.#slots.set(slot, id);
      return { do: "ask", id, view, ask, slot };
    }, slot);
  }

  /** @returns {Promise<object>} rejects with what went wrong, in words */
  act(/** @type {string} */ view, /** @type {object} */ action) {
    return this.#post((id) => ({ do: "act", id, view, action }));
  }

  /** No longer interested in a slot: its answer will be ignored. */
  forget(/** @type {string} */ slot) {
    const id = this.#slots.get(slot);
    if (id !== undefined) this.#settle(id, "reject", new Dropped());
  }

  /** The kernel went away: nothing that is open will be answered. */
  drop(/** @type {string} */ why) {
    for (const id of [...this.#open.keys()]) this.#settle(id, "reject", new Error(why));
  }

  close() {
    this.#model.off("msg:custom", this.#listener);
    for (const id of [...this.#open.keys()]) this.#settle(id, "reject", new Dropped());
  }

  #send(content) {
    this.#model.send(content, undefined, []);
  }

  #post(message, slot = null) {
    const id = this.#next++;
    return new Promise((resolve, reject) => {
      this.#open.set(id, { resolve, reject, slot });
      try {
        this.#send(message(id));
      } catch (error) {
        this.#settle(id, "reject", error);
      }
    });
  }

  #settle(id, how, value) {
    const waiting = this.#open.get(id);
    if (!waiting) return; // late, or dropped long ago
    this.#open.delete(id);
    if (waiting.slot !== null && this.#slots.get(waiting.slot) === id) this.#slots.delete(waiting.slot);
    waiting[how](value);
  }

  #receive(content, buffers) {
    try {
      this.#read(content, buffers ?? []);
    } catch (error) {
      if (this.#open.has(content?.id)) this.#settle(content.id, "reject", error);
      else this.#handlers.fault(error);
    }
  }

  #read(content, buffers) {
    const { did, id } = content;
    if (did === "state") this.#handlers.state(content.state);
    else if (did === "jobs") this.#handlers.jobs(content.jobs, content.memory ?? null);
    else if (did === "stream") {
      this.#handlers.stream(content.view, content.key, content.json ?? {}, decodeAll(content.arrays, buffers));
    } else if (did === "done") this.#settle(id, "resolve", content.json ?? {});
    else if (did === "failed") this.#settle(id, "reject", new Error(content.error || "Python refused, without a reason"));
    else if (did === "data") this.#answer(content, buffers);
    else throw new Error(`a message of an unknown kind came from Python: ${String(did).slice(0, 40)}`);
  }

  #answer(content, buffers) {
    const { id, error, dropped } = content;
    if (!this.#open.has(id)) return;
    if (dropped) this.#settle(id, "reject", new Dropped());
    else if (error) this.#settle(id, "reject", new Error(error));
    else this.#settle(id, "resolve", { json: content.json ?? {}, arrays: decodeAll(content.arrays, buffers) });
  }
}
