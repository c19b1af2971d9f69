/** Where nodes stand: a column a token, those without nodes folded; a line a layer's heads or experts. No canvas. */
import { ERROR, rowOf } from "./model.js";

export const LEFT = 76; // the names of the rows
export const STEP = 17; // pixels of a node beside another
const [AIR, LEAST, MOST, FOLDED] = [8, 22, 96, 10];
const [HIGH, LOW, THIN, EACH] = [34, 25, 7, 17]; // a line with nodes, of a deep model, one without; a further line of nodes
const DEEP = 16; // lines with nodes beyond which they are low
const BESIDE = [8, 6, 5, 4, 3]; // nodes of one token and row side by side, as room allows; more go into further lines
const WORD = 7.3; // pixels of a character of a token
export const LONGEST = 9; // characters of a token that stands upright

/**
 * @typedef {object} Layout
 * @property {{ start: number, stop: number, x: number, width: number, wide: boolean }[]} columns
 * @property {{ row: number, y: number, height: number, open: boolean }[]} rows from below; y is the upper edge
 * @property {Float32Array} x @property {Float32Array} y @property {Float32Array} r of the nodes
 * @property {number} width @property {number} height of everything @property {number} foot pixels of the tokens' names
 * @property {boolean} upright whether those are turned
 *
 * @param {import("./model.js").Graph} graph
 * @param {{ room: number, folded: boolean, nodes?: Uint8Array }} how folded: columns without nodes are; nodes: 1 for those
 *   that need room of their own (all by default); the others stand in the middle of their token and row
 * @returns {Layout}
 */
export function layout(graph, { room, folded, nodes = new Uint8Array(graph.n).fill(1) }) {
  const cells = cellsOf(graph, nodes);
  const beside = BESIDE.find((most) => total(columnsOf(graph, cells, most, folded)) <= room - LEFT) ?? BESIDE.at(-1);
  const columns = spread(columnsOf(graph, cells, beside, folded), room - LEFT, graph.tokens);
  const rows = rowsOf(graph, cells, beside);
  const [x, y, r] = [new Float32Array(graph.n), new Float32Array(graph.n), radii(graph)];
  const columnAt = (pos) => columns.find((column) => pos < column.stop);
  for (const { pos, row, members, others } of cells.values()) {
    const [column, { y: top, height }] = [columnAt(pos), rows[row]];
    const lines = Math.ceil(members.length / beside);
    const each = Math.ceil(members.length / lines);
    members.forEach((i, k) => {
      const line = Math.floor(k / each);
      const inLine = Math.min(each, members.length - line * each);
      x[i] = column.x + (column.width * ((k % each) + 0.5)) / inLine;
      y[i] = top + height / 2 + (line - (lines - 1) / 2) * EACH - 2;
    });
    for (const i of others) [x[i], y[i]] = [column.x + column.width / 2, top + height / 2 - 2];
  }
  placeErrors(graph, x, y, r);
  const last = columns.at(-1);
  const words = columns.filter((column) => column.wide).map((column) => (graph.tokens[column.start] ?? "").length);
  const upright = columns.some((column) => column.wide && Math.min(LONGEST, (graph.tokens[column.start] ?? "").length) * WORD > column.width + 2);
  const foot = upright ? Math.ceil(Math.min(LONGEST, Math.max(1, ...words)) * WORD) + 26 : 34;
  return { columns, rows, x, y, r, width: last ? last.x + last.width + 8 : room, height: rows[0].y + rows[0].height + foot, foot, upright };
}

/** Nodes by position and row; errors stand with their expert. */
function cellsOf(graph, nodes) {
  const cells = new Map();
  for (let i = 0; i < graph.n; i++) {
    const { kind, pos } = graph.node(i);
    if (kind === ERROR) continue;
    const row = rowOf(graph, i);
    const key = `${pos} ${row}`;
    if (!cells.has(key)) cells.set(key, { pos, row, members: [], others: [] });
    cells.get(key)[nodes[i] ? "members" : "others"].push(i);
  }
  return cells;
}

const inALine = ({ length }, beside) => Math.ceil(length / Math.max(1, Math.ceil(length / beside)));

function columnsOf(graph, cells, beside, folded) {
  const need = new Map();
  for (const { pos, members } of cells.values()) if (members.length) need.set(pos, Math.max(need.get(pos) ?? 0, inALine(members, beside)));
  const columns = [];
  for (let pos = 0; pos < graph.tokens.length; pos++) {
    if (need.has(pos) || !folded) {
      columns.push({ start: pos, stop: pos + 1, width: Math.max(LEAST, (need.get(pos) ?? 1) * STEP + AIR), wide: true });
    } else if (columns.length && !columns.at(-1).wide) columns.at(-1).stop = pos + 1;
    else columns.push({ start: pos, stop: pos + 1, width: FOLDED, wide: false });
  }
  return columns;
}

const total = (columns) => columns.reduce((sum, column) => sum + column.width, 0);

/** Room that is left goes to tokens that need it, then to all, up to a width beyond which it only makes edges longer. */
function spread(columns, room, tokens) {
  const wide = columns.filter((column) => column.wide);
  const wanted = wide.map(({ start, width }) => Math.max(0, Math.min(LONGEST, (tokens[start] ?? "").length) * WORD + 4 - width));
  let left = room - total(columns) - 8;
  if (wanted.reduce((sum, more) => sum + more, 0) <= left) {
    wide.forEach((column, i) => {
      column.width += wanted[i];
      left -= wanted[i];
    });
  }
  wide.forEach((column, i) => {
    const more = Math.max(0, Math.min(left / (wide.length - i), MOST - column.width));
    column.width += more;
    left -= more;
  });
  let x = LEFT;
  for (const column of columns) {
    column.x = x;
    x += column.width;
  }
  return columns;
}

function rowsOf(graph, cells, beside) {
  const count = 2 * graph.layers + 2;
  const lines = new Array(count).fill(0);
  for (const { row, members } of cells.values()) lines[row] = Math.max(lines[row], Math.ceil(members.length / beside));
  const high = lines.filter((most) => most > 0).length > DEEP ? LOW : HIGH;
  const rows = lines.map((most, row) => ({ row, open: most > 0, height: most ? high + (most - 1) * EACH : THIN }));
  let y = 6;
  for (let row = count - 1; row >= 0; row--) {
    rows[row].y = y;
    y += rows[row].height;
  }
  return rows;
}

/** A node's area is its influence. */
function radii(graph) {
  const r = new Float32Array(graph.n);
  let most = 1e-12;
  for (let i = 0; i < graph.n; i++) if (i !== graph.logits) most = Math.max(most, graph.number(i, "influence"));
  for (let i = 0; i < graph.n; i++) {
    const share = Math.min(1, Math.max(0, graph.number(i, "influence")) / most);
    r[i] = i === graph.logits ? 8 : graph.node(i).kind === ERROR ? 2.2 + 3 * Math.sqrt(share) : 3.2 + 5.3 * Math.sqrt(share);
  }
  return r;
}

function placeErrors(graph, x, y, r) {
  for (let i = 0; i < graph.n; i++) {
    if (graph.node(i).kind !== ERROR) continue;
    const { to } = graph.edge(graph.outgoing[i][0] ?? 0);
    x[i] = x[to] - Math.max(5, r[to]);
    y[i] = y[to] + Math.max(7, r[to] + 4);
  }
}

/** The node under a point, or the nearest within reach; −1 for none. */
export function nodeAt(place, visible, px, py, reach = 6) {
  let [best, least] = [-1, Infinity];
  for (let i = 0; i < visible.length; i++) {
    if (!visible[i]) continue;
    const distance = Math.hypot(place.x[i] - px, place.y[i] - py) - place.r[i];
    if (distance < reach && distance < least) [best, least] = [i, distance];
  }
  return best;
}

/**
 * The four points of an edge's curve: up from its source, up into its target. One that goes straight up past others bows
 * out, to the right where it adds and to the left where it takes away, so that it can be told from them.
 */
export function curve(place, from, to, effect = 1) {
  const [x0, y0, x3, y3] = [place.x[from], place.y[from], place.x[to], place.y[to]];
  const half = (y0 + y3) / 2;
  const straight = Math.max(0, 1 - Math.abs(x3 - x0) / 24);
  const bow = y0 - y3 > 45 ? Math.sign(effect) * straight * Math.min(48, 0.18 * (y0 - y3)) : 0;
  return [x0, y0, x0 + bow, half, x3 + bow, half, x3, y3];
}

/** A point of a curve. */
export function along([x0, y0, x1, y1, x2, y2, x3, y3], t) {
  const [a, b, c, d] = [(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t ** 3];
  return [a * x0 + b * x1 + c * x2 + d * x3, a * y0 + b * y1 + c * y2 + d * y3];
}

/** The edge under a point, the strongest where several are; −1 for none. */
export function edgeAt(graph, place, edges, px, py, reach = 4) {
  const parts = 14;
  for (let e = 0; e < edges; e++) {
    const { from, to, effect } = graph.edge(e);
    if (py > place.y[from] + reach || py < place.y[to] - reach) continue;
    const points = curve(place, from, to, effect);
    const [low, high] = [Math.min(points[0], points[2], points[6]), Math.max(points[0], points[2], points[6])];
    if (px < low - reach || px > high + reach) continue;
    let [x, y] = points;
    for (let part = 1; part <= parts; part++) {
      const [toX, toY] = along(points, part / parts);
      if (toLine(px, py, x, y, toX, toY) <= reach) return e;
      [x, y] = [toX, toY];
    }
  }
  return -1;
}

function toLine(px, py, x, y, toX, toY) {
  const [dx, dy] = [toX - x, toY - y];
  const t = Math.max(0, Math.min(1, ((px - x) * dx + (py - y) * dy) / (dx * dx + dy * dy || 1)));
  return Math.hypot(px - x - t * dx, py - y - t * dy);
}

/** Where a key moves: along a row, to the nearest node of the next row that has one; null for a key that does not. */
export function walk(graph, place, visible, at, key) {
  const all = [];
  for (let i = 0; i < graph.n; i++) if (visible[i]) all.push(i);
  const row = rowOf(graph, at);
  const order = (i) => place.x[i] * 1e4 + place.y[i]; // side by side first, then line under line
  const line = all.filter((i) => rowOf(graph, i) === row).sort((a, b) => order(a) - order(b));
  if (key === "Home") return line[0] ?? at;
  if (key === "End") return line.at(-1) ?? at;
  const side = { ArrowRight: 1, ArrowLeft: -1 }[key];
  if (side) return line[line.indexOf(at) + side] ?? at;
  if (key === "PageUp") return graph.logits;
  const up = { ArrowUp: 1, ArrowDown: -1 }[key];
  if (!up && key !== "PageDown") return null;
  const rows = [...new Set(all.map((i) => rowOf(graph, i)))].sort((a, b) => a - b);
  const next = key === "PageDown" ? rows[0] : up > 0 ? rows.find((other) => other > row) : rows.findLast((other) => other < row);
  if (next === undefined) return at;
  const there = all.filter((i) => rowOf(graph, i) === next);
  return there.reduce((best, i) => (Math.abs(place.x[i] - place.x[at]) < Math.abs(place.x[best] - place.x[at]) ? i : best), there[0]);
}
