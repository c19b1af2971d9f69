import assert from "node:assert/strict";
import { test } from "node:test";
import * as reduce from "../../../workbench/widgets/js/src/views/atlas/reduce.js";

const group = (lift, lift_low = lift, lift_high = lift) => ({ lift, lift_low, lift_high });

test("the axis of lifts reaches every lift and interval, and half a power of two at least on either side", () => {
  assert.deepEqual(reduce.reach([group(1)]), { down: 0.5, up: 0.5 });
  assert.deepEqual(reduce.reach([group(2, 1.5, 2.9), group(0.25)]), { down: 2, up: 2 });
  assert.deepEqual(reduce.reach([group(0), group(1e9)]), { down: 6, up: 6 });
  assert.deepEqual(reduce.reach([group(4, null, null), group(null, null, null)]), { down: 0.5, up: 2 });
});

test("twice as often and half as often are as far from 1, and a lift of 1 has no bar", () => {
  const far = { down: 3, up: 3 };
  assert.equal(reduce.placeOf(1, far), 0.5);
  assert.ok(Math.abs(reduce.placeOf(2, far) + reduce.placeOf(0.5, far) - 1) < 1e-12);
  assert.equal(reduce.placeOf(0, far), 0);
  const { from, to, low, high } = reduce.barOf(group(1, 0.5, 2), far);
  assert.equal(from, to);
  assert.ok(low < 0.5 && high > 0.5);
  const less = reduce.barOf(group(0.25, null, null), far);
  assert.ok(less.from < less.to && less.to === 0.5 && less.low === null && less.high === null);
});

test("ticks are powers of two in order, few, and none is cut by the end of the axis", () => {
  for (const far of [{ down: 0.5, up: 0.5 }, { down: 3.5, up: 1.5 }, { down: 6, up: 6 }, { down: 0.5, up: 6 }]) {
    const ticks = reduce.ticksOf(far);
    assert.ok(ticks.length >= 1 && ticks.length <= 7);
    assert.ok(ticks.some(({ name }) => name === "1"));
    ticks.forEach(({ at }, i) => assert.ok(at > 0.04 && at < 0.96 && (i === 0 || at > ticks[i - 1].at)));
  }
  assert.deepEqual(reduce.ticksOf({ down: 2.5, up: 1.5 }).map(({ name }) => name), ["1/4", "1/2", "1", "2"]);
});

test("a lift's words name its interval, or why there is none", () => {
  assert.equal(reduce.liftWords({ ...group(2.2, 2.1, 2.3), documents: 9 }), "2.2, 95% interval 2.1 to 2.3");
  assert.equal(reduce.liftWords({ ...group(2, null, null), documents: 1 }), "2; one document: no interval");
  assert.equal(reduce.liftWords({ ...group(null, null, null), documents: 0 }), "–");
});

/** Two contexts of three and two tokens, with two tokens before the middle and one after it. */
function contexts() {
  const weights = Float32Array.from([0.25, 0.5, 0.75, NaN, NaN, NaN, 1, 0]);
  weights.shape = [2, 4];
  const rows = [
    { document: 4, position: 9, centre: 2, tokens: ["a", "b", "c"], domain: "x", language: null, role: "assistant", channel: "final" },
    { document: 7, position: 0, centre: 0, tokens: ["d", "e"], domain: null, language: null, role: "user", channel: null },
  ];
  return { json: { rows, before: 2 }, arrays: { weights } };
}

test("each token of a context has its own weight, also where the text begins or ends", () => {
  const [first, second] = reduce.rowsOf(contexts(), null);
  assert.deepEqual([...first.weights], [0.25, 0.5, 0.75]);
  assert.deepEqual([...second.weights], [1, 0]);
  assert.deepEqual([first.weight, second.weight], [0.75, 1]);
  assert.deepEqual([first.key, second.key], ["4:9", "7:0"]);
  assert.deepEqual([first.from, second.from], ["x · assistant/final", "user"]);
  assert.ok(Number.isNaN(first.kl) && Number.isNaN(second.lossControl));
});

test("effects stand beside their contexts, and those of another list beside none", () => {
  const of = (n, from) => Object.assign(Float32Array.from({ length: 2 * n }, (_, i) => from + i), { shape: [2, n] });
  const [, row] = reduce.rowsOf(contexts(), { arrays: { kl: of(2, 0), loss_change: of(2, 10) } });
  assert.deepEqual([row.kl, row.klControl, row.loss, row.lossControl], [1, 3, 11, 13]);
  const [, other] = reduce.rowsOf(contexts(), { arrays: { kl: of(3, 0), loss_change: of(3, 10) } });
  assert.ok(Number.isNaN(other.kl));
});

test("numbers of nats have a sign where they are changes, and nothing where they were not run", () => {
  assert.deepEqual([1.3266, 12.34, 2e-8, NaN, null].map(reduce.nats), ["1.327", "12.3", "<0.001", "", ""]);
  assert.deepEqual([0.5, -0.25, 1e-9, -1e-9, 0, -0].map(reduce.change), ["+0.500", "−0.250", "0.000", "0.000", "0", "0"]);
  assert.equal(reduce.meanWords({ mean: 1e-8, low: 0.9e-8, high: 1.1e-8 }), "<0.001");
  assert.equal(reduce.meanWords({ mean: 2, low: 1, high: 3 }), "2.000 (1.000 to 3.000)");
  assert.equal(reduce.meanWords({ mean: 2, low: null, high: null }), "2.000");
  assert.equal(reduce.meanWords({ mean: null, low: null, high: null }), "–");
  assert.deepEqual([0.17, 0.0004, 0.9996, 0, 1, null].map(reduce.tenths), ["17.0%", "<0.1%", ">99.9%", "0.0%", "100.0%", "–"]);
  assert.deepEqual([2.171, 0.004, 0, null].map(reduce.liftOf), ["2.17", "<0.01", "0.00", "–"]);
  assert.deepEqual([0.254, 0.004, 0].map(reduce.loadOf), ["25", "<1", "0"]);
});

test("a cell of the picker says tokens, load and mean weight, and no mean where there is no token", () => {
  const arrays = { load: [0.25, 0], count: [1234, 0], mean_weight: [0.5, NaN] };
  assert.equal(reduce.expertWords(0, 0, arrays, 2, 0.5), "layer 0, expert 0\n1,234 tokens, load 25% (even: 50%)\nmean weight 0.5");
  assert.equal(reduce.expertWords(0, 1, arrays, 2, 0.5), "layer 0, expert 1\n0 tokens, load 0% (even: 50%)");
});

test("effects of another policy, order, atlas or expert are of no use for what is on screen", () => {
  const choices = { folder: "a", opened: 1, order: "weight", once: true, policy: "reroute" };
  const got = (json, asked) => ({ data: { json: { layer: 1, expert: 2, ...json } }, asked: { ...choices, n: 8, done: "3 0", ...asked } });
  const said = { layer: 1, expert: 2 };
  assert.equal(reduce.answers(got({}, {}), choices, said), true);
  assert.equal(reduce.answers(got({}, { n: 20, done: "9 0" }), choices, said), true, "more of the same contexts");
  for (const [json, asked] of [[{}, { policy: "zero" }], [{}, { order: "random" }], [{}, { opened: 2 }], [{ expert: 3 }, {}]]) {
    assert.equal(reduce.answers(got(json, asked), choices, said), false, JSON.stringify([json, asked]));
  }
  assert.equal(reduce.answers({ data: null, asked: null }, choices, said), false);
});
