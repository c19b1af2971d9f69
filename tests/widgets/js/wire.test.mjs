import assert from "node:assert/strict";
import { test } from "node:test";
import { Dropped, Wire, decode } from "../../../workbench/widgets/js/src/wire.js";
import { FakeModel } from "./fake.mjs";

function wired() {
  const model = new FakeModel();
  const heard = { states: [], jobs: [], streams: [], faults: [] };
  const wire = new Wire(model, {
    state: (state) => heard.states.push(state),
    jobs: (jobs, memory) => heard.jobs.push([jobs, memory]),
    stream: (...message) => heard.streams.push(message),
    fault: (error) => heard.faults.push(error),
  });
  return { model, wire, heard };
}

const view = (typed) => new DataView(typed.buffer, typed.byteOffset, typed.byteLength);

test("every dtype is read with its shape, also from an odd address", () => {
  const kinds = { float32: Float32Array, int32: Int32Array, uint8: Uint8Array, uint16: Uint16Array };
  for (const [dtype, Kind] of Object.entries(kinds)) {
    const numbers = Kind.from([1, 2, 3, 4, 5, 250]);
    for (const shift of [0, 1, 2, 3]) {
      const bytes = new Uint8Array(numbers.byteLength + shift);
      bytes.set(new Uint8Array(numbers.buffer), shift);
      const read = decode({ name: "x", dtype, shape: [2, 3] }, new DataView(bytes.buffer, shift));
      assert.deepEqual([...read], [1, 2, 3, 4, 5, 250]);
      assert.deepEqual(read.shape, [2, 3]);
      assert.ok(read instanceof Kind);
    }
  }
});

test("a buffer that does not fit its description is refused, in words", () => {
  assert.throws(() => decode({ name: "x", dtype: "float32", shape: [3] }, new ArrayBuffer(8)), /array x should hold 3 float32/);
  assert.throws(() => decode({ name: "x", dtype: "float64", shape: [1] }, new ArrayBuffer(8)), /float64/);
});

test("an ask is answered with its JSON and its arrays by name", async () => {
  const { model, wire } = wired();
  const answer = wire.ask("routing", { layer: 2 }, "routing/1");
  const { id, slot, ask } = model.last("ask");
  assert.deepEqual([slot, ask], ["routing/1", { layer: 2 }]);
  model.say({ did: "data", id, view: "routing", json: { n: 3 }, arrays: [{ name: "load", dtype: "float32", shape: [2] }] }, [
    view(Float32Array.of(0.5, NaN)),
  ]);
  const { json, arrays } = await answer;
  assert.deepEqual(json, { n: 3 });
  assert.deepEqual([...arrays.load], [0.5, NaN]);
});

test("a newer ask of a slot makes the older one obsolete, and its late answer is ignored", async () => {
  const { model, wire, heard } = wired();
  const older = wire.ask("lens", { a: 1 }, "lens/1");
  const first = model.last("ask").id;
  const newer = wire.ask("lens", { a: 2 }, "lens/1");
  const second = model.last("ask").id;
  await assert.rejects(older, Dropped);
  model.say({ did: "data", id: first, json: { from: 1 } });
  model.say({ did: "data", id: second, json: { from: 2 } });
  assert.deepEqual((await newer).json, { from: 2 });
  assert.deepEqual(heard.faults, []);
});

test("asks of different slots do not disturb each other", async () => {
  const { model, wire } = wired();
  const one = wire.ask("lens", {}, "a");
  const two = wire.ask("lens", {}, "b");
  const ids = model.sent.map(({ id }) => id);
  model.say({ did: "data", id: ids[1], json: { n: 2 } });
  model.say({ did: "data", id: ids[0], json: { n: 1 } });
  assert.deepEqual([(await one).json.n, (await two).json.n], [1, 2]);
});

test("what Python refuses arrives as an error with its words", async () => {
  const { model, wire } = wired();
  const asked = wire.ask("lens", {}, "a");
  model.say({ did: "data", id: model.last("ask").id, error: "layer 9: the model has 4" });
  await assert.rejects(asked, /layer 9: the model has 4/);
  const acted = wire.act("bench", { kind: "undo" });
  model.say({ did: "failed", id: model.last("act").id, error: "nothing to undo" });
  await assert.rejects(acted, /nothing to undo/);
});

test("an answer whose arrays do not fit is an error of that ask, not of the widget", async () => {
  const { model, wire, heard } = wired();
  const asked = wire.ask("lens", {}, "a");
  model.say({ did: "data", id: model.last("ask").id, json: {}, arrays: [{ name: "x", dtype: "float32", shape: [2] }] });
  await assert.rejects(asked, /names 1 arrays and brings 0/);
  assert.deepEqual(heard.faults, []);
});

test("a message of an unknown kind is reported, not swallowed", () => {
  const { model, heard } = wired();
  model.say({ did: "dance" });
  assert.match(heard.faults[0].message, /dance/);
});

test("states, jobs and streams need no question", () => {
  const { model, heard } = wired();
  model.say({ did: "state", state: { revision: 1 } });
  model.say({ did: "jobs", jobs: [{ id: 1 }], memory: { used: 1, total: 2 } });
  model.say({ did: "stream", view: "patching", key: "k", json: { done: 3 }, arrays: [{ name: "c", dtype: "uint8", shape: [1] }] }, [
    view(Uint8Array.of(7)),
  ]);
  assert.deepEqual(heard.states, [{ revision: 1 }]);
  assert.deepEqual(heard.jobs, [[[{ id: 1 }], { used: 1, total: 2 }]]);
  const [name, key, json, arrays] = heard.streams[0];
  assert.deepEqual([name, key, json, [...arrays.c]], ["patching", "k", { done: 3 }, [7]]);
});

test("after close nothing listens and open asks end quietly", async () => {
  const { model, wire } = wired();
  const asked = wire.ask("lens", {}, "a");
  wire.close();
  await assert.rejects(asked, Dropped);
  assert.equal(model.listeners(), 0);
});
