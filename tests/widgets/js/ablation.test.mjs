import assert from "node:assert/strict";
import { test } from "node:test";

const table = await import("../../../workbench/widgets/js/src/views/ablation/table.js");
const { short } = await import("../../../workbench/widgets/js/src/draw/scales.js");

const answer = { right: "a", wrong: "b" };
const json = { kind: "head", layers: 2, count: 2, key: "k", answer, activation: { unit: "share", said: "" }, left: [1, 4], floor: [0.5, null], sides: [{ title: "clean" }, { title: "corrupt" }] };
const shaped = (values, shape) => Object.assign(Float32Array.from(values), { shape });
const arrays = {
  activation: shaped([0, 1, 2, 3, 10, 20, 30, -40], [2, 4]),
  norm: shaped([1, 1, 1, 1, 1, 1, 1, 1], [2, 4]),
  direct: shaped([1, 1, 1, 1, 1, 1, 1, 1], [2, 4]),
  effect: shaped([0.25, -0.75, NaN, NaN, NaN, NaN, NaN, NaN], [2, 4]),
  kl: shaped(new Array(8).fill(NaN), [2, 4]),
  able: Object.assign(Uint8Array.from([1, 1, 1, 0, 1, 1, 1, 1]), { shape: [2, 4] }),
};
const data = { json, arrays };

test("a column is the left side, the right side, or the right less the left", () => {
  assert.deepEqual(["left", "difference", "right"].map((side) => table.valueOf(arrays.activation, side, 2)), [2, 28, 30]);
});

test("the tint is full at the largest size of both sides, and numbers that are not there have no part in it", () => {
  assert.equal(table.largestOf(arrays.activation), 40);
  assert.equal(table.largestOf(arrays.effect), 0.75);
  assert.equal(table.largestOf(arrays.kl), 1);
});

test("an effect is noise up to the floor of its own side, and a KL or a difference never is", () => {
  assert.ok(table.isNoise(json, "effect", "left", 0.25) && table.isNoise(json, "effect", "left", -0.5));
  assert.ok(!table.isNoise(json, "effect", "left", -0.75) && !table.isNoise(json, "effect", "left", NaN));
  assert.ok(!table.isNoise(json, "effect", "right", 0.1) && !table.isNoise(json, "effect", "difference", 0.1) && !table.isNoise(json, "kl", "left", 0.1));
});

test("what is not there says why", () => {
  assert.equal(table.missing(data, "effect", "left", 2), "not run yet");
  assert.equal(table.missing(data, "effect", "left", 3), "cannot be taken out in this way");
  assert.equal(table.missing(data, "effect", "difference", 3), "cannot be taken out in this way");
  assert.equal(table.missing(data, "effect", "right", 3), "not run yet");
  assert.equal(table.missing(data, "norm", "left", 0), "not defined");
});

test("streamed numbers are shown where they are ahead of the answer, and of the same study alone", () => {
  const ahead = { json: { key: "k", left: [0, 2], floor: [0.5, 1] }, arrays: { effect: arrays.kl, kl: arrays.kl } };
  const now = table.newest(data, ahead);
  assert.deepEqual([now.json.left, now.json.floor, now.arrays.effect], [[0, 2], [0.5, 1], arrays.kl]);
  assert.equal(now.arrays.norm, arrays.norm);
  assert.equal(table.newest(data, { ...ahead, json: { ...ahead.json, key: "other" } }), data);
  assert.equal(table.newest(data, { ...ahead, json: { key: "k", left: [3, 4], floor: [0.5, null] } }), data);
  assert.equal(table.newest(data, null), data);
});

test("with two sides there are three columns of each, with one there is one, and where it is narrow one is chosen", () => {
  assert.deepEqual(table.sidesShown(2, null), ["left", "difference", "right"]);
  assert.deepEqual(table.sidesShown(2, "right"), ["right"]);
  assert.deepEqual(table.sidesShown(1, "difference"), ["left"]);
});

test("the overview draws what the table is sorted by, else the total effect, else the direct one", () => {
  const metrics = table.metricsOf(json, "logits");
  const drawn = (sort, sides, given = arrays) => {
    const { metric, side } = table.overviewColumn(sort, metrics, sides, given);
    return `${metric.key}.${side}`;
  };
  const all = ["left", "difference", "right"];
  assert.equal(drawn("norm.right", all), "norm.right");
  assert.equal(drawn("norm.right", ["difference"]), "effect.difference");
  assert.equal(drawn("part", all), "effect.left");
  assert.equal(drawn("part", all, { ...arrays, effect: arrays.kl }), "direct.left");
});

test("every component has one row, named as Python names it", () => {
  assert.deepEqual(table.rowsOf({ kind: "sink", layers: 2, count: 2 }).map((row) => row.name), ["L0 H0 sink", "L0 H1 sink", "L1 H0 sink", "L1 H1 sink"]);
  assert.deepEqual(table.rowsOf({ kind: "layer", layers: 2, count: 1 }).map(({ layer, index, name }) => [layer, index, name]), [[0, 0, "L0"], [1, 0, "L1"]]);
});

test("signed numbers have their sign", () => {
  assert.deepEqual([0.5, -0.5, 0, NaN].map((value) => table.written(value, true, short)), ["+0.5", "−0.5", "0", "·"]);
  assert.equal(table.written(0.5, false, short), "0.5");
});

test("dots that would hide one another stand above one another, at their own place", () => {
  const dots = table.swarm([0, 0.01, 0, 5], 10, 100);
  assert.equal(dots.length, 4);
  for (const dot of dots) assert.ok(Math.abs(dot.x - (dot.value + 10) * 5) < 1e-9);
  for (const a of dots) for (const b of dots) assert.ok(a === b || a.level !== b.level || Math.abs(a.x - b.x) >= 7);
});

test("choosing a row twice leaves the group as it was", () => {
  const once = table.withPart([[0, 1]], 2, 3);
  assert.deepEqual(once, [[0, 1], [2, 3]]);
  assert.deepEqual(table.withPart(once, 2, 3), [[0, 1]]);
});
