import assert from "node:assert/strict";
import { test } from "node:test";

// Widths as in a fixed-width font: what is measured here is how lines break, not how wide letters are.
globalThis.OffscreenCanvas = class {
  getContext() {
    return { font: "", measureText: (text) => ({ width: [...text].length * 7 }) };
  }
};

const parts = "../../../workbench/widgets/js/src/parts";
const { flow, bandsInLine, step } = await import(`${parts}/tokens/flow.js`);
const { nearestInLine } = await import("../../../workbench/widgets/js/src/draw/ranges.js");
const { sorted } = await import(`${parts}/table.js`);
const { beside } = await import(`${parts}/popup.js`);
const { duration, progressText } = await import(`${parts}/jobs.js`);
const paint = await import("../../../workbench/widgets/js/src/draw/paint.js");
const { sequential, rgb, NOISE, PAPER } = await import("../../../workbench/widgets/js/src/draw/scales.js");
const { current, size } = await import("../../../workbench/widgets/js/src/shell/status.js");

test("a new message and a newline begin a new line, and a token of 200 characters stays in the strip", () => {
  const tokens = ["<|start|>", "user", "Hi", "¶", "there", "<|end|>", "<|start|>", "x".repeat(200)];
  const bands = [{ start: 0, stop: 6, name: "user" }, { start: 6, stop: 8, name: "assistant" }];
  const made = flow({ tokens, bands, room: 400, gutter: 100 });
  assert.ok(made.starts.includes(4) && made.starts.includes(6));
  assert.ok([...made.widths].every((width) => width <= 300));
});

test("the thin bands above the lines cover each token of their role and no other", () => {
  const tokens = Array.from({ length: 300 }, (_, i) => `t${i}`);
  const bands = [{ start: 0, stop: 130, name: "user" }, { start: 130, stop: 300, name: "tool" }];
  const made = flow({ tokens, bands, room: 500, gutter: 0 });
  for (let line = 0; line + 1 < made.starts.length; line++) {
    const runs = bandsInLine(made, bands, line);
    for (let i = made.starts[line]; i < made.starts[line + 1]; i++) {
      const over = runs.filter((run) => made.lefts[i] >= run.left && made.lefts[i] + made.widths[i] <= run.left + run.width + 1e-3);
      assert.deepEqual(over.map((run) => run.name), [i < 130 ? "user" : "tool"]);
    }
  }
});

test("arrow keys reach every token and stop at both ends", () => {
  const made = flow({ tokens: Array.from({ length: 90 }, (_, i) => "w".repeat(1 + (i % 9))), room: 300, gutter: 0 });
  const how = { count: 90, page: 3, nearest: nearestInLine };
  for (let i = 0; i < 90; i++) {
    assert.equal(step(made, i, "ArrowRight", how), Math.min(89, i + 1));
    assert.equal(step(made, i, "ArrowLeft", how), Math.max(0, i - 1));
    const down = step(made, i, "ArrowDown", how);
    assert.ok(made.lineOf[down] - made.lineOf[i] === 1 || down === i);
  }
  assert.equal(step(made, 40, "Home", { ...how, ctrl: true }), 0);
  assert.equal(step(made, 40, "End", { ...how, ctrl: true }), 89);
  assert.equal(step(made, 40, "x", how), null);
});

test("rows without a number come last whichever way one sorts", () => {
  const rows = [{ v: 2 }, { v: NaN }, { v: -1 }, { v: null }, { v: 9 }];
  const values = (down) => sorted(rows, { key: "v" }, down).map(({ v }) => v);
  assert.deepEqual(values(false).slice(0, 3), [-1, 2, 9]);
  assert.deepEqual(values(true).slice(0, 3), [9, 2, -1]);
  assert.deepEqual(rows.map(({ v }) => v), [2, NaN, -1, null, 9]);
});

test("a popup stands below its cell, above it where there is no room, and never outside", () => {
  const bounds = { left: 0, right: 600, top: 0, bottom: 500 };
  const box = { width: 200, height: 100 };
  const cell = (left, top) => ({ left, top, bottom: top + 20, right: left + 30 });
  assert.deepEqual(beside(cell(50, 100), box, bounds), { left: 50, top: 126 });
  assert.deepEqual(beside(cell(50, 450), box, bounds), { left: 50, top: 344 });
  assert.equal(beside(cell(590, 100), box, bounds).left, 394);
  assert.equal(beside(cell(-40, 100), box, bounds).left, 6);
});

test("cells take the colour of their value, noise its grey, estimates fade, NaN is unseen", () => {
  const colour = sequential("light", 0, 1);
  const cells = { values: Float32Array.of(0, 1, NaN, 1, 1, 0), cols: 3, colour, theme: "light" };
  cells.grey = Uint8Array.of(0, 0, 0, 1, 0, 0);
  cells.faded = Uint8Array.of(0, 0, 0, 0, 1, 0);
  assert.deepEqual(paint.colourOf(cells, 0, 0), colour.rgb(0));
  assert.deepEqual(paint.colourOf(cells, 0, 1), colour.rgb(1));
  assert.deepEqual(paint.colourOf(cells, 0, 2), colour.unseen);
  assert.deepEqual(paint.colourOf(cells, 1, 0), rgb(NOISE.light));
  const faded = colour.rgb(1).map((part, i) => part + (rgb(PAPER.light)[i] - part) * 0.45);
  paint.colourOf(cells, 1, 1).forEach((part, i) => assert.ok(Math.abs(part - faded[i]) <= 0.5));
  const own = { ...cells, colour: (value, i) => [value, i, 7] };
  assert.deepEqual(paint.colourOf(own, 1, 2), [0, 5, 7]);
});

test("only the part of a matrix that is on screen is coloured", () => {
  const cells = { values: Float32Array.from({ length: 50 }, (_, i) => i), cols: 10, colour: (value) => [value, 0, 0], theme: "light" };
  const data = paint.colours(cells, { top: 1, bottom: 3, left: 4, right: 6 });
  assert.deepEqual([data[0], data[4], data[8], data[12]], [14, 15, 24, 25]);
  assert.equal(data.length, 16);
  assert.equal(paint.markedCells(new Uint8Array(50), 10, { top: 1, bottom: 3, left: 4, right: 6 }), null);
});

test("progress is told in words", () => {
  assert.equal(progressText({ state: "running", done: 120, total: 400, rate: 35, left: 8 }), "120 of 400 · 35 a second · 8 s left");
  assert.equal(progressText({ state: "cancelled", done: 120, total: 400 }), "120 of 400 · cancelled, what is done is kept");
  assert.deepEqual([0.4, 59, 130, 3900, null].map(duration), ["< 1 s", "59 s", "2 min 10 s", "1 h 5 min", ""]);
  assert.deepEqual([640e6, 3.24e9, 24e9].map(size), ["640 MB", "3.2 GB", "24 GB"]);
});

test("the status line tells of the job that runs, else of the first that waits", () => {
  const jobs = [{ id: 1, state: "done" }, { id: 2, state: "queued" }, { id: 3, state: "running" }];
  assert.equal(current(jobs).id, 3);
  assert.equal(current(jobs.slice(0, 2)).id, 2);
  assert.equal(current(jobs.slice(0, 1)), null);
});
