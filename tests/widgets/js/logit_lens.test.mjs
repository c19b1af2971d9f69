import assert from "node:assert/strict";
import { test } from "node:test";
import * as cells from "../../../workbench/widgets/js/src/views/logit_lens/cells.js";
import { percent, short } from "../../../workbench/widgets/js/src/draw/scales.js";

const data = (more = {}, arrays = {}) => ({
  json: {
    tokens: ["Mia", "␣is"], stages: ["embed", "0", "1"], words: ["a", "b"], shade: { name: "entropy", title: "Entropy, nats", log: false },
    done: 2, total: 2, other: null, ...more,
  },
  arrays: {
    word: Uint16Array.of(0, 1, 1, 0, 0, 2), value: Float32Array.of(1, 2, 3, 4, 5, NaN), probability: Float32Array.of(0.1, 0.2, 0.3, 0.4, 0.5, NaN),
    hit: Uint8Array.of(0, 1, 1, 0, 0, 0), ...arrays,
  },
}); // prettier-ignore

test("the last layer is always among the columns, and the first", () => {
  for (const n of [1, 2, 5, 13, 25, 37]) {
    for (const room of [1, 2, 7, 12, 40]) {
      const made = cells.strided(n, room);
      assert.equal(made.at(-1), n - 1);
      assert.ok(made.length <= Math.max(room, 2) && new Set(made).size === made.length);
      if (n > 1) assert.equal(made[0], 0);
      const steps = made.slice(1).map((to, i) => to - made[i]);
      assert.ok(!steps.length || Math.max(...steps) - Math.min(...steps) <= 1);
    }
  }
  assert.deepEqual(cells.strided(5, 9), [0, 1, 2, 3, 4]);
});

test("25 columns are strided where there is no room, and all are there when asked for", () => {
  assert.ok(cells.columnsFor({ n: 25, width: 600, all: false }).length <= 9);
  assert.equal(cells.columnsFor({ n: 25, width: 600, all: true }).length, 25);
  assert.equal(cells.columnsFor({ n: 5, width: 1000, all: false }).length, 5);
});

test("picked columns keep the values of their cells", () => {
  assert.deepEqual([...cells.picked(Float32Array.of(1, 2, 3, 4, 5, 6), 3, [0, 2])], [1, 3, 4, 6]);
});

test("a cell of two runs writes both words where they differ", () => {
  const { json, arrays } = data({ other_words: ["b", "c"] }, { other_word: Uint16Array.of(1, 0, 1, 2, 2, 2) });
  assert.deepEqual([0, 1, 2, 5].map((i) => cells.cellText(json, arrays, i)), ["a≠c", "b", "b≠c", ""]);
});

test("the words of a cell say where it is, what it holds and what is not there", () => {
  const how = { short, percent };
  assert.equal(cells.cellWords(data(), 0, 1, how), "b 20% · the target\nafter “Mia”, position 0, layer 0\nEntropy, nats: 2");
  assert.match(cells.cellWords(data({ done: 1 }), 1, 2, how), /^not read yet\nafter “␣is”, position 1, layer 1/);
  assert.match(cells.cellWords(data({ other: "tom" }, { partner: Int32Array.of(0, -1) }), 1, 2, how), /^no counterpart in tom/);
  assert.match(cells.cellWords(data(), 1, 0, how), /the embedding/);
});

test("a rank is kept as its log10 and said as the rank", () => {
  assert.equal(cells.said({ log: true }, Math.log10(201), short), "201");
  assert.equal(cells.said({ log: false }, 0.25, short), "0.25");
  assert.equal(cells.said({ log: false }, NaN, short), "none");
});

test("only cells that are still to come are hatched", () => {
  assert.equal(cells.unread(data()), null);
  assert.deepEqual([...cells.unread(data({ done: 1 }))], [0, 0, 0, 0, 0, 1]);
  assert.deepEqual([...cells.unread(data({ done: 1 }, { partner: Int32Array.of(0, -1) }))], [0, 0, 0, 0, 0, 0]);
});

test("a click selects the layer's stream, in the first column the embedding, and comes back as its column", () => {
  for (const stage of [0, 1, 24]) {
    const chosen = cells.selectionOf(7, stage);
    assert.equal(chosen.position, 7);
    assert.equal(cells.stageOf(chosen), stage);
  }
  assert.equal(cells.stageOf({ layer: null, site: null }), null);
});

test("pinning toggles, and the oldest makes room", () => {
  assert.deepEqual(cells.toggled([1, 2], 2), [1]);
  assert.deepEqual(cells.toggled([1, 2], 3), [1, 2, 3]);
  assert.deepEqual(cells.toggled([1, 2, 3], 4, 3), [2, 3, 4]);
});

test("the likely tokens of two runs are one list, the likeliest in either first", () => {
  const cell = {
    top: [{ id: 1, text: "a", p: 0.6, other: 0.1 }, { id: 2, text: "b", p: 0.2, other: 0.05 }],
    other: { top: [{ id: 3, text: "c", p: 0.8, other: 0.01 }, { id: 1, text: "a", p: 0.1, other: 0.6 }] },
  }; // prettier-ignore
  const made = cells.together(cell);
  assert.deepEqual(made.map(({ key }) => key), [3, 1, 2]);
  assert.deepEqual(made[1], { key: 1, label: "a", before: 0.1, after: 0.6 });
  assert.equal(cells.together({ ...cell, other: null })[0].before, null);
});

test("the popup stands beside the grid, else beside the cell, and never outside", () => {
  const bounds = { left: 0, right: 1000 };
  const cell = { left: 300, right: 400, top: 50, bottom: 70 };
  assert.equal(cells.standing(cell, 700, bounds).left, 708);
  assert.equal(cells.standing(cell, 900, bounds).left, 408);
  assert.equal(cells.standing({ ...cell, left: 800, right: 900 }, 900, bounds).left, 800 - 8 - cells.POPUP);
  const narrow = { left: 0, right: 400 };
  assert.equal(cells.standing({ ...cell, left: 200, right: 300 }, 390, narrow).left, 200);
});
