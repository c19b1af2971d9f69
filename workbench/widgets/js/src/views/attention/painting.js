/** Paints the large pattern: the sink's column, the cells, what nobody sees, the edge of the window, what was cut. */
import { MONO, colours, fit, hatching, fillMarked, offscreen, outline, prepare } from "../../draw/paint.js";
import { labelStep } from "../../draw/ranges.js";
import { CHOSEN, HOVERED, INK, LINE, PAPER, SOFT, UNSEEN } from "../../draw/scales.js";
import { SINK, rectOf, windowEdge } from "./geometry.js";

export const LABEL_FONT = `11px ${MONO}`;

/** Numbers as an image of one pixel each. */
export function image(values, cols, colour, theme) {
  const rows = values.length / cols;
  const data = colours({ values, cols, colour: (value) => colour.rgb(value), theme }, { top: 0, left: 0, bottom: rows, right: cols });
  const canvas = offscreen(cols, rows);
  canvas.getContext("2d").putImageData(new ImageData(data, cols, rows), 0, 0);
  return canvas;
}

/** Everything but the outlines. */
export function paintSquare(canvas, { place, blocks, pictures, hidden, about, theme, rowLabels, colLabels, numbers }) {
  const context = prepare(canvas, place.width, place.height);
  const { left, top, sink, x0, cell } = place;
  const size = cell * blocks;
  context.imageSmoothingEnabled = false;
  context.drawImage(pictures.sink, left, top, sink, size);
  context.drawImage(pictures.pattern, x0, top, size, size);
  cover(context, hidden, blocks, [x0, top, size], theme);
  if (cell >= 8) gaps(context, place, blocks, theme);
  context.strokeStyle = LINE[theme];
  context.lineWidth = 1;
  context.strokeRect(left - 0.5, top - 0.5, sink + 1, size + 1);
  context.strokeRect(x0 - 0.5, top - 0.5, size + 1, size + 1);
  edge(context, place, about, theme);
  labels(context, { place, blocks, rowLabels, colLabels, numbers, theme });
}

/** Quiet over keys that come later, hatched over those outside the window. */
function cover(context, hidden, blocks, [x, y, size], theme) {
  const [later, outside] = [1, 2].map((kind) => {
    const data = new Uint8ClampedArray(blocks * blocks * 4);
    let any = false;
    for (let i = 0; i < hidden.length; i++) {
      if (hidden[i] !== kind) continue;
      data[i * 4 + 3] = 255;
      any = true;
    }
    return any ? data : null;
  });
  if (later) fillMarked(context, later, blocks, blocks, x, y, size, size, () => UNSEEN[theme]);
  if (outside) fillMarked(context, outside, blocks, blocks, x, y, size, size, (inner) => hatching(inner, theme));
}

function gaps(context, { left, sink, x0, top, cell }, blocks, theme) {
  context.fillStyle = PAPER[theme];
  for (let i = 1; i < blocks; i++) {
    context.fillRect(Math.round(x0 + i * cell) - 1, top, 1, blocks * cell);
    context.fillRect(x0, Math.round(top + i * cell) - 1, blocks * cell, 1);
    context.fillRect(left, Math.round(top + i * cell) - 1, sink, 1);
  }
}

/** The edge of the sliding window. */
function edge(context, { x0, top, cell }, about, theme) {
  const corners = windowEdge(about);
  if (!corners.length) return;
  context.strokeStyle = HOVERED[theme];
  context.lineWidth = 1.5;
  context.beginPath();
  corners.forEach(([col, row], i) => context[i ? "lineTo" : "moveTo"](x0 + col * cell, top + row * cell));
  context.stroke();
}

function labels(context, { place, blocks, rowLabels, colLabels, numbers, theme }) {
  const { left, top, sink, x0, cell, turned } = place;
  context.font = LABEL_FONT;
  context.fillStyle = INK[theme];
  context.textBaseline = "middle";
  context.textAlign = "right";
  const down = labelStep(cell, numbers ? 26 : 13);
  for (let i = 0; i < blocks; i += down) context.fillText(fit(context, rowLabels[i], left - 8), left - 6, top + (i + 0.5) * cell + 0.5);
  const write = (text, x) => {
    context.save();
    context.translate(x, top - (turned ? 5 : 9));
    if (turned) context.rotate(-Math.PI / 2);
    context.textAlign = turned ? "left" : "center";
    context.fillText(turned ? fit(context, text, top - 6) : text, 0, 0);
    context.restore();
  };
  const across = labelStep(cell, turned ? 13 : 36);
  for (let i = 0; i < blocks; i += across) write(colLabels[i], x0 + (i + 0.5) * cell);
  context.fillStyle = SOFT[theme];
  context.font = `italic ${LABEL_FONT}`;
  write("sink", left + sink / 2);
}

/** What is selected, where the mouse and the keys are, which edges are cut. */
export function paintMarks(canvas, { place, blocks, theme, selected, row, hovered, cursor, cut, about }) {
  const context = prepare(canvas, place.width, place.height);
  if (row !== null && row !== undefined) band(context, place, blocks, row, CHOSEN[theme]);
  if (hovered && hovered.col === undefined) band(context, place, blocks, hovered.row, HOVERED[theme]);
  for (const [query, key] of cut) cross(context, place, about, query, key, theme);
  if (hovered && hovered.col !== undefined) outline(context, rectOf(place, hovered.row, hovered.col), HOVERED[theme], theme);
  if (selected) outline(context, grown(rectOf(place, selected.row, selected.col)), CHOSEN[theme], theme);
  if (!cursor) return;
  context.setLineDash([3, 2]);
  outline(context, grown(rectOf(place, cursor.row, cursor.col)), CHOSEN[theme], theme);
  context.setLineDash([]);
}

/** A cell of few pixels is framed from outside, so that it can be found. */
function grown({ x, y, width, height }) {
  const by = Math.max(0, (7 - Math.min(width, height)) / 2);
  return { x: x - by, y: y - by, width: width + 2 * by, height: height + 2 * by };
}

/** A whole row, with the sink, between two thin lines. */
function band(context, { left, x0, top, cell }, blocks, row, colour) {
  context.strokeStyle = colour;
  context.lineWidth = 1;
  context.strokeRect(left - 0.5, top + row * cell - 0.5, x0 - left + blocks * cell + 1, cell + 1);
}

/** A cross on a cut edge; on a whole column where it is cut for every query. */
function cross(context, place, { block }, query, key, theme) {
  const col = key === SINK ? SINK : Math.floor(key / block);
  const first = rectOf(place, query === null ? (key === SINK ? 0 : col) : Math.floor(query / block), col);
  const size = Math.max(5, Math.min(first.width, first.height) * 0.6) / 2;
  const [x, y] = [first.x + first.width / 2, first.y + first.height / 2];
  for (const [colour, width] of [[PAPER[theme], 3.5], [INK[theme], 1.5]]) {
    context.strokeStyle = colour;
    context.lineWidth = width;
    context.beginPath();
    context.moveTo(x - size, y - size);
    context.lineTo(x + size, y + size);
    context.moveTo(x + size, y - size);
    context.lineTo(x - size, y + size);
    if (query === null) {
      context.moveTo(x, y + size);
      context.lineTo(x, place.height - 1);
    }
    context.stroke();
  }
}
