/** The attention view's numbers: where things stand, what is hidden, lines and their largest, the overview as it fills. */
import assert from "node:assert/strict";
import { test } from "node:test";
import {
  SINK, blocksOf, cellAt, layout, moved, positionsOf, rectOf, unseen, windowEdge,
} from "../../../workbench/widgets/js/src/views/attention/geometry.js"; // prettier-ignore
import {
  best, farthest, filled, largest, lineOf, shares, tight,
} from "../../../workbench/widgets/js/src/views/attention/numbers.js"; // prettier-ignore
import { changeScale, headScale, sheet } from "../../../workbench/widgets/js/src/views/attention/shades.js";
import { luminance, rgb, PAPER } from "../../../workbench/widgets/js/src/draw/scales.js";

const SHAPES = [
  { n: 1, block: 1, window: 0 }, { n: 7, block: 1, window: 3 }, { n: 20, block: 3, window: 0 }, { n: 23, block: 4, window: 5 },
  { n: 30, block: 3, window: 16 }, { n: 40, block: 1, window: 128 },
]; // prettier-ignore

/** By loops over every query and key: 0 if any pair of the block is seen, 1 if all keys are later, else 2. */
function bruteUnseen({ n, block, window }) {
  const blocks = blocksOf({ n, block });
  const made = new Uint8Array(blocks * blocks);
  for (let row = 0; row < blocks; row++) {
    for (let col = 0; col < blocks; col++) {
      let [seen, later] = [false, true];
      for (let q = row * block; q < Math.min(n, (row + 1) * block); q++) {
        for (let k = col * block; k < Math.min(n, (col + 1) * block); k++) {
          if (k <= q) later = false;
          if (k <= q && (!window || q - k < window)) seen = true;
        }
      }
      made[row * blocks + col] = seen ? 0 : later ? 1 : 2;
    }
  }
  return made;
}

test("a block is hidden where none of its queries sees any of its keys", () => {
  for (const shape of SHAPES) assert.deepEqual(unseen(shape), bruteUnseen(shape), JSON.stringify(shape));
});

test("the window's edge parts the hatched blocks from the seen ones in every row", () => {
  for (const shape of SHAPES) {
    const blocks = blocksOf(shape);
    const hidden = unseen(shape);
    const outside = Array.from({ length: blocks }, (_, row) => hidden.slice(row * blocks, (row + 1) * blocks).filter((is) => is === 2).length);
    const corners = windowEdge(shape);
    for (let row = 0; row < blocks; row++) {
      const here = corners.filter(([col, y], i) => i && y === row && col === outside[row]);
      assert.equal(here.length > 0, outside[row] > 0, `${JSON.stringify(shape)} row ${row}`);
    }
    if (!outside.some(Boolean)) assert.deepEqual(corners, []);
  }
});

test("the cell under the middle of each cell is that cell, also of the sink", () => {
  for (const blocks of [1, 14, 250]) {
    const place = layout({ blocks, room: 520, maxHeight: 560, label: 50, numbers: blocks > 64 });
    assert.ok(place.width <= 521 && place.height <= 562, `${blocks}: ${place.width} × ${place.height}`);
    for (const row of [0, blocks >> 1, blocks - 1]) {
      for (const col of [SINK, 0, blocks - 1]) {
        const { x, y, width, height } = rectOf(place, row, col);
        assert.deepEqual(cellAt(place, blocks, x + width / 2, y + height / 2), { row, col });
      }
    }
    assert.equal(cellAt(place, blocks, place.left + place.sink + place.gap / 2, place.top + 1), null);
    assert.equal(cellAt(place, blocks, 2, place.top + 1), null);
    assert.ok(place.sink >= 22 && place.gap >= 6, "the sink stands apart, wide enough to hit");
  }
});

test("keys reach every cell and the sink, and no further", () => {
  assert.deepEqual(moved({ row: 3, col: 0 }, "ArrowLeft", 5), { row: 3, col: SINK });
  assert.deepEqual(moved({ row: 3, col: SINK }, "ArrowLeft", 5), { row: 3, col: SINK });
  assert.deepEqual(moved({ row: 4, col: 4 }, "ArrowDown", 5), { row: 4, col: 4 });
  assert.deepEqual(moved({ row: 2, col: 4 }, "Home", 5), { row: 2, col: SINK });
  assert.deepEqual(moved({ row: 2, col: 0 }, "End", 5), { row: 2, col: 2 });
  assert.deepEqual(moved({ row: 2, col: 0 }, "End", 5, true), { row: 4, col: 4 });
  assert.equal(moved({ row: 0, col: 0 }, "a", 5), null);
});

test("a block's positions end with the text", () => {
  assert.deepEqual(positionsOf(2, { n: 7, block: 3 }), [6, 6]);
  assert.equal(blocksOf({ n: 7, block: 3 }), 3);
});

test("out of a token is a row, into it a column, and what is not a number is nothing", () => {
  const pattern = Float32Array.of(1, 2, 3, 4, NaN, 6, 7, 8, 9);
  assert.deepEqual([...lineOf(pattern, 3, 1, "out")], [4, 0, 6]);
  assert.deepEqual([...lineOf(pattern, 3, 2, "in")], [3, 6, 9]);
});

test("the largest come first, by size, the earlier one where they are equal, and zeros never", () => {
  const found = largest(Float32Array.of(0, 0.5, -0.75, 0.5, 0.25), 3);
  assert.deepEqual(found.map(({ position }) => position), [2, 1, 3]);
  assert.deepEqual(largest(new Float32Array(5)), []);
  const many = Float32Array.from({ length: 100 }, (_, i) => ((i * 37) % 101) / 101);
  assert.deepEqual(largest(many, 8).map(({ value }) => value), [...many].sort((a, b) => b - a).slice(0, 8));
});

test("a head's chip is its largest score, and none where it has none", () => {
  const scores = Float32Array.of(0.1, NaN, 0.3, NaN, NaN, NaN, 0.2, NaN);
  const kinds = ["previous_token", "duplicate_token", "induction", "sink"];
  assert.deepEqual(best(scores, kinds, 2, 0), { kind: "duplicate_token", value: Math.fround(0.3) });
  assert.equal(best(scores, kinds, 2, 1), null);
  assert.deepEqual([0.834, 1, 0.004, 0.996].map(tight), [".83", "1.0", ".00", "1.0"]);
});

test("sixteen bits become shares, floats stay", () => {
  assert.deepEqual([...shares(Uint16Array.of(0, 65535))], [0, 1]);
  const floats = Float32Array.of(0.5);
  assert.equal(shares(floats), floats);
  assert.equal(farthest(Float32Array.of(0.1, -0.5), Float32Array.of(0.25)), 0.5);
});

const shaped = (array, shape) => Object.assign(array, { shape });

test("layers that come later take their place in the overview, and the data that was asked for stays as it was", () => {
  const arrays = {
    thumbs: shaped(new Uint8Array(2 * 2 * 1), [2, 2, 1, 1]),
    scores: shaped(new Float32Array(2 * 4 * 2).fill(NaN), [2, 4, 2]),
    known: shaped(new Uint8Array(2), [2]),
  };
  const came = new Map([[1, { thumbs: shaped(Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8), [2, 2, 2]), scores: Float32Array.of(1, 2, 3, 4, 5, 6, 7, 8) }]]);
  const made = filled(arrays, came);
  assert.deepEqual(made.thumbs.shape, [2, 2, 2, 2]);
  assert.deepEqual([...made.thumbs.subarray(8)], [1, 2, 3, 4, 5, 6, 7, 8]);
  assert.deepEqual([...made.scores.subarray(8)], [1, 2, 3, 4, 5, 6, 7, 8]);
  assert.deepEqual([[...made.known], [...arrays.known]], [[0, 1], [0, 0]]);
  assert.equal(filled(arrays, new Map()), arrays);
});

test("a head's scale begins on paper and goes steadily away from it, linear or by the root", () => {
  for (const theme of ["light", "dark"]) {
    for (let head = 0; head < 12; head++) {
      const scale = headScale(head, theme);
      assert.deepEqual(scale.rgb(0).map(Math.round), rgb(PAPER[theme]));
      const steps = [0, 0.25, 0.5, 0.75, 1].map((value) => luminance(scale.rgb(value)));
      const sign = theme === "light" ? -1 : 1;
      for (let i = 1; i < 5; i++) assert.ok(sign * (steps[i] - steps[i - 1]) > 0, `${theme} ${head}: ${steps}`);
      assert.deepEqual(headScale(head, theme, "root").rgb(0.25), scale.rgb(0.5));
    }
  }
});

test("thumbnails stand side by side in the sheet, each in its head's colours", () => {
  const given = { nLayers: 2, nHeads: 3, side: 2, theme: "light", shade: "linear", change: false };
  const thumbs = Uint8Array.from({ length: 24 }, (_, i) => i * 10);
  const { data, width, height } = sheet(thumbs, given);
  assert.deepEqual([width, height], [6, 4]);
  for (const [layer, head, row, col] of [[0, 0, 0, 0], [0, 2, 1, 0], [1, 1, 1, 1]]) {
    const byte = thumbs[((layer * 3 + head) * 2 + row) * 2 + col];
    const at = ((layer * 2 + row) * width + head * 2 + col) * 4;
    assert.deepEqual([...data.subarray(at, at + 3)], headScale(head, "light").rgb(byte / 255).map(Math.round));
  }
  const change = sheet(Uint8Array.of(128, 255), { nLayers: 1, nHeads: 2, side: 1, theme: "dark", shade: "linear", change: true });
  assert.deepEqual([...change.data.subarray(0, 3)], changeScale("dark", 1).rgb(0));
  assert.deepEqual([...change.data.subarray(4, 7)], changeScale("dark", 1).rgb(1));
});
