import assert from "node:assert/strict";
import { test } from "node:test";
import * as ranges from "../../../workbench/widgets/js/src/draw/ranges.js";
import { percent, short } from "../../../workbench/widgets/js/src/draw/scales.js";
import { cellAt, layout, rectOf } from "../../../workbench/widgets/js/src/parts/matrix/layout.js";

test("the items on screen are all of those that a window touches, and no others", () => {
  for (const size of [1, 7, 27, 40.5]) {
    for (const count of [0, 1, 20, 2000]) {
      for (const offset of [0, 1, 333, 5000, size * count]) {
        const room = 150;
        const { start, stop } = ranges.visible(offset, room, size, count);
        for (let i = 0; i < count; i++) {
          const touched = (i + 1) * size > offset && i * size < offset + room;
          if (touched) assert.ok(i >= start && i < stop, `${i} of ${count} at ${offset}`);
        }
        assert.ok(stop - start <= Math.ceil(room / size) + 1);
        assert.ok(start >= 0 && stop <= count && start <= stop);
      }
    }
  }
});

test("labels never overlap and are at round numbers", () => {
  assert.equal(ranges.labelStep(20, 12), 1);
  for (const size of [0.3, 1, 3, 11]) assert.ok(ranges.labelStep(size, 12) * size >= 12);
  assert.equal(ranges.labelStep(1, 12), 16);
});

test("reveal scrolls no further than it must", () => {
  assert.equal(ranges.reveal(100, 50, 110, 120), 100);
  assert.equal(ranges.reveal(100, 50, 90, 100), 90);
  assert.equal(ranges.reveal(100, 50, 140, 160), 110);
  assert.equal(ranges.reveal(0, 50, 60, 200), 60); // taller than the window: its start is shown
});

test("keys move inside the grid and stop at its edges", () => {
  const size = { rows: 3, cols: 4, page: 2 };
  const from = (row, col, key, ctrl) => Object.values(ranges.moved({ row, col }, key, { ...size, ctrl }));
  assert.deepEqual(from(0, 0, "ArrowUp"), [0, 0]);
  assert.deepEqual(from(1, 1, "ArrowRight"), [1, 2]);
  assert.deepEqual(from(1, 1, "End"), [1, 3]);
  assert.deepEqual(from(1, 1, "End", true), [2, 3]);
  assert.deepEqual(from(2, 1, "PageUp"), [0, 1]);
  assert.equal(ranges.moved({ row: 0, col: 0 }, "x", size), null);
});

test("lines hold every token once, in order, and none is wider than the room", () => {
  const widths = Float32Array.from({ length: 500 }, (_, i) => 8 + ((i * 37) % 60));
  const breaks = new Set([100, 101, 250]);
  const made = ranges.lines(widths, { room: 300, gap: 1, breaks, newline: (i) => i === 40 });
  assert.equal(made.starts[0], 0);
  assert.equal(made.starts.at(-1), 500);
  for (let line = 0; line + 1 < made.starts.length; line++) {
    const [first, end] = [made.starts[line], made.starts[line + 1]];
    assert.ok(end > first);
    assert.equal(made.lefts[first], 0);
    assert.ok(made.lefts[end - 1] + widths[end - 1] <= 300);
    for (let i = first; i < end; i++) assert.equal(made.lineOf[i], line);
  }
  for (const start of [...breaks, 41]) assert.ok(made.starts.includes(start));
  assert.deepEqual(ranges.lines([], { room: 10 }).starts, [0]);
});

test("the nearest token of a line is the one under the same x", () => {
  const widths = Float32Array.from([30, 30, 30, 30]);
  const made = ranges.lines(widths, { room: 65, gap: 0 });
  assert.equal(ranges.nearestInLine(made, widths, 1, 10), 2);
  assert.equal(ranges.nearestInLine(made, widths, 1, 500), 3);
});

test("ticks are round, within the ends, and few", () => {
  for (const [low, high] of [[0, 1], [-3.2, 7.9], [0, 0.00042], [1000, 98000]]) {
    const made = ranges.ticks(low, high, 4);
    assert.ok(made.length >= 2 && made.length <= 6, String(made));
    assert.ok(made.every((value) => value >= low - 1e-9 && value <= high + 1e-9));
  }
  assert.deepEqual(ranges.ticks(0, 1, 4), [0, 0.25, 0.5, 0.75, 1]);
  assert.deepEqual(ranges.ticks(2, 2), [2]);
});

test("the cell under the middle of each cell's rectangle is that cell, scrolled or not", () => {
  for (const given of [
    { rows: 24, cols: 1000, room: 900, minCell: 1, rowLabel: 40, colLabel: 20 },
    { rows: 2000, cols: 24, room: 600, cell: { height: 20 }, rowLabel: 90, colLabel: 15 },
    { rows: 60, cols: 60, room: 500, square: true, rowLabel: 80, colLabel: 80 },
    { rows: 1, cols: 1, room: 300 },
  ]) {
    const place = layout(given);
    for (const [row, col] of [[0, 0], [given.rows - 1, given.cols - 1], [given.rows >> 1, given.cols >> 1]]) {
      const scroll = { left: Math.max(0, col * place.cw - 100), top: Math.max(0, row * place.ch - 50) };
      const rect = rectOf(place, scroll, row, col);
      assert.deepEqual(cellAt(place, given, scroll, rect.x + rect.width / 2, rect.y + rect.height / 2), { row, col });
    }
    assert.equal(cellAt(place, given, { left: 0, top: 0 }, place.left - 1, place.top - 1), null);
    assert.equal(cellAt(place, given, { left: 0, top: 0 }, place.width + 1, place.top + 1), null);
  }
});

test("a matrix that fits its box does not scroll, and one that does not is no taller than allowed", () => {
  const small = layout({ rows: 10, cols: 10, room: 800, rowLabel: 50, colLabel: 20 });
  assert.ok(!small.scrollsX && !small.scrollsY && small.width <= 800);
  const tall = layout({ rows: 5000, cols: 24, room: 800, cell: { height: 20 }, maxHeight: 400 });
  assert.ok(tall.scrollsY && !tall.scrollsX && tall.boxHeight <= 400);
  const wide = layout({ rows: 4, cols: 5000, room: 800, minCell: 4 });
  assert.ok(wide.scrollsX && wide.width >= 20000);
});

test("no two ticks of an axis read the same", () => {
  for (const [low, high] of [[0.9991, 0.9999], [1000, 1004], [0, 1], [-3, 8], [12.3451, 12.3456], [-2e-5, 3e-5]]) {
    for (const format of [short, percent]) {
      const names = ranges.tickNames(ranges.ticks(low, high, 4), format);
      assert.equal(new Set(names).size, names.length, `${low} to ${high}: ${names.join(" ")}`);
    }
  }
  assert.deepEqual(ranges.tickNames([0, 0.5, 1], short), ["0", "0.5", "1"]);
  assert.deepEqual(ranges.tickNames([-0.9991, -0.999], short), ["−0.9991", "−0.999"]);
  assert.deepEqual(ranges.tickNames([0.9991, 0.9992], percent), ["99.91%", "99.92%"]);
});
