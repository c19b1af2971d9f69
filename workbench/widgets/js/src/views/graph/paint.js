/** Paints the graph: lines and names of rows and tokens, edges in batches, nodes; and what is lit over it. */
import { MONO, SANS, fit, prepare } from "../../draw/paint.js";
import { CHOSEN, HOVERED, INK, LINE, PAPER, SOFT, UNSEEN } from "../../draw/scales.js";
import { LEFT, LONGEST, along, curve } from "./layout.js";
import { EMBED, ERROR, EXPERT, HEAD, LOGITS, disagrees, rowName } from "./model.js";

/** PRGn's ends (ColorBrewer): adds to the target, takes from it. */
export const ADDS = { light: "#1b7837", dark: "#63be7b" };
export const TAKES = { light: "#762a83", dark: "#c39bd3" };
const STEPS = 7; // widths of edges
const WIDEST = 7;

export const colourOf = (effect, theme) => (effect >= 0 ? ADDS : TAKES)[theme];

/** An edge's width in pixels: its area is its share of the flow, the largest of the graph taken as the widest. */
export const widthOf = (flow, most) => 0.6 + (WIDEST - 0.6) * Math.sqrt(Math.min(1, flow / most));

/**
 * @param {HTMLCanvasElement} canvas @param {{ width: number, height: number, left: number, top: number }} view
 * @param {object} scene graph, place, shown, theme, edits (Set of nodes)
 */
export function paintBase(canvas, view, scene) {
  const context = prepare(canvas, view.width, view.height);
  const { theme } = scene;
  context.fillStyle = PAPER[theme];
  context.fillRect(0, 0, view.width, view.height);
  context.save();
  context.translate(-view.left, -view.top);
  ground(context, view, scene);
  edges(context, view, scene);
  for (let i = 0; i < scene.graph.n; i++) if (scene.shown.nodes[i]) mark(context, scene, i);
  disagreements(context, scene);
  context.restore();
  frame(context, view, scene, {});
}

/** Bands of the tokens, lines of the rows. */
function ground(context, view, { place, theme }) {
  context.fillStyle = UNSEEN[theme];
  for (const column of place.columns) {
    if (column.wide) continue;
    context.fillRect(column.x + 2, view.top, column.width - 4, view.height);
  }
  context.strokeStyle = LINE[theme];
  context.lineWidth = 1;
  context.beginPath();
  for (const row of place.rows) {
    const y = Math.round(row.y + row.height) - 0.5;
    if (row.open && row.row % 2 === 1) {
      context.moveTo(Math.max(LEFT, view.left), y);
      context.lineTo(view.left + view.width, y);
    }
  }
  context.stroke();
}

const mostFlow = (graph) => (graph.m ? Math.max(1e-12, graph.edge(0).flow) : 1);

/** All edges that are shown, the weakest below; one stroke for each width and sign. */
function edges(context, view, scene) {
  const { graph, place, shown, theme } = scene;
  const most = mostFlow(graph);
  const batches = Array.from({ length: STEPS * 2 }, () => []);
  for (let e = shown.edges - 1; e >= 0; e--) {
    const { flow, effect } = graph.edge(e);
    const step = Math.min(STEPS - 1, Math.floor(STEPS * Math.sqrt(flow / most)));
    batches[2 * step + (effect < 0 ? 1 : 0)].push(e);
  }
  batches.forEach((batch, b) => {
    const step = b >> 1;
    context.lineWidth = widthOf(((step + 0.5) / STEPS) ** 2, 1);
    context.strokeStyle = (b % 2 ? TAKES : ADDS)[theme];
    context.globalAlpha = 0.25 + (0.5 * step) / STEPS;
    context.setLineDash(b % 2 ? dashes(context.lineWidth) : []);
    context.beginPath();
    for (const e of batch) trace(context, view, graph, place, e);
    context.stroke();
  });
  context.setLineDash([]);
  context.globalAlpha = 1;
}

const dashes = (width) => [4 + width, 2 + width * 0.6];

function trace(context, view, graph, place, e) {
  const { from, to, effect } = graph.edge(e);
  const [x0, y0, x1, y1, x2, y2, x3, y3] = curve(place, from, to, effect);
  const out = Math.max(x0, x3) < view.left || Math.min(x0, x3) > view.left + view.width || y0 < view.top || y3 > view.top + view.height;
  if (out) return;
  context.moveTo(x0, y0);
  context.bezierCurveTo(x1, y1, x2, y2, x3, y3);
}

/** A node: its kind is its shape, its influence its size; full where it adds, hollow where it takes away. */
export function mark(context, { graph, place, theme, edits }, i) {
  const { kind, index } = graph.node(i);
  const [x, y, r] = [place.x[i], place.y[i], place.r[i]];
  const effect = graph.number(i, "effect");
  const colour = kind === LOGITS ? INK[theme] : colourOf(effect, theme);
  outline(context, kind, x, y, r);
  context.fillStyle = effect >= 0 || kind === LOGITS ? colour : PAPER[theme];
  context.fill();
  context.lineWidth = effect >= 0 || kind === LOGITS ? 1 : 1.6;
  context.strokeStyle = effect >= 0 || kind === LOGITS ? PAPER[theme] : colour;
  context.stroke();
  if (r >= 7 && (kind === HEAD || kind === EXPERT)) {
    context.font = `600 ${index > 9 ? 8 : 9}px ${SANS}`;
    context.textAlign = "center";
    context.textBaseline = "middle";
    context.fillStyle = effect >= 0 ? PAPER[theme] : colour;
    context.fillText(String(index), x, y + 0.5);
  }
  if (edits?.has(i)) crossed(context, x, y, r, theme);
}

function outline(context, kind, x, y, r) {
  context.beginPath();
  if (kind === EMBED || kind === LOGITS) context.rect(x - r * 0.9, y - r * 0.9, r * 1.8, r * 1.8);
  else if (kind === HEAD) context.arc(x, y, r, 0, 2 * Math.PI);
  else polygon(context, kind === EXPERT ? 6 : 4, x, y, kind === EXPERT ? r * 1.08 : r * 1.15);
}

function polygon(context, corners, x, y, r) {
  for (let k = 0; k < corners; k++) {
    const angle = (2 * Math.PI * k) / corners - (corners === 4 ? Math.PI / 2 : 0);
    context[k ? "lineTo" : "moveTo"](x + r * Math.cos(angle), y + r * Math.sin(angle));
  }
  context.closePath();
}

/** An intervention acts on it. */
function crossed(context, x, y, r, theme) {
  context.strokeStyle = HOVERED[theme];
  context.lineWidth = 2;
  context.beginPath();
  context.arc(x, y, r + 3, 0, 2 * Math.PI);
  context.moveTo(x - r - 2, y + r + 2);
  context.lineTo(x + r + 2, y - r - 2);
  context.stroke();
}

/** × on edges whose removal in the live model does the opposite of what the graph says. */
function disagreements(context, { graph, place, shown, theme }) {
  context.strokeStyle = INK[theme];
  context.lineWidth = 1.6;
  for (const [e, found] of graph.found) {
    if (e >= shown.edges || !disagrees(found)) continue;
    const { from, to, effect } = graph.edge(e);
    const [x, y] = along(curve(place, from, to, effect), 0.5);
    context.beginPath();
    context.moveTo(x - 4, y - 4);
    context.lineTo(x + 4, y + 4);
    context.moveTo(x + 4, y - 4);
    context.lineTo(x - 4, y + 4);
    context.stroke();
  }
}

/** Names of rows at the left and of tokens below: they stay where they are when the rest scrolls. */
function frame(context, view, { place, graph, theme }, { row = null, position = null }) {
  const foot = view.height - place.foot;
  context.fillStyle = PAPER[theme];
  context.fillRect(0, 0, LEFT - 6, view.height);
  context.fillRect(0, foot, view.width, place.foot);
  context.font = `11px ${SANS}`;
  context.textAlign = "right";
  context.textBaseline = "middle";
  for (const each of place.rows) {
    const y = each.y - view.top + each.height / 2;
    if (!each.open || y > foot - 4) continue;
    context.fillStyle = row === each.row ? INK[theme] : SOFT[theme];
    context.font = `${row === each.row ? "600 " : ""}11px ${SANS}`;
    context.fillText(rowName(each.row, graph.layers), LEFT - 12, y);
  }
  tokens(context, view, { place, graph, theme }, position);
}

function tokens(context, view, { place, graph, theme }, position) {
  const top = view.height - place.foot + 8;
  context.save();
  context.beginPath();
  context.rect(LEFT - 6, 0, view.width, view.height);
  context.clip();
  for (const column of place.columns) {
    const middle = column.x + column.width / 2 - view.left;
    if (middle < LEFT - 20 || middle > view.width + 20) continue;
    if (!column.wide) {
      context.fillStyle = SOFT[theme];
      context.textAlign = "center";
      context.font = `11px ${SANS}`;
      context.fillText("⋯", middle, top + 4);
      continue;
    }
    const here = position === column.start;
    context.fillStyle = here ? INK[theme] : SOFT[theme];
    context.font = `${here ? "700 " : ""}11.5px ${MONO}`;
    if (place.upright) turned(context, graph, column.start, middle, { top, bottom: view.height - 4 });
    else flat(context, graph, column, middle, top);
  }
  context.restore();
}

function flat(context, graph, column, middle, top) {
  context.textAlign = "center";
  context.textBaseline = "alphabetic";
  context.fillText(fit(context, graph.tokens[column.start] ?? "", column.width), middle, top + 8);
  context.font = `9.5px ${SANS}`;
  context.fillText(String(column.start), middle, top + 21);
}

function turned(context, graph, position, middle, { top, bottom }) {
  const word = graph.tokens[position] ?? "";
  context.save();
  context.translate(middle, top);
  context.font = context.font.replace("11.5px", "11px");
  context.rotate(-Math.PI / 2);
  context.textAlign = "right";
  context.textBaseline = "middle";
  context.fillText(word.length > LONGEST ? `${word.slice(0, LONGEST - 1)}…` : word, 0, 0);
  context.restore();
  context.font = `9.5px ${SANS}`;
  context.textAlign = "center";
  context.textBaseline = "alphabetic";
  context.fillText(String(position), middle, bottom);
}

/**
 * What is lit: the node or edge that is pinned or under the mouse with its neighbours; what is selected; the cursor.
 * @param {{ node: number|null, edge: number|null, edges: number[], nodes: Set<number> }|null} lit
 */
export function paintOver(canvas, view, scene, { lit, chosen, hovered, cursor, row, position }) {
  const context = prepare(canvas, view.width, view.height);
  const { place, theme, graph } = scene;
  context.save();
  context.beginPath();
  context.rect(LEFT - 6, 0, view.width, view.height - place.foot);
  context.clip();
  if (lit) {
    context.globalAlpha = 0.78;
    context.fillStyle = PAPER[theme];
    context.fillRect(0, 0, view.width, view.height);
    context.globalAlpha = 1;
  }
  context.translate(-view.left, -view.top);
  if (lit) light(context, view, scene, lit);
  for (const [i, how] of chosen) if (scene.shown.nodes[i]) ring(context, place, i, CHOSEN[theme], how > 1 ? 2 : 1, how > 1 ? 3 : 2);
  for (const i of hovered.keys()) if (scene.shown.nodes[i]) ring(context, place, i, HOVERED[theme], 2, 4);
  if (cursor !== null) ring(context, place, cursor, HOVERED[theme], 2, 6, [3, 2]);
  context.restore();
  if (row !== null || position !== null) frame(context, view, { place, graph, theme }, { row, position });
}

function light(context, view, scene, lit) {
  const { graph, place, theme } = scene;
  const most = mostFlow(graph);
  for (const e of [...lit.edges].sort((a, b) => b - a)) {
    const { flow, effect } = graph.edge(e);
    context.lineWidth = widthOf(flow, most);
    context.strokeStyle = colourOf(effect, theme);
    context.globalAlpha = 0.85;
    context.setLineDash(effect < 0 ? dashes(context.lineWidth) : []);
    context.beginPath();
    trace(context, view, graph, place, e);
    context.stroke();
  }
  context.setLineDash([]);
  context.globalAlpha = 1;
  for (const i of lit.nodes) mark(context, scene, i);
  if (lit.node !== null) ring(context, place, lit.node, CHOSEN[theme], 2, 3);
}

function ring(context, place, i, colour, width, air, dash = []) {
  context.beginPath();
  context.arc(place.x[i], place.y[i], place.r[i] + air, 0, 2 * Math.PI);
  context.strokeStyle = colour;
  context.lineWidth = width;
  context.setLineDash(dash);
  context.stroke();
  context.setLineDash([]);
}

/** A node's sign, as in the picture, for legends: paints one shape into a small canvas. */
export function sample(canvas, kind, theme, adds = true) {
  const context = prepare(canvas, 14, 14);
  const fake = { node: () => ({ kind, index: 0 }), number: () => (adds ? 1 : -1) };
  mark(context, { graph: fake, place: { x: [7], y: [7], r: [kind === ERROR ? 4.5 : 5] }, theme }, 0);
}
