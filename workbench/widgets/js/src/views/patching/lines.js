/** Two texts under each other: where each pair of tokens stands, and where keys lead. Numbers alone, no page. */
import { lines } from "../../draw/ranges.js";

export const ROW = 23; // pixels of one text's row
export const LINE = 2 * ROW + 8; // of both, and the air below them
const PADDING = 8;

/**
 * @param {{ pairs: Int32Array, tokens: [string[], string[]], room: number, width: (text: string) => number }} given pairs:
 *   source and target position of each column, −1 = nothing there
 * @returns {{ starts: number[], lineOf: Int32Array, lefts: Float32Array, widths: Float32Array, count: number, height: number }}
 */
export function placed({ pairs, tokens, room, width }) {
  const count = pairs.length / 2;
  const widths = new Float32Array(count);
  for (let i = 0; i < count; i++) {
    const wide = [0, 1].map((side) => (pairs[2 * i + side] < 0 ? 0 : width(tokens[side][pairs[2 * i + side]])));
    widths[i] = Math.min(Math.max(14, Math.ceil(Math.max(...wide)) + PADDING), Math.max(40, room));
  }
  const broken = lines(widths, { room, gap: 2 });
  return { ...broken, widths, count, height: (broken.starts.length - 1) * LINE };
}

/** The column of each position of a side; −1 for one that is nowhere. */
export function columnsOf(pairs, side, length) {
  const found = new Int32Array(length).fill(-1);
  for (let i = 0; i < pairs.length / 2; i++) if (pairs[2 * i + side] >= 0) found[pairs[2 * i + side]] = i;
  return found;
}

/** Where a key leads from { side, column }; null for a key that does not move. */
export function stepped({ side, column }, key, flowed, ctrl = false) {
  const last = flowed.count - 1;
  const line = flowed.lineOf[column];
  const across = (by) => ({ side, column: Math.max(0, Math.min(last, column + by)) });
  const along = (to, other) => {
    const [start, stop] = [flowed.starts[to], flowed.starts[to + 1]];
    const middle = flowed.lefts[column] + flowed.widths[column] / 2;
    let best = start;
    for (let i = start; i < stop; i++) {
      const off = (k) => Math.abs(flowed.lefts[k] + flowed.widths[k] / 2 - middle);
      if (off(i) < off(best)) best = i;
    }
    return { side: other, column: best };
  };
  if (key === "ArrowRight") return across(1);
  if (key === "ArrowLeft") return across(-1);
  if (key === "ArrowDown") {
    if (side === 0) return { side: 1, column };
    return line < flowed.starts.length - 2 ? along(line + 1, 0) : { side, column };
  }
  if (key === "ArrowUp") {
    if (side === 1) return { side: 0, column };
    return line > 0 ? along(line - 1, 1) : { side, column };
  }
  if (key === "Home") return { side, column: ctrl ? 0 : flowed.starts[line] };
  if (key === "End") return { side, column: ctrl ? last : flowed.starts[line + 1] - 1 };
  return null;
}
