// What the patching view works out by itself: marks of cells, selections, lines of aligned tokens, keys.
import assert from "node:assert/strict";
import { test } from "node:test";
import { bandsOf, cellOf, describeCell, fieldsOf, merged, nextDifference, parting, points, share } from "../../../workbench/widgets/js/src/views/patching/grid.js";
import { columnsOf, placed, stepped } from "../../../workbench/widgets/js/src/views/patching/lines.js";

const f32 = (...values) => Float32Array.from(values);

test("exact cells lie over estimates; what has neither is hatched", () => {
  const found = merged({ exact: f32(0.5, NaN, NaN), estimate: f32(0.1, 0.2, NaN) });
  assert.deepEqual([...found.values].map((v) => Math.round(v * 10) / 10), [0.5, 0.2, NaN]);
  assert.deepEqual([...found.faded], [0, 1, 0]);
  assert.deepEqual([...found.hatch], [0, 0, 1]);
  assert.equal(found.done, 1);
});

test("without estimates every cell that is not run is hatched", () => {
  assert.deepEqual([...merged({ exact: f32(0, NaN) }).hatch], [0, 1]);
});

test("exact cells no larger than the floor are grey, estimates and cells that cannot do anything never", () => {
  const found = merged({ exact: f32(0.1, -0.1, 0.3, NaN, 0), estimate: f32(0, 0, 0, 0.01, 0), floor: 0.15, able: Uint8Array.of(1, 1, 1, 1, 0) });
  assert.deepEqual([...found.grey], [1, 1, 0, 0, 0]);
  assert.deepEqual([...found.idle], [0, 0, 0, 0, 1]);
});

test("a selection and its cell name each other, for every kind of grid", () => {
  const grids = [
    { dims: ["layer", "pos"], layer: null, part: "attn_out", shape: [4, 9] },
    { dims: ["layer", "head"], layer: null, part: "head", shape: [4, 8] },
    { dims: ["expert", "pos"], layer: 2, part: "expert", shape: [8, 9] },
  ];
  const nothing = { layer: null, position: null, head: null, expert: null, site: null };
  for (const about of grids) {
    assert.equal(cellOf(nothing, about), null);
    assert.deepEqual(cellOf({ ...nothing, ...fieldsOf(1, 5, about) }, about), { row: 1, col: 5 });
  }
  assert.equal(fieldsOf(1, 5, grids[0]).site, "blocks.1.hook_attn_out");
  assert.equal(cellOf({ ...nothing, layer: 1, expert: 3, position: 2 }, grids[2]), null); // another layer
});

test("a cell is said in words: where, which tokens, what was found", () => {
  const about = { dims: ["layer", "pos"], layer: null, part: "resid_pre", shape: [1, 3], floor: 0.2 };
  const tokens = { source: ["a", "b", "<b>"], target: ["a", "c", "<b>"] };
  const arrays = { exact: f32(0.1, 0.9, NaN), estimate: f32(0, 0.5, 0.25), able: Uint8Array.of(1, 1, 1) };
  const said = (col) => describeCell(0, col, about, arrays, tokens);
  assert.match(said(0), /inside the noise floor/);
  assert.equal(said(1), "resid_pre, layer 0, position 1\nb into c\nbrings back 0.9 (estimate 0.5)");
  assert.match(said(2), /not run yet, estimate 0.25/);
  assert.match(describeCell(0, 0, about, { ...arrays, able: Uint8Array.of(0, 1, 1) }, tokens), /nothing differs here/);
});

test("small shares have no minus before a zero", () => {
  assert.equal(share(-0.0001), "0");
  assert.equal(share(-0.25), "−0.25");
});

test("neighbouring columns that differ are one band", () => {
  assert.deepEqual(bandsOf(Uint8Array.of(0, 1, 1, 0, 1), "pink"), [{ start: 1, stop: 3, colour: "pink" }, { start: 4, stop: 5, colour: "pink" }]);
});

test("the next difference is after the chosen position, and round again", () => {
  const arrays = { pairs: Int32Array.of(0, 0, 1, 1, 2, -1, 3, 2), differs: Uint8Array.of(0, 1, 1, 1) };
  assert.deepEqual([null, 0, 1, 2].map((at) => nextDifference(arrays, at)), [1, 1, 2, 1]);
  assert.equal(nextDifference({ pairs: Int32Array.of(0, 0), differs: Uint8Array.of(0) }, null), null);
});

test("points are the cells with both numbers, thinned where there are many", () => {
  const found = points({ exact: f32(1, NaN, 0, -2), estimate: f32(0.5, 1, 0, 1) });
  assert.deepEqual(found.points, [{ i: 0, x: 0.5, y: 1 }, { i: 3, x: 1, y: -2 }]);
  assert.ok(found.limit >= 2);
  const many = new Float32Array(10000).fill(1);
  assert.ok(points({ exact: many, estimate: many }, 300).points.length <= 300);
});

test("texts part at the first token that is another one", () => {
  assert.equal(parting(["a", "b"], ["a", "c"]), 1);
  assert.equal(parting(["a"], ["a", "b"]), 1);
});

const pairs = Int32Array.of(0, 0, 1, 1, -1, 2, 2, 3);
const tokens = [["aaaa", "b", "c"], ["a", "bbb", "new", "c"]];
const flowed = placed({ pairs, tokens, room: 80, width: (text) => 10 * text.length });

test("both tokens of a pair get the room of the wider one, and lines break together", () => {
  assert.deepEqual([...flowed.widths], [48, 38, 38, 18]);
  assert.deepEqual(flowed.starts, [0, 1, 3, 4]);
  assert.deepEqual([...flowed.lineOf], [0, 1, 1, 2]);
});

test("a position finds its column", () => {
  assert.deepEqual([...columnsOf(pairs, 0, 3)], [0, 1, 3]);
  assert.deepEqual([...columnsOf(pairs, 1, 4)], [0, 1, 2, 3]);
});

test("arrows go along a text, down from source to target, and on to the next line", () => {
  const go = (at, key, ctrl) => stepped(at, key, flowed, ctrl);
  assert.deepEqual(go({ side: 0, column: 0 }, "ArrowDown"), { side: 1, column: 0 });
  assert.deepEqual(go({ side: 1, column: 0 }, "ArrowDown"), { side: 0, column: 1 });
  assert.deepEqual(go({ side: 0, column: 1 }, "ArrowUp"), { side: 1, column: 0 });
  assert.deepEqual(go({ side: 0, column: 0 }, "ArrowUp"), { side: 0, column: 0 });
  assert.deepEqual(go({ side: 1, column: 3 }, "ArrowRight"), { side: 1, column: 3 });
  assert.deepEqual(go({ side: 1, column: 1 }, "End"), { side: 1, column: 2 });
  assert.deepEqual(go({ side: 1, column: 3 }, "Home", true), { side: 1, column: 0 });
  assert.equal(go({ side: 1, column: 3 }, "x"), null);
});
