/** Where everything of a matrix stands, in pixels. Pure numbers; see tests/widgets/js/matrix.test.mjs. */

export const SCROLLBAR = 10; // as wide as in style.css
const AIR = 6; // between labels and cells

/** A number between two others. */
const clamp = (value, low, high) => Math.max(low, Math.min(high, value));

/** How the column labels stand: upright where each fits over its column (or every few), else turned by 90°. */
export function columnLabels(widestLabel, cellWidth) {
  if (!widestLabel) return { turned: false, need: 0, height: 0 };
  const turned = widestLabel > 34 && widestLabel + AIR > cellWidth;
  return { turned, need: turned ? 13 : widestLabel + AIR, height: turned ? Math.min(widestLabel, 96) + AIR : 18 };
}

/**
 * @param {{ rows: number, cols: number, room: number, cell?: "fit"|{ width?: number|"fit", height?: number|"fit" },
 *   minCell?: number, maxCell?: number, maxHeight?: number, square?: boolean, rowLabel?: number, colLabel?: number }} given
 *   room: the width there is; rowLabel, colLabel: the widest label, 0 without labels
 * @returns {{ cw: number, ch: number, left: number, top: number, turned: boolean, colNeed: number, width: number,
 *   height: number, boxHeight: number, scrollsX: boolean, scrollsY: boolean }}
 *   cw, ch: size of a cell; left, top: the gutters; width, height: all of it; boxHeight: as tall as the window on it is
 */
export function layout(given) {
  const { rows, cols, room, cell = "fit", minCell = 4, maxCell = 64, maxHeight = 420, square = false } = given;
  const size = typeof cell === "string" ? { width: cell, height: cell } : { width: "fit", height: "fit", ...cell };
  const left = given.rowLabel ? Math.min(given.rowLabel, Math.max(60, room * 0.3)) + AIR + 4 : 0;
  const place = (inner) => {
    const width = size.width === "fit" ? clamp((inner - left) / cols, minCell, maxCell) : size.width;
    const labels = columnLabels(given.colLabel ?? 0, width);
    const fitted = clamp((maxHeight - labels.height) / rows, minCell, Math.min(maxCell, 22));
    const height = size.height === "fit" ? fitted : size.height;
    const cw = square ? Math.max(minCell, Math.min(width, (maxHeight - labels.height) / rows)) : width;
    return { cw, ch: square ? cw : height, labels };
  };
  let { cw, ch, labels } = place(room);
  const scrollsY = labels.height + ch * rows > maxHeight + 0.5;
  if (scrollsY && size.width === "fit") ({ cw, ch, labels } = place(room - SCROLLBAR));
  const top = labels.height;
  const below = rows && left && ch < 14 ? 5 : 0; // the last row's label may be taller than the row
  const [width, height] = [left + cw * cols, top + ch * rows + below];
  const scrollsX = width > room - (scrollsY ? SCROLLBAR : 0) + 0.5;
  const boxHeight = Math.min(height, maxHeight + below) + (scrollsX ? SCROLLBAR : 0);
  return { cw, ch, left, top, turned: labels.turned, colNeed: labels.need, width, height, boxHeight, scrollsX, scrollsY };
}

/** The cell under a point of the window (from its upper left corner), or null: in a gutter, or beyond the last. */
export function cellAt(place, { rows, cols }, scroll, x, y) {
  if (x < place.left || y < place.top) return null;
  const col = Math.floor((x - place.left + scroll.left) / place.cw);
  const row = Math.floor((y - place.top + scroll.top) / place.ch);
  return row < rows && col < cols ? { row, col } : null;
}

/** Where a cell stands in the window. */
export function rectOf(place, scroll, row, col) {
  return {
    x: place.left + col * place.cw - scroll.left,
    y: place.top + row * place.ch - scroll.top,
    width: place.cw,
    height: place.ch,
  };
}
