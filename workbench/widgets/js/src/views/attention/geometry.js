/** Where everything of the large pattern stands, and what of it can be seen: whole numbers only, no canvas, no page. */

export const SINK = -1; // as a column, and as a key
const AIR = 6;

const clamp = (value, low, high) => Math.max(low, Math.min(high, value));

/** How many blocks of positions there are. */
export const blocksOf = ({ n, block }) => Math.ceil(n / block);

/** The first and last position of a block. */
export const positionsOf = (i, { n, block }) => [i * block, Math.min(n, (i + 1) * block) - 1];

/**
 * A square of cells with the sink's column at its left, apart.
 * @param {{ blocks: number, room: number, maxHeight: number, label: number, numbers: boolean }} given
 *   room: the width there is; label: the widest label, in pixels; numbers: labels are positions, of which some are enough
 * @returns {{ left: number, top: number, sink: number, gap: number, cell: number, x0: number, width: number,
 *   height: number, turned: boolean }} x0: where the first key's column begins
 */
export function layout({ blocks, room, maxHeight, label, numbers }) {
  const left = Math.ceil(clamp(label, 20, Math.max(40, room * 0.22))) + AIR + 4;
  const size = (top) => clamp(Math.min((room - left - 40) / blocks, (maxHeight - top) / blocks), 1, 28);
  const upright = numbers || size(20) >= label + 4;
  const top = upright ? 20 : Math.ceil(clamp(label, 36, 84)) + AIR;
  const cell = size(top);
  const [sink, gap] = [Math.max(cell, 22), Math.max(AIR, Math.min(cell / 2, 10))];
  const x0 = left + sink + gap;
  return { left, top, sink, gap, cell, x0, turned: !upright, width: x0 + cell * blocks + 1, height: top + cell * blocks + 1 };
}

/** The cell under a point: { row, col }, col −1 for the sink; null in a gutter or the gap. */
export function cellAt(place, blocks, x, y) {
  const row = Math.floor((y - place.top) / place.cell);
  if (y < place.top || row >= blocks) return null;
  if (x >= place.left && x < place.left + place.sink) return { row, col: SINK };
  const col = Math.floor((x - place.x0) / place.cell);
  return x >= place.x0 && col < blocks ? { row, col } : null;
}

/** Where a cell stands. */
export function rectOf({ left, sink, x0, top, cell }, row, col) {
  const y = top + row * cell;
  return col === SINK ? { x: left, y, width: sink, height: cell } : { x: x0 + col * cell, y, width: cell, height: cell };
}

/** Where a key moves a cursor; the sink is left of the first key. Null for a key that does not. */
export function moved({ row, col }, key, blocks, ctrl = false) {
  const last = blocks - 1;
  const to = {
    ArrowUp: [row - 1, col],
    ArrowDown: [row + 1, col],
    ArrowLeft: [row, col - 1],
    ArrowRight: [row, col + 1],
    Home: [ctrl ? 0 : row, SINK],
    End: [ctrl ? last : row, ctrl ? last : Math.min(row, last)],
    PageUp: [row - 10, col],
    PageDown: [row + 10, col],
  }[key];
  return to ? { row: clamp(to[0], 0, last), col: clamp(to[1], SINK, last) } : null;
}

/**
 * Which blocks no query of theirs can see: 1 = all keys come later, 2 = all keys are outside the sliding window.
 * @returns {Uint8Array} row after row
 */
export function unseen({ n, block, window }) {
  const blocks = blocksOf({ n, block });
  const made = new Uint8Array(blocks * blocks);
  for (let row = 0; row < blocks; row++) {
    const [firstQuery, lastQuery] = positionsOf(row, { n, block });
    for (let col = 0; col < blocks; col++) {
      const [firstKey, lastKey] = positionsOf(col, { n, block });
      if (firstKey > lastQuery) made[row * blocks + col] = 1;
      else if (window && firstQuery - lastKey >= window) made[row * blocks + col] = 2;
    }
  }
  return made;
}

/** The edge of the window as corners [column, row], from top to bottom; empty where everything is inside it. */
export function windowEdge({ n, block, window }) {
  const blocks = blocksOf({ n, block });
  const corners = [];
  if (!window) return corners;
  for (let row = 0; row < blocks; row++) {
    // Keys up to the first query − window are outside for every query of the row.
    const out = Math.floor((row * block - window + 1) / block);
    if (out <= 0) continue;
    if (!corners.length) corners.push([0, row]);
    corners.push([out, row], [out, row + 1]);
  }
  return corners;
}
