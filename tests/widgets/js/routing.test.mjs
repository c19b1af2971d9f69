import assert from "node:assert/strict";
import { test } from "node:test";
import * as reduce from "../../../workbench/widgets/js/src/views/routing/reduce.js";

/** A repeatable source of numbers in [0, 1). */
function numbers(seed) {
  let state = seed;
  return () => (state = (state * 1103515245 + 12345) % 2147483648) / 2147483648;
}

/** Random routes: each token goes to different experts, weights sum to 1. */
function random(seed, { rows = 7, layers = 3, slots = 4, experts = 9 } = {}) {
  const next = numbers(seed);
  const [chosen, weight] = [new Uint8Array(rows * layers * slots), new Float32Array(rows * layers * slots)];
  for (let from = 0; from < chosen.length; from += slots) {
    const order = Array.from({ length: experts }, (_, i) => i).sort(() => next() - 0.5);
    const raw = Array.from({ length: slots }, next).sort((a, b) => b - a);
    const total = raw.reduce((sum, x) => sum + x, 0);
    for (let i = 0; i < slots; i++) [chosen[from + i], weight[from + i]] = [order[i], raw[i] / total];
  }
  return { chosen, weight, rows, layers, slots, before: null, flips: null, kl: null, flipped: null };
}

test("slots are as wide as their weights, to a few pixels, and fill the cell", () => {
  for (let seed = 1; seed < 40; seed++) {
    const routes = random(seed);
    for (const width of [18, 60, 144]) {
      const rights = reduce.edges(routes.weight, 0, routes.slots, width);
      assert.ok(Math.abs(rights.at(-1) - width) < 1e-3, `${rights.at(-1)} of ${width}`);
      let left = 0;
      for (let i = 0; i < routes.slots; i++) {
        const wide = rights[i] - left;
        assert.ok(wide >= Math.min(3, width / routes.slots) - 1e-3);
        assert.ok(Math.abs(wide - routes.weight[i] * width) <= 3 * routes.slots);
        left = rights[i];
      }
    }
  }
  assert.deepEqual([...reduce.edges([0.75, 0.25], 0, 2, 100)], [75, 100]);
});

test("weights below 1 leave room, above 1 fill the cell, of none at all every slot can still be seen", () => {
  assert.deepEqual([...reduce.edges([0.5, 0.25], 0, 2, 100)], [50, 75]);
  assert.deepEqual([...reduce.edges([1.5, 0.5], 0, 2, 100)], [75, 100]);
  assert.deepEqual([...reduce.edges([0, 0], 0, 2, 100)], [3, 6]);
  assert.deepEqual([...reduce.edges([0.5, -0.5], 0, 2, 100)], [50, 100]);
  const zeroed = reduce.edges([1, 0], 0, 2, 100);
  assert.deepEqual([...zeroed], [97, 100]);
});

test("the slot under each point is the one that is painted there", () => {
  for (let seed = 1; seed < 20; seed++) {
    const routes = random(seed);
    const from = reduce.first(routes, 4, 1);
    const rights = reduce.edges(routes.weight, from, routes.slots, 90);
    for (let x = 0; x < 90; x += 0.7) {
      const painted = [...rights].findIndex((right) => x < right);
      assert.equal(reduce.slotAt(routes.weight, from, routes.slots, 90, x), painted);
    }
  }
});

test("the hardest rows of an expert are those that a plain sort finds", () => {
  for (let seed = 1; seed < 20; seed++) {
    const routes = random(seed, { rows: 30 });
    for (let expert = 0; expert < 9; expert++) {
      const expected = [];
      for (let row = 0; row < 30; row++) {
        for (let slot = 0; slot < 4; slot++) {
          const i = (row * 3 + 2) * 4 + slot;
          if (routes.chosen[i] === expert) expected.push([row, routes.weight[i]]);
        }
      }
      const found = reduce.hardest(routes, 2, expert, 5);
      assert.equal(found.count, expected.length);
      const best = expected.sort((a, b) => b[1] - a[1]).slice(0, 5);
      assert.deepEqual(found.rows.map(({ row, weight }) => [row, weight]), best);
    }
  }
});

test("a slot is new where the unedited run did not have its expert", () => {
  const routes = { before: [3, 5, 1, 2], slots: 2 };
  assert.equal(reduce.isNew(routes, 0, 5), false);
  assert.equal(reduce.isNew(routes, 0, 1), true);
  assert.equal(reduce.isNew(routes, 2, 1), false);
  assert.equal(reduce.isNew({ before: null, slots: 2 }, 0, 1), false);
});

test("arrows go through the slots of a cell, then to the next cell, and stop at the ends", () => {
  const at = (col, slot, key) => reduce.slotStep(slot, key, { slots: 2, col, cols: 3, single: false });
  assert.deepEqual(at(0, 0, "ArrowRight"), { slot: 1, leaves: false });
  assert.deepEqual(at(0, 1, "ArrowRight"), { slot: 0, leaves: true });
  assert.deepEqual(at(1, 0, "ArrowLeft"), { slot: 1, leaves: true });
  assert.deepEqual(at(0, 0, "ArrowLeft"), { slot: 0, leaves: false });
  assert.deepEqual(at(2, 1, "ArrowRight"), { slot: 1, leaves: false });
  assert.equal(at(0, 0, "b"), null);
});

test("what is only tried takes the place of what is shown, and the unedited routes stay to compare with", () => {
  const shown = Object.assign(new Uint8Array([1, 2]), { shape: [1, 1, 2] });
  const data = { json: { start: 0 }, arrays: { chosen: shown, weight: new Float32Array([0.6, 0.4]) } };
  const tried = { arrays: { chosen: new Uint8Array([1, 3]), weight: new Float32Array([0.7, 0.3]), kl: new Float32Array([0.1]), flipped: new Uint8Array([1]), route_flips: new Uint8Array([1]) } };
  const routes = reduce.routesOf(data, tried);
  assert.deepEqual([...routes.chosen], [1, 3]);
  assert.equal(reduce.isNew(routes, 0, 3), true);
  assert.match(reduce.cellWords(routes, 0, 0), /E1 0\.700 · E3 0\.300\nroute changed; before: E1, E2/);
  assert.equal(reduce.routesOf(data).kl, null);
  const other = { arrays: { ...tried.arrays, kl: new Float32Array(5) } };
  assert.deepEqual([...reduce.routesOf(data, other).chosen], [1, 2], "of another text");
});

test("edits are said in words, with where they act", () => {
  const edit = (kind, more) => reduce.editWords({ kind, layer: 1, expert: 2, positions: null, ...more });
  assert.equal(edit("ban"), "banned everywhere");
  assert.equal(edit("reweight", { factor: 0.5, positions: [12] }), "weight × 0.5 at 12");
  assert.equal(edit("swap", { other: 7, positions: [1, 2, 3, 4] }), "E2 and E7 swapped at 4 tokens");
  const edits = [{ layer: 1, expert: 2 }, { layer: 1, expert: 5, other: 2 }, { layer: 0, expert: 2 }];
  assert.equal(reduce.editsOf(edits, 1, 2).length, 2);
});

test("numbers of a column have as many figures, a true minus, and no negative zero", () => {
  assert.equal(reduce.fixed(-1.23456), "−1.235");
  assert.equal(reduce.fixed(-0.0001), "0.000");
  assert.equal(reduce.fixed(Number.NaN), "none");
});
