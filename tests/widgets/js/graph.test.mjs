import assert from "node:assert/strict";
import { test } from "node:test";
import * as place from "../../../workbench/widgets/js/src/views/graph/layout.js";
import * as model from "../../../workbench/widgets/js/src/views/graph/model.js";

/** A repeatable source of numbers in [0, 1). */
function numbers(seed) {
  let state = seed;
  return () => (state = (state * 1103515245 + 12345) % 2147483648) / 2147483648;
}

const shaped = (values, width) => Object.assign(values, { shape: [values.length / width, width] });

/** A random graph: embeddings, heads and experts of 3 layers at some of 40 tokens, an error, the logits. */
function random(seed, { tokens = 40, layers = 3, count = 60, edges = 200 } = {}) {
  const next = numbers(seed);
  const whole = (n) => Math.floor(next() * n);
  const nodes = [];
  const names = new Set();
  while (nodes.length < count) {
    const kind = whole(3);
    const node = { kind, layer: kind ? whole(layers) : -1, index: kind ? whole(8) : -1, pos: whole(tokens) };
    const name = JSON.stringify(node);
    if (!names.has(name)) nodes.push(node);
    names.add(name);
  }
  nodes.push({ kind: model.LOGITS, layer: layers, index: -1, pos: tokens - 1 });
  const expert = nodes.findIndex(({ kind }) => kind === model.EXPERT);
  nodes.push({ ...nodes[expert], kind: model.ERROR });
  const made = [{ from: count + 1, to: expert, flow: next() }];
  while (made.length < edges) {
    const [from, to] = [whole(count), whole(count + 1)];
    if (stage(nodes[from]) < stage(nodes[to])) made.push({ from, to, flow: next() ** 4 });
  }
  made.sort((a, b) => b.flow - a.flow);
  const arrays = {
    node: shaped(Int32Array.from(nodes.flatMap(({ kind, layer, index, pos }) => [kind, layer, index, pos])), 4),
    number: shaped(Float32Array.from(nodes.flatMap(() => [next() - 0.5, next(), 0, 0, 0, 0, 0, 0])), 8),
    ends: shaped(Int32Array.from(made.flatMap(({ from, to }) => [from, to])), 2),
    edge: shaped(Float32Array.from(made.flatMap(({ flow }) => [next() - 0.5, flow, next(), NaN])), 4),
    checked: Int32Array.from([3, -1, 7]),
    found: shaped(Float32Array.from([1, 2, 3, 4, 5, 6, 7, 8, -9]), 3),
  };
  const json = { names: nodes.map((node, i) => (node.kind === model.LOGITS ? "logits" : `n${i}`)), tokens: Array.from({ length: tokens }, (_, i) => "word".repeat(1 + (i % 3))) };
  return model.graphOf({ json, arrays }, layers);
}

const stage = ({ kind, layer }) => (kind === model.EMBED ? 0 : kind === model.LOGITS ? 99 : 2 * layer + kind);

test("pruning keeps exactly the edges from the threshold on, and the nodes at their ends with the logits", () => {
  for (let seed = 1; seed < 30; seed++) {
    const graph = random(seed);
    for (const threshold of [0, 1e-4, 0.01, 0.3, 2]) {
      const { edges, nodes, shown } = model.pruned(graph, threshold);
      const all = Array.from({ length: graph.m }, (_, e) => graph.edge(e));
      assert.equal(edges, all.filter(({ flow }) => flow >= threshold).length);
      const ends = new Set([graph.logits, ...all.slice(0, edges).flatMap(({ from, to }) => [from, to])]);
      assert.deepEqual([...nodes].map((on, i) => (on ? i : -1)).filter((i) => i >= 0), [...ends].sort((a, b) => a - b));
      assert.equal(shown, ends.size);
    }
  }
});

test("a node's neighbours are those that an edge joins with it", () => {
  const graph = random(5);
  const { edges } = model.pruned(graph, 0.01);
  for (let i = 0; i < graph.n; i++) {
    const found = model.around(graph, i, edges);
    const mine = Array.from({ length: edges }, (_, e) => e).filter((e) => [graph.edge(e).from, graph.edge(e).to].includes(i));
    assert.deepEqual(found.edges.sort((a, b) => a - b), mine);
    assert.ok(mine.every((e) => found.nodes.has(graph.edge(e).from) && found.nodes.has(graph.edge(e).to)) && found.nodes.has(i));
  }
});

test("what was confirmed is found by its edge, also where some edges were not sent", () => {
  const { found } = random(2);
  assert.deepEqual([...found], [[3, { predicted: 1, held: 2, live: 3 }], [7, { predicted: 7, held: 8, live: -9 }]]);
  assert.ok(model.disagrees(found.get(7)) && !model.disagrees(found.get(3)) && !model.disagrees(undefined));
});

test("nodes stand in the column of their token and the line of their layer, and none of them on another", () => {
  for (let seed = 1; seed < 20; seed++) {
    const graph = random(seed);
    const made = place.layout(graph, { room: 700, folded: true });
    const seen = new Set();
    for (let i = 0; i < graph.n; i++) {
      const { kind, pos } = graph.node(i);
      const column = made.columns.find(({ start, stop }) => pos >= start && pos < stop);
      assert.ok(column.wide);
      if (kind === model.ERROR) continue;
      assert.ok(made.x[i] > column.x && made.x[i] < column.x + column.width);
      const row = made.rows[model.rowOf(graph, i)];
      assert.ok(row.open && made.y[i] > row.y && made.y[i] < row.y + row.height);
      const spot = `${made.x[i].toFixed(1)} ${made.y[i].toFixed(1)}`;
      assert.ok(!seen.has(spot), spot);
      seen.add(spot);
    }
    for (let e = 0; e < graph.m; e++) {
      const { from, to } = graph.edge(e);
      if (graph.node(from).kind !== model.ERROR) assert.ok(made.y[from] > made.y[to], "every edge goes up");
    }
  }
});

test("tokens without nodes are folded into one narrow column each run, or all are shown; together they are the text", () => {
  const graph = random(3, { tokens: 2000, count: 30, edges: 60 });
  const folded = place.layout(graph, { room: 700, folded: true });
  const all = place.layout(graph, { room: 700, folded: false });
  assert.ok(folded.columns.length < 80 && all.columns.length === 2000 && all.columns.every(({ wide }) => wide));
  for (const { columns } of [folded, all]) {
    columns.forEach(({ start, stop, x, width }, i) => {
      assert.equal(start, i ? columns[i - 1].stop : 0);
      assert.ok(i === 0 || Math.abs(x - columns[i - 1].x - columns[i - 1].width) < 1e-6);
      assert.ok(stop > start && width > 0);
    });
    assert.equal(columns.at(-1).stop, 2000);
  }
  assert.ok(folded.columns.every((column, i) => column.wide || i === 0 || folded.columns[i - 1].wide), "no two folded ones in a row");
});

test("the mouse finds the node it is on, and the edge it is on", () => {
  const graph = random(4);
  const made = place.layout(graph, { room: 900, folded: true });
  const visible = new Uint8Array(graph.n).fill(1);
  for (let i = 0; i < graph.n; i++) {
    const found = place.nodeAt(made, visible, made.x[i], made.y[i]);
    assert.ok(Math.hypot(made.x[found] - made.x[i], made.y[found] - made.y[i]) <= made.r[found]);
  }
  assert.equal(place.nodeAt(made, visible, -500, -500), -1);
  for (let e = 0; e < graph.m; e += 7) {
    const { from, to, effect } = graph.edge(e);
    const [x, y] = place.along(place.curve(made, from, to, effect), 0.37);
    const found = place.edgeAt(graph, made, graph.m, x, y);
    assert.ok(found >= 0 && found <= e, "the strongest edge there");
  }
  assert.equal(place.edgeAt(graph, made, graph.m, -500, 100), -1);
});

test("arrow keys reach every node that is shown, and no other", () => {
  const graph = random(6);
  const made = place.layout(graph, { room: 900, folded: true });
  const { nodes } = model.pruned(graph, 0.01);
  const [reached, open] = [new Set([graph.logits]), [graph.logits]];
  while (open.length) {
    const at = open.pop();
    for (const key of ["ArrowUp", "ArrowDown", "ArrowLeft", "ArrowRight", "Home", "End", "PageUp", "PageDown"]) {
      const to = place.walk(graph, made, nodes, at, key);
      assert.ok(nodes[to]);
      if (!reached.has(to)) open.push(to);
      reached.add(to);
    }
  }
  assert.equal(reached.size, nodes.reduce((sum, on) => sum + on, 0));
  assert.equal(place.walk(graph, made, nodes, graph.logits, "x"), null);
});

test("the slider's places and shares of the flow are one another's inverse", () => {
  for (let at = 1; at <= 100; at++) assert.equal(model.toSlider(model.fromSlider(at)), at);
  assert.equal(model.fromSlider(0), 0);
  assert.equal(model.toSlider(0), 0);
});

test("logits are written with their sign, in digits that stand under one another", () => {
  assert.deepEqual([11.57, 1.634, 0.7, -0.0757, 0, -4.6e-5, 9.9999].map(model.signed), ["+11.6", "+1.63", "+0.700", "−0.076", "0.000", "−4.6e-5", "+10.0"]);
});

test("a selection lights the nodes of its head or expert, most at its position, and a node is its own selection", () => {
  const graph = random(8);
  for (let i = 0; i < graph.n; i++) {
    const { kind } = graph.node(i);
    if (kind !== model.HEAD && kind !== model.EXPERT) continue;
    const lit = model.chosenNodes(graph, { head: null, expert: null, ...model.selectionOf(graph, i) });
    assert.equal(lit.get(i), 2);
    assert.equal([...lit.values()].filter((how) => how === 2).length, 1);
  }
  assert.equal(model.chosenNodes(graph, { layer: null, head: null, expert: null, position: 3 }).size, 0);
  const into = Array.from({ length: graph.m }, (_, e) => e).find((e) => graph.node(graph.edge(e).to).kind === model.HEAD);
  const { from, to } = graph.edge(into);
  assert.deepEqual(model.selectionOfEdge(graph, into), { ...model.selectionOf(graph, to), key: graph.node(from).pos });
});
