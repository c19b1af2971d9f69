import assert from "node:assert/strict";
import { test } from "node:test";
import { asWhole, describeNode, forksOf, newSpecs, startsAfter } from "../../../workbench/widgets/js/src/views/generation/tree.js";

const node = (parent, token, specs = 0) => ({ parent, token, id: 1, specs, p: 0.5, rank: 1, entropy: 0.7, end: false });
const json = { nodes: { 1: node(0, "a"), 2: node(1, "b"), 3: node(1, "c", 1) }, specs: [[], ["AblateHead L0H1"]] };

test("what is typed counts only where it is a whole number in the range", () => {
  assert.equal(asWhole(" 12 ", 1, 512), 12);
  for (const text of ["", "1.5", "-1", "0", "513", "1e2", "twelve", "99999999999999999999"]) assert.equal(asWhole(text, 1, 512), null, text);
});

test("a row starts after the prompt or after the node that it forks from", () => {
  assert.equal(startsAfter(json, [1, 2]), null);
  assert.equal(startsAfter(json, [3]).token, "a");
});

test("interventions are named once for a row, and not at all where there are none", () => {
  assert.deepEqual(newSpecs(json, [1, 2]), []);
  assert.deepEqual(newSpecs(json, [1, 3]), [[], ["AblateHead L0H1"]]);
});

test("a node without numbers says so", () => {
  const said = describeNode({ ...node(0, "a", 1), p: null, rank: null, entropy: null, end: true }, json.specs, String, String);
  assert.match(said, /not measured yet/);
  assert.match(said, /with AblateHead L0H1/);
  assert.match(said, /ends the text/);
});

test("a fork is a node that more than one token follows", () => {
  const nodes = { 1: { parent: 0 }, 2: { parent: 1 }, 3: { parent: 1 }, 4: { parent: 0 }, 5: { parent: 4 } };
  assert.deepEqual([...forksOf(nodes)].sort(), [0, 1]);
  const star = Object.fromEntries(Array.from({ length: 20000 }, (_, i) => [i + 1, { parent: i }]));
  assert.equal(forksOf(star).size, 0);
});
