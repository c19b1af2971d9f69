import assert from "node:assert/strict";
import { test } from "node:test";

const words = await import("../../../workbench/widgets/js/src/views/steering/words.js");

test("a typed scale is a number, with either minus and either decimal mark, or nothing", () => {
  assert.deepEqual(["2", " −0.5 ", "1,5", "1e3", "", "much", "1e12", "NaN"].map(words.typed), [2, -0.5, 1.5, 1000, null, null, null, null]);
});

test("the length is a share of what stands at the site, whichever way it points", () => {
  assert.equal(words.shareOf({ norm: 2, stream: 8 }, -3), 0.75);
  assert.ok(Number.isNaN(words.shareOf({ norm: 2, stream: 0 }, 1)));
});

test("p counts the random directions whose KL is as large, and one for the direction itself", () => {
  assert.deepEqual(words.against(2, [1, 2, 3]), { low: 1, high: 3, p: 0.75, n: 3 });
  assert.equal(words.against(2, []), null);
});

test("bytes become base64 of any length", () => {
  for (const n of [0, 1, 2, 3, 40_000, 100_001]) {
    const bytes = Uint8Array.from({ length: n }, (_, i) => (i * 31) % 256);
    assert.equal(words.base64(bytes), Buffer.from(bytes).toString("base64"));
  }
});

test("a text says how many of its tokens are new", () => {
  assert.deepEqual([words.differences([1, 0, 1], 3), words.differences([0, 0], 2), words.differences([], 0)], ["2 of 3 tokens differ", "the same", ""]);
});
