import assert from "node:assert/strict";
import { test } from "node:test";
import * as words from "../../../workbench/widgets/js/src/views/effect/words.js";

const side = (...tokens) => ({ tokens, differs: tokens.map(() => 0) });

test("the verdict says where two texts part, counted from 1, or that they do not", () => {
  const said = (before, after, first, done) => words.verdict({ before, after, first, done });
  assert.equal(said(side("a", "b"), side("a", "c"), 1, true), "they part at token 2");
  assert.equal(said(side("a"), side("a"), null, false), "the same so far");
  assert.equal(said(side("a"), side("a"), null, true), "both are the same");
  assert.equal(said(side("a"), side("a", "b"), null, true), "one is longer");
  assert.equal(said(side(), side(), null, false), "");
});

test("pieces know harmony's markers, differences and the ends of lines", () => {
  const made = words.pieces({ tokens: ["<|end|>", "x", "¶¶"], differs: [0, 1, 0] });
  assert.deepEqual(made.map(({ marker, differs, ends }) => [marker, differs, ends]), [[true, false, false], [false, true, false], [false, false, true]]);
}); // prettier-ignore

test("numbers are asked for at the end of a span, at the position, or at the last token", () => {
  assert.equal(words.positionOf({ position: 3, span: [1, 6] }), 5);
  assert.equal(words.positionOf({ position: 3, span: null }), 3);
  assert.equal(words.positionOf({ position: null, span: null }), null);
});

test("all flipped routes are summed", () => {
  assert.equal(words.total([1, 2, 3]), 6);
  assert.equal(words.share(3, 24), "3 of 24");
});
