import assert from "node:assert/strict";
import { test } from "node:test";
import { Bench, cleared, merged } from "../../../workbench/widgets/js/src/store.js";
import { keep } from "../../../workbench/widgets/js/src/state.js";
import { FakeModel, SELECTION, settled, stateOf } from "./fake.mjs";

function opened(more) {
  const model = new FakeModel();
  const bench = new Bench(model);
  model.say({ did: "state", state: stateOf(more) });
  return { model, bench };
}
const actions = (model) => model.sent.filter((message) => message.do === "act").map(({ action }) => action);

test("it says hello at once and knows nothing before the answer", () => {
  const model = new FakeModel();
  const bench = new Bench(model);
  assert.deepEqual(model.sent, [{ do: "hello" }]);
  assert.equal(bench.state.value, null);
  assert.equal(bench.selection.value.layer, null);
  assert.equal(bench.revision.value, null);
});

test("a state that says the same wakes nobody", () => {
  const { model, bench } = opened();
  const before = bench.state.value;
  model.say({ did: "state", state: stateOf() });
  assert.equal(bench.state.value, before);
  model.say({ did: "state", state: stateOf({ revision: 2 }) });
  assert.notEqual(bench.state.value, before);
  assert.equal(bench.state.value.prompts, before.prompts);
});

test("a selection is shown before Python has it, and stays when Python confirms it", async () => {
  const { model, bench } = opened();
  bench.select({ position: 3 });
  assert.equal(bench.selection.value.position, 3);
  const { id, action } = model.last("act");
  assert.deepEqual(action, { kind: "select", position: 3 });
  model.say({ did: "state", state: stateOf({ revision: 2 }) }); // sent before Python heard of it
  assert.equal(bench.selection.value.position, 3);
  model.say({ did: "done", id });
  model.say({ did: "state", state: stateOf({ selection: { ...SELECTION, position: 3 } }) });
  await settled();
  assert.equal(bench.selection.value.position, 3);
  model.say({ did: "state", state: stateOf({ selection: { ...SELECTION, position: 5 } }) });
  assert.equal(bench.selection.value.position, 5);
});

test("a confirmed selection does not flicker while its state is on the way", async () => {
  const { model, bench } = opened();
  bench.select({ position: 3 });
  model.say({ did: "done", id: model.last("act").id });
  await settled();
  assert.equal(bench.selection.value.position, 3);
});

test("a selection that Python refuses is taken back and the reason is shown", async () => {
  const { model, bench } = opened({ selection: { ...SELECTION, position: 1 } });
  console.error = () => {};
  bench.select({ position: 300 });
  model.say({ did: "failed", id: model.last("act").id, error: "position 300: the text has 57 tokens" });
  await settled();
  assert.equal(bench.selection.value.position, 1);
  assert.deepEqual(bench.notice.value, { kind: "error", text: "position 300: the text has 57 tokens" });
});

test("while one selection is on its way the newer ones wait as one", async () => {
  const { model, bench } = opened();
  for (const position of [1, 2, 3, 4]) bench.select({ position });
  bench.select({ layer: 2 });
  assert.equal(actions(model).length, 1);
  assert.equal(bench.selection.value.position, 4);
  model.say({ did: "done", id: model.last("act").id });
  await settled();
  const sent = actions(model).at(-1);
  assert.deepEqual([sent.position, sent.layer], [4, 2]);
  assert.equal(actions(model).length, 2);
});

test("of head, expert and site one is chosen, and a new layer clears them", () => {
  assert.deepEqual(cleared({ head: 2 }, 0), { head: 2, expert: null, site: null, key: null });
  assert.deepEqual(cleared({ layer: 1 }, 0), { layer: 1, head: null, expert: null, site: null, key: null });
  assert.deepEqual(cleared({ layer: 1 }, 1), { layer: 1 });
  assert.deepEqual(cleared({ position: 4 }, 0), { position: 4, span: null });
  const both = merged({ kind: "select", head: 3 }, { kind: "select", expert: 2 });
  assert.deepEqual([both.head, both.expert], [null, 2]);
});

test("options are shown at once and merged while they wait", async () => {
  const { model, bench } = opened({ options: { routing: { kind: "load", top: 4 } } });
  bench.option("routing", { top: 5 });
  bench.option("routing", { top: 6 });
  bench.option("routing", { kind: "entropy" });
  assert.deepEqual(bench.state.value.options.routing, { kind: "entropy", top: 6 });
  model.say({ did: "done", id: model.last("act").id });
  await settled();
  assert.deepEqual(actions(model).at(-1), { kind: "option", view: "routing", values: { top: 6, kind: "entropy" } });
});

test("a new connection says hello again, and nothing waits for answers that will not come", async () => {
  const { model, bench } = opened();
  console.error = () => {};
  bench.select({ position: 3 });
  const session = bench.session.value;
  model.trigger("comm_live_update");
  await settled();
  assert.equal(model.sent.filter((message) => message.do === "hello").length, 2);
  assert.equal(bench.selection.value.position, null);
  assert.equal(bench.session.value, session + 1);
  bench.select({ position: 4 });
  assert.deepEqual(actions(model).at(-1), { kind: "select", position: 4 });
});

test("streams reach the listeners of their view, until they stop listening", () => {
  const { model, bench } = opened();
  const heard = [];
  const stop = bench.listen("patching", (key, json) => heard.push([key, json.done]));
  model.say({ did: "stream", view: "patching", key: "a", json: { done: 1 } });
  model.say({ did: "stream", view: "ablation", key: "a", json: { done: 9 } });
  stop();
  model.say({ did: "stream", view: "patching", key: "a", json: { done: 2 } });
  assert.deepEqual(heard, [["a", 1]]);
});

test("after close nothing listens to the model", () => {
  const { model, bench } = opened();
  bench.close();
  assert.equal(model.listeners(), 0);
});

test("keep returns the old object where the new one says the same", () => {
  const old = { a: [1, { b: 2 }], c: null };
  assert.equal(keep(old, { a: [1, { b: 2 }], c: null }), old);
  const changed = keep(old, { a: [1, { b: 3 }], c: null });
  assert.deepEqual(changed, { a: [1, { b: 3 }], c: null });
  assert.notEqual(keep({ a: undefined }, {}), undefined);
  assert.deepEqual(keep([1, 2], { 0: 1, 1: 2 }), { 0: 1, 1: 2 });
});
