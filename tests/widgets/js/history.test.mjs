import assert from "node:assert/strict";
import { test } from "node:test";
import { chosen, clock, fallen } from "../../../workbench/widgets/js/src/views/history/steps.js";

test("a click chooses a step, a second click lets it go, a third choice drops the oldest", () => {
  assert.deepEqual(chosen([], 1), [1]);
  assert.deepEqual(chosen([1], 1), []);
  assert.deepEqual(chosen([1, 2], 3), [2, 3]);
});

test("a time is written in the reader's own hours, and what is no time as nothing", () => {
  const at = new Date(2026, 0, 2, 3, 4, 5);
  assert.equal(clock(at.toISOString()), "03:04:05");
  assert.equal(clock("<b>"), "");
});

test("steps that are gone are named by their numbers", () => {
  assert.equal(fallen(2), "step 1 has fallen off");
  assert.equal(fallen(101), "steps 1 to 100 have fallen off");
});
