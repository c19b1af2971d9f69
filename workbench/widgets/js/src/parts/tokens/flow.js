/** Where the tokens of a text stand: lines of measured tokens, a new line for each message and after each newline. */
import { widthOf } from "../../draw/measure.js";
import { MONO } from "../../draw/paint.js";
import { lines } from "../../draw/ranges.js";

export const FONT = `12px ${MONO}`;
export const SMALL_FONT = `9.5px ${MONO}`;
export const LINE_HEIGHT = 27;
export const GUTTER = 118;
const PADDING = 6; // of a token, both sides together

/**
 * @param {{ tokens: string[], small?: ArrayLike<number>, bands?: { start: number }[], room: number, gutter: number }} given
 * @returns {{ starts: number[], lineOf: Int32Array, lefts: Float32Array, widths: Float32Array, height: number }}
 */
export function flow({ tokens, small, bands = [], room, gutter }) {
  const widths = Float32Array.from(tokens, (token, i) => {
    const width = Math.ceil(widthOf(token, small?.[i] ? SMALL_FONT : FONT)) + PADDING;
    return Math.min(width, Math.max(40, room - gutter));
  });
  const breaks = new Set(bands.map((band) => band.start));
  const newline = (i) => tokens[i].endsWith("¶");
  const broken = lines(widths, { room: room - gutter, gap: 1, breaks, newline });
  return { ...broken, widths, height: (broken.starts.length - 1) * LINE_HEIGHT };
}

/** The runs of one role in a line: { name, left, width } each, for the thin band above it. */
export function bandsInLine({ starts, lefts, widths }, bands, line) {
  const [first, end] = [starts[line], starts[line + 1]];
  return bands
    .filter((band) => band.start < end && band.stop > first)
    .map((band) => {
      const [from, last] = [Math.max(band.start, first), Math.min(band.stop, end) - 1];
      return { name: band.name, left: lefts[from], width: lefts[last] + widths[last] - lefts[from], begins: band.start === from };
    });
}

/** The token that a key leads to; null for a key that does not move. */
export function step(flowed, from, key, { count, page = 5, ctrl = false, nearest }) {
  const line = flowed.lineOf[from];
  const last = flowed.starts.length - 2;
  const x = flowed.lefts[from] + flowed.widths[from] / 2;
  const to = (other) => nearest(flowed, flowed.widths, Math.max(0, Math.min(last, other)), x);
  const moves = {
    ArrowLeft: () => Math.max(0, from - 1),
    ArrowRight: () => Math.min(count - 1, from + 1),
    ArrowUp: () => (line === 0 ? from : to(line - 1)),
    ArrowDown: () => (line === last ? from : to(line + 1)),
    PageUp: () => to(line - page),
    PageDown: () => to(line + page),
    Home: () => (ctrl ? 0 : flowed.starts[line]),
    End: () => (ctrl ? count - 1 : flowed.starts[line + 1] - 1),
  };
  return moves[key]?.() ?? null;
}
