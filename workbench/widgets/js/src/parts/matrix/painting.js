/** Paints a matrix: cells, marks, text and labels on one canvas, outlines on another above it. */
import {
  MONO, colourOf, colours, dotting, fillMarked, fit, hatching, markedCells, outline, prepare, stretch,
} from "../../draw/paint.js";
import { labelStep, visible } from "../../draw/ranges.js";
import { CHOSEN, HOVERED, INK, PAPER, SOFT, inkOn } from "../../draw/scales.js";
import { rectOf } from "./layout.js";

export const LABEL_FONT = `11px ${MONO}`;
const NOTE_FONT = `9px ${MONO}`;

/** The rows and columns that are on screen. */
export function partOf(place, { rows, cols }, scroll, view) {
  const across = visible(scroll.left, view.width - place.left, place.cw, cols);
  const down = visible(scroll.top, view.height - place.top, place.ch, rows);
  return { left: across.start, right: across.stop, top: down.start, bottom: down.stop };
}

/** Keeps what `paint` draws inside a rectangle. */
function within(context, x, y, width, height, paint) {
  context.save();
  context.beginPath();
  context.rect(x, y, width, height);
  context.clip();
  paint();
  context.restore();
}

/** Everything but the outlines. */
export function paintCells(canvas, props, place, scroll, view) {
  const context = prepare(canvas, view.width, view.height);
  const part = partOf(place, props, scroll, view);
  if (part.right > part.left && part.bottom > part.top) {
    within(context, place.left, place.top, view.width, view.height, () => {
      paintColours(context, props, place, scroll, part);
      if (place.cw >= 10 && place.ch >= 10) paintGaps(context, props, place, scroll, part);
      if (props.text && place.ch >= 12 && place.cw >= 16) paintTexts(context, props, place, scroll, part);
      paintRules(context, props, place, scroll, view);
      props.paint?.(context, { ...place, scroll, part, rect: (row, col) => rectOf(place, scroll, row, col) });
    });
  }
  // Labels may stand out of their gutter by half a letter: the first one of a row of thin cells would be cut.
  if (place.left) within(context, 0, place.top - 7, place.left, view.height, () => paintRowLabels(context, props, place, scroll, part));
  if (place.top) within(context, place.left - 9, 0, view.width, place.top, () => paintColLabels(context, props, place, scroll, part));
}

function paintColours(context, props, place, scroll, part) {
  const { x, y } = rectOf(place, scroll, part.top, part.left);
  const [wide, high] = [part.right - part.left, part.bottom - part.top];
  const block = [wide, high, x, y, wide * place.cw, high * place.ch];
  stretch(context, colours(props, part), ...block);
  for (const [marks, fill] of [[props.grey, dotting], [props.hatch, hatching]]) {
    if (!marks || (fill === dotting && place.ch < 5)) continue;
    const marked = markedCells(marks, props.cols, part);
    if (marked) fillMarked(context, marked, ...block, (inner) => fill(inner, props.theme));
  }
}

/** Thin gaps between cells, in the colour of the paper. */
function paintGaps(context, { theme }, place, scroll, part) {
  const from = rectOf(place, scroll, part.top, part.left);
  const to = rectOf(place, scroll, part.bottom, part.right);
  context.fillStyle = PAPER[theme];
  for (let col = part.left; col <= part.right; col++) {
    context.fillRect(Math.round(from.x + (col - part.left) * place.cw) - 1, from.y, 1, to.y - from.y);
  }
  for (let row = part.top; row <= part.bottom; row++) {
    context.fillRect(from.x, Math.round(from.y + (row - part.top) * place.ch) - 1, to.x - from.x, 1);
  }
}

function paintTexts(context, props, place, scroll, part) {
  context.textBaseline = "middle";
  context.textAlign = "center";
  context.font = `${place.ch >= 18 ? 11 : 10}px ${MONO}`;
  const room = place.cw - 6;
  for (let row = part.top; row < part.bottom; row++) {
    for (let col = part.left; col < part.right; col++) {
      const i = row * props.cols + col;
      const text = props.hatch?.[i] ? "" : props.text(row, col);
      if (!text) continue;
      const { x, y } = rectOf(place, scroll, row, col);
      context.fillStyle = inkOn(colourOf(props, row, col));
      context.fillText(fit(context, text, room), x + place.cw / 2 - 0.5, y + place.ch / 2 + 0.5);
    }
  }
}

/** Lines before a row or column: where a group of heads begins, where a message begins. */
function paintRules(context, { rowRules = [], colRules = [], theme }, place, scroll, view) {
  context.fillStyle = SOFT[theme];
  for (const row of rowRules) context.fillRect(place.left, Math.round(rectOf(place, scroll, row, 0).y) - 1, view.width, 1);
  for (const col of colRules) context.fillRect(Math.round(rectOf(place, scroll, 0, col).x) - 1, place.top, 1, view.height);
}

function paintRowLabels(context, { rowLabels, rowNotes, rowBands, theme }, place, scroll, part) {
  paintBands(rowBands, (start, stop) => {
    const from = rectOf(place, scroll, start, 0).y;
    context.fillRect(place.left - 4, from + 0.5, 2, (stop - start) * place.ch - 1);
  }, context);
  if (!rowLabels) return;
  const step = labelStep(place.ch, 12);
  context.textBaseline = "middle";
  context.textAlign = "right";
  for (let row = Math.ceil(part.top / step) * step; row < part.bottom; row += step) {
    const y = rectOf(place, scroll, row, 0).y + place.ch / 2 + 0.5;
    let right = place.left - 8;
    if (rowNotes?.[row] !== undefined) {
      context.font = NOTE_FONT;
      context.fillStyle = SOFT[theme];
      context.fillText(rowNotes[row], right, y);
      right -= context.measureText(rowNotes[row]).width + 4;
    }
    context.font = LABEL_FONT;
    context.fillStyle = INK[theme];
    context.fillText(fit(context, rowLabels[row] ?? "", right), right, y);
  }
}

function paintColLabels(context, { colLabels, colBands, theme }, place, scroll, part) {
  paintBands(colBands, (start, stop) => {
    const from = rectOf(place, scroll, 0, start).x;
    context.fillRect(from + 0.5, place.top - 4, (stop - start) * place.cw - 1, 2);
  }, context);
  if (!colLabels) return;
  const step = labelStep(place.cw, place.colNeed);
  context.font = LABEL_FONT;
  context.fillStyle = INK[theme];
  context.textBaseline = "middle";
  for (let col = Math.ceil(part.left / step) * step; col < part.right; col += step) {
    const x = rectOf(place, scroll, 0, col).x + place.cw / 2;
    const text = fit(context, colLabels[col] ?? "", place.turned ? place.top - 8 : Math.max(place.cw * step, place.colNeed));
    context.save();
    context.translate(x, place.top - (place.turned ? 6 : 9));
    if (place.turned) context.rotate(-Math.PI / 2);
    context.textAlign = place.turned ? "left" : "center";
    context.fillText(text, 0, 0);
    context.restore();
  }
}

function paintBands(bands, draw, context) {
  for (const { start, stop, colour } of bands ?? []) {
    context.fillStyle = colour;
    draw(start, stop);
  }
}

/** The outlines: what is selected, what the mouse or another view is on, where the keys are. */
export function paintOutlines(canvas, props, place, scroll, view, cursor) {
  const context = prepare(canvas, view.width, view.height);
  const { theme, selected, hovered, selectedRow, selectedCol } = props;
  within(context, place.left - 1, place.top - 1, view.width, view.height, () => {
    if (hovered) outline(context, rectOf(place, scroll, hovered.row, hovered.col), HOVERED[theme], theme);
    if (selectedRow !== undefined && selectedRow !== null) strip(context, rectOf(place, scroll, selectedRow, 0), true, props, place);
    if (selectedCol !== undefined && selectedCol !== null) strip(context, rectOf(place, scroll, 0, selectedCol), false, props, place);
    if (selected) outline(context, rectOf(place, scroll, selected.row, selected.col), CHOSEN[theme], theme);
    if (cursor) {
      context.setLineDash([3, 2]);
      outline(context, rectOf(place, scroll, cursor.row, cursor.col), CHOSEN[theme], theme);
      context.setLineDash([]);
    }
  });
  for (const [cell, colour] of [[hovered, HOVERED[theme]], [selected ?? cursor, CHOSEN[theme]]]) {
    if (cell) pointers(context, rectOf(place, scroll, cell.row, cell.col), place, colour);
  }
}

/** A whole row or column, between two thin lines. */
function strip(context, rect, isRow, { theme, rows, cols }, place) {
  context.strokeStyle = CHOSEN[theme];
  context.lineWidth = 1;
  const box = isRow ? [rect.x, rect.y, cols * place.cw, rect.height] : [rect.x, rect.y, rect.width, rows * place.ch];
  context.strokeRect(box[0] - 0.5, box[1] - 0.5, box[2] + 1, box[3] + 1);
}

/** Small marks in the gutters, at a cell's row and column. */
function pointers(context, rect, place, colour) {
  context.fillStyle = colour;
  if (place.left && rect.y + rect.height > place.top) {
    context.fillRect(place.left - 2, Math.max(rect.y, place.top), 2, rect.height);
  }
  if (place.top && rect.x + rect.width > place.left) {
    context.fillRect(Math.max(rect.x, place.left), place.top - 2, rect.width, 2);
  }
}

