/** Underlines the cells that already say the target: a mark that needs no colour. */
import { MONO } from "../../draw/paint.js";
import { inkOn } from "../../draw/scales.js";

/** What the matrix draws over its cells; nothing where no cell is marked. */
export function marks({ hit, n, columns, values, scale, text }) {
  if (!hit) return undefined;
  return (context, { cw, ch, part, rect }) => {
    if (ch < 12 || cw < 16) return;
    context.font = `${ch >= 18 ? 11 : 10}px ${MONO}`;
    for (let row = part.top; row < part.bottom; row++) {
      for (let col = part.left; col < part.right; col++) {
        if (!hit[row * n + columns[col]]) continue;
        const { x, y } = rect(row, col);
        const wide = Math.min(cw - 8, Math.max(8, context.measureText(text(row, col)).width));
        context.fillStyle = inkOn(scale.rgb(values[row * columns.length + col]));
        context.fillRect(Math.round(x + (cw - wide) / 2), Math.round(y + ch - 4), Math.round(wide), 1);
      }
    }
  };
}
