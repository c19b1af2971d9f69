/** Which rows, columns, lines and labels are on screen: whole numbers only, no canvas, no page. */

/** The items [start, stop) of `count`, each `size` pixels, that a window of `room` pixels at `offset` shows. */
export function visible(offset, room, size, count, over = 0) {
  const start = Math.max(0, Math.floor(offset / size) - over);
  const stop = Math.min(count, Math.ceil((offset + room) / size) + over);
  return { start: Math.min(start, count), stop: Math.max(stop, Math.min(start, count)) };
}

/** Of items `size` pixels apart, every how many-th gets a label that needs `need` pixels. */
export function labelStep(size, need) {
  if (size >= need) return 1;
  const least = need / size;
  for (const step of [2, 4, 5, 8, 10, 16, 20, 25, 32, 50, 64, 100]) if (step >= least) return step;
  return Math.ceil(least / 100) * 100;
}

/** The scroll offset at which an item is fully in the window: the present one where it already is. */
export function reveal(offset, room, start, end) {
  if (start < offset) return start;
  if (end > offset + room) return Math.min(start, end - room);
  return offset;
}

/** Where a key moves a cursor in a grid; null for a key that does not. */
export function moved({ row, col }, key, { rows, cols, page = 10, ctrl = false }) {
  const last = { row: rows - 1, col: cols - 1 };
  const to = {
    ArrowUp: [row - 1, col],
    ArrowDown: [row + 1, col],
    ArrowLeft: [row, col - 1],
    ArrowRight: [row, col + 1],
    Home: [ctrl ? 0 : row, 0],
    End: [ctrl ? last.row : row, last.col],
    PageUp: [row - page, col],
    PageDown: [row + page, col],
  }[key];
  if (!to) return null;
  const within = (value, end) => Math.max(0, Math.min(end, value));
  return { row: within(to[0], last.row), col: within(to[1], last.col) };
}

/**
 * Breaks tokens into lines: a new one at each start in `breaks`, after each token that ends in a newline, and where a
 * line is full.
 * @param {ArrayLike<number>} widths of the tokens, in pixels
 * @param {{ room: number, gap?: number, breaks?: Set<number>, newline?(i: number): boolean }} how
 * @returns {{ starts: number[], lineOf: Int32Array, lefts: Float32Array }} starts has one more item: the count
 */
export function lines(widths, { room, gap = 1, breaks = new Set(), newline = () => false }) {
  const count = widths.length;
  const starts = [];
  const lineOf = new Int32Array(count);
  const lefts = new Float32Array(count);
  let left = 0;
  for (let i = 0; i < count; i++) {
    const full = left > 0 && left + widths[i] > room;
    if (i === 0 || full || breaks.has(i) || newline(i - 1)) {
      starts.push(i);
      left = 0;
    }
    lineOf[i] = starts.length - 1;
    lefts[i] = left;
    left += widths[i] + gap;
  }
  starts.push(count);
  return { starts, lineOf, lefts };
}

/** The token of a line whose middle is nearest to x. */
export function nearestInLine({ starts, lefts }, widths, line, x) {
  let best = starts[line];
  for (let i = starts[line]; i < starts[line + 1]; i++) {
    const distance = Math.abs(lefts[i] + widths[i] / 2 - x);
    if (distance < Math.abs(lefts[best] + widths[best] / 2 - x)) best = i;
  }
  return best;
}

/** The words of an axis' ticks: as `format` has them, with more figures where two ticks would read the same. */
export function tickNames(values, format) {
  const names = values.map((value) => format(value));
  if (new Set(names).size === names.length) return names;
  const percents = names.every((name) => String(name).endsWith("%"));
  return values.map((value) => `${Number((percents ? 100 * value : value).toPrecision(12))}${percents ? "%" : ""}`.replace("-", "−"));
}

/** Round numbers between two ends, about `count` of them, for an axis. */
export function ticks(low, high, count = 5) {
  if (!(high > low)) return [low];
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 2.5, 5, 10].find((unit) => unit * power >= rough);
  const made = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) made.push(Number((i * step).toPrecision(12)));
  return made;
}
