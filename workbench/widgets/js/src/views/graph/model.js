/** A traced graph as the screen reads it: nodes, edges by falling share, who is next to whom. No canvas, no page. */
import { percent, short } from "../../draw/scales.js";

export const EMBED = 0;
export const HEAD = 1;
export const EXPERT = 2;
export const LOGITS = 3;
export const ERROR = 4;
export const NUMBERS = { effect: 0, influence: 1, bias: 2, error: 3, rest: 4, total: 5, routing: 6, biasFlow: 7 };
const SIGNS = { adds: "■●⬢■◆", takes: "□○⬡■◇" };

/** A node's kind as a character: full where it adds to the target, hollow where it takes from it. */
export const sign = (graph, i) => SIGNS[graph.number(i, "effect") < 0 ? "takes" : "adds"][graph.node(i).kind];

/**
 * @typedef {object} Graph
 * @property {number} n nodes @property {number} m edges @property {string[]} names @property {string[]} tokens
 * @property {number} layers of the model
 * @property {(i: number) => { kind: number, layer: number, index: number, pos: number }} node
 * @property {(i: number, name: string) => number} number
 * @property {(e: number) => { from: number, to: number, effect: number, flow: number, share: number, attention: number }} edge
 * @property {number[][]} incoming edges of each node, strongest first @property {number[][]} outgoing
 * @property {Map<number, { predicted: number, held: number, live: number }>} found edges that were taken away
 *
 * @param {{ json: object, arrays: object }} data @param {number} layers
 * @returns {Graph}
 */
export function graphOf({ json, arrays }, layers) {
  const { node, number, ends, edge } = arrays;
  const [n, m] = [node.shape[0], ends.shape[0]];
  const wide = number.shape[1];
  const [incoming, outgoing] = [Array.from({ length: n }, () => []), Array.from({ length: n }, () => [])];
  for (let e = 0; e < m; e++) {
    outgoing[ends[2 * e]].push(e);
    incoming[ends[2 * e + 1]].push(e);
  }
  const width = edge.shape[1];
  return {
    n, m, layers, incoming, outgoing,
    names: json.names,
    tokens: json.tokens,
    place: new Map(json.names.map((name, i) => [name, i])),
    logits: json.names.indexOf("logits"),
    found: foundOf(arrays),
    node: (i) => ({ kind: node[4 * i], layer: node[4 * i + 1], index: node[4 * i + 2], pos: node[4 * i + 3] }),
    number: (i, name) => number[i * wide + NUMBERS[name]],
    edge: (e) => ({
      from: ends[2 * e], to: ends[2 * e + 1], effect: edge[width * e], flow: edge[width * e + 1], share: edge[width * e + 2],
      attention: edge[width * e + 3],
    }),
  }; // prettier-ignore
}

/** What was confirmed, by edge. */
export function foundOf({ checked, found }) {
  const made = new Map();
  for (let i = 0; i < (checked?.length ?? 0); i++) {
    if (checked[i] >= 0) made.set(checked[i], { predicted: found[3 * i], held: found[3 * i + 1], live: found[3 * i + 2] });
  }
  return made;
}

/** How many edges have at least this share of the flow (they fall in it), and which nodes they touch. */
export function pruned(graph, threshold) {
  let [low, high] = [0, graph.m];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (graph.edge(middle).flow >= threshold) low = middle + 1;
    else high = middle;
  }
  const nodes = new Uint8Array(graph.n);
  nodes[graph.logits] = 1;
  for (let e = 0; e < low; e++) {
    const { from, to } = graph.edge(e);
    nodes[from] = nodes[to] = 1;
  }
  return { edges: low, nodes, shown: nodes.reduce((sum, one) => sum + one, 0) };
}

/** The edges of a node that are shown, and the nodes at their other ends. */
export function around(graph, i, edges) {
  const mine = [...graph.incoming[i], ...graph.outgoing[i]].filter((e) => e < edges);
  const nodes = new Set([i]);
  for (const e of mine) {
    const { from, to } = graph.edge(e);
    nodes.add(from).add(to);
  }
  return { edges: mine, nodes };
}

/** The line of a node, from below: embeddings 0, then attention and experts of each layer, then the logits. */
export function rowOf(graph, i) {
  const { kind, layer } = graph.node(i);
  if (kind === EMBED) return 0;
  if (kind === LOGITS) return 2 * graph.layers + 1;
  return 2 * layer + (kind === HEAD ? 1 : 2);
}

export function rowName(row, layers) {
  if (row === 0) return "embed";
  if (row === 2 * layers + 1) return "logits";
  return `L${(row - 1) >> 1} ${row % 2 ? "attn" : "experts"}`;
}

/** Short: "L1 H3". */
export function shortName(graph, i) {
  const { kind, layer, index } = graph.node(i);
  if (kind === HEAD) return `L${layer} H${index}`;
  if (kind === EXPERT) return `L${layer} E${index}`;
  return { [EMBED]: "embedding", [LOGITS]: "logits", [ERROR]: `error of L${layer} E${index}` }[kind];
}

/** "L1 H3 at ␣Mia (5)". */
export function fullName(graph, i) {
  const { pos } = graph.node(i);
  return `${shortName(graph, i)} at ${graph.tokens[pos] ?? "?"} (${pos})`;
}

/** A node in words, for a tooltip and a screen reader. */
export function describeNode(graph, i, edges) {
  const [effect, influence] = [graph.number(i, "effect"), graph.number(i, "influence")];
  const count = (list) => list.filter((e) => e < edges).length;
  const more = graph.node(i).kind === LOGITS ? "" : `, influence ${percent(influence)}`;
  return `${fullName(graph, i)}\neffect ${signed(effect)} logits${more}\n${count(graph.incoming[i])} edges in, ${count(graph.outgoing[i])} out are shown`;
}

/** An edge in words. */
export function describeEdge(graph, e) {
  const { from, to, effect, flow, share } = graph.edge(e);
  const found = graph.found.get(e);
  const live = found ? `\nlive model ${signed(found.live)} logits` : "";
  return `${fullName(graph, from)} → ${fullName(graph, to)}\n${signed(effect)} logits, ${percent(share)} of what comes in, ${percent(flow)} of the flow${live}`;
}

/** Logits with their sign, in digits that stand under one another: +11.6, +1.63, −0.076. */
export function signed(value) {
  const size = Math.abs(value);
  if (!Number.isFinite(value) || (size > 0 && size < 0.0005)) return value > 0 ? `+${short(value, 1)}` : short(value, 1);
  const text = size.toFixed(size >= 9.995 ? 1 : size >= 0.9995 ? 2 : 3);
  return `${value > 0 ? "+" : value < 0 ? "−" : ""}${text}`;
}

/** Whether taking the edge away in the live model did the opposite of what the graph says. */
export const disagrees = (found) => found !== undefined && found.predicted * found.live < 0;

/** Whether an edge can be taken away: not those into the logits, which are exact, and not errors. */
export function confirmable(graph, e) {
  const { from, to } = graph.edge(e);
  return graph.node(to).kind !== LOGITS && graph.node(from).kind !== ERROR;
}

/** The nodes that a selection or a hover names: 2 where also the position is the same, 1 elsewhere. */
export function chosenNodes(graph, { layer, head, expert, position }) {
  const made = new Map();
  if (layer === null || layer === undefined) return made;
  const [kind, index] = head !== null && head !== undefined ? [HEAD, head] : [EXPERT, expert];
  if (index === null || index === undefined) return made;
  for (let i = 0; i < graph.n; i++) {
    const node = graph.node(i);
    if (node.kind === kind && node.layer === layer && node.index === index) made.set(i, node.pos === position ? 2 : 1);
  }
  return made;
}

/** What a node is in the shared selection. */
export function selectionOf(graph, i) {
  const { kind, layer, index, pos } = graph.node(i);
  if (kind === HEAD) return { layer, head: index, position: pos };
  if (kind === EXPERT || kind === ERROR) return { layer, expert: index, position: pos };
  return { position: pos };
}

/** What an edge is in it: the reader, and what it reads. */
export function selectionOfEdge(graph, e) {
  const { from, to } = graph.edge(e);
  const target = graph.node(to);
  if (target.kind === HEAD) return { ...selectionOf(graph, to), key: graph.node(from).pos };
  return selectionOf(graph, target.kind === LOGITS ? from : to);
}

/** The slider's place for a share of the flow, and back: each step multiplies. */
const [LEAST, MOST] = [1e-5, 0.5];
export const toSlider = (share) => Math.round((100 * Math.log(Math.max(LEAST, Math.min(MOST, share)) / LEAST)) / Math.log(MOST / LEAST));
export const fromSlider = (place) => (place <= 0 ? 0 : LEAST * (MOST / LEAST) ** (place / 100));
