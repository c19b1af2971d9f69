/** What a patching grid shows, as plain numbers and words: no page in here. */
import { short } from "../../draw/scales.js";

export const PARTS = ["resid_pre", "attn_out", "mlp_out", "head", "expert"];
export const STREAM = ["resid_pre", "attn_out", "mlp_out"];

/**
 * Exact values over estimates, and the marks of each cell.
 * @param {{ exact: Float32Array, estimate?: Float32Array|null, floor?: number|null, able?: Uint8Array|null }} numbers
 *   NaN = not run; able: 0 where a patch can do nothing, and was not run for that
 * @returns {{ values: Float32Array, hatch: Uint8Array, faded: Uint8Array, grey: Uint8Array, idle: Uint8Array, done: number }}
 */
export function merged({ exact, estimate = null, floor = null, able = null }) {
  const count = exact.length;
  const values = new Float32Array(count);
  const [hatch, faded, grey, idle] = [0, 0, 0, 0].map(() => new Uint8Array(count));
  let done = 0;
  for (let i = 0; i < count; i++) {
    const known = !Number.isNaN(exact[i]);
    values[i] = known ? exact[i] : estimate ? estimate[i] : NaN;
    if (known) {
      done += 1;
      if (able && !able[i]) idle[i] = 1;
      if (floor !== null && (!able || able[i]) && Math.abs(exact[i]) <= floor) grey[i] = 1;
    } else if (estimate && !Number.isNaN(estimate[i])) faded[i] = 1;
    else hatch[i] = 1;
  }
  return { values, hatch, faded, grey, idle, done };
}

/** The cell that a selection names in a grid of these dims; null where it names none. */
export function cellOf(selection, { dims, layer }) {
  const at = { layer: selection.layer, pos: selection.position, head: selection.head, expert: selection.expert };
  if (layer !== null && layer !== undefined && at.layer !== layer) return null;
  const [row, col] = dims.map((dim) => at[dim] ?? null);
  return row === null || col === null ? null : { row, col };
}

/** What a cell selects in every view. */
export function fieldsOf(row, col, { dims, layer, part }) {
  const names = { layer: "layer", pos: "position", head: "head", expert: "expert" };
  const fields = { [names[dims[0]]]: row, [names[dims[1]]]: col };
  if (layer !== null && layer !== undefined) fields.layer = layer;
  if (STREAM.includes(part)) fields.site = `blocks.${row}.hook_${part}`;
  return fields;
}

/** A share in few characters: never "−0". */
export const share = (value) => (Math.abs(value) < 0.0005 ? "0" : short(Number(value.toFixed(3))));

/** The words of a cell: what it is, what was found, how sure that is. */
export function describeCell(row, col, about, { exact, estimate, able }, tokens) {
  const { dims, layer, part, floor } = about;
  const at = { [dims[0]]: row, [dims[1]]: col, ...(layer === null || layer === undefined ? {} : { layer }) };
  const what = STREAM.includes(part) ? part : `${part} ${at[part]}`;
  const i = row * about.shape[1] + col;
  const lines = [`${what}, layer ${at.layer}, ${at.pos === undefined ? "all positions" : `position ${at.pos}`}`];
  if (at.pos !== undefined && tokens) lines.push(`${tokens.source[at.pos] ?? "nothing"} into ${tokens.target[at.pos] ?? "nothing"}`);
  const known = !Number.isNaN(exact[i]);
  if (able && !able[i] && known) return [...lines, "0: nothing differs here that a patch could bring"].join("\n");
  const guess = estimate && !Number.isNaN(estimate[i]) ? `estimate ${share(estimate[i])}` : null;
  if (known) {
    const noise = floor !== null && Math.abs(exact[i]) <= floor ? ", inside the noise floor" : "";
    lines.push(`brings back ${share(exact[i])}${noise}${guess ? ` (${guess})` : ""}`);
  } else lines.push(`not run yet${guess ? `, ${guess}` : ""}`);
  return lines.join("\n");
}

/** Neighbouring columns whose tokens differ, as bands. */
export function bandsOf(differs, colour) {
  const bands = [];
  for (let i = 0; i < differs.length; i++) {
    if (!differs[i]) continue;
    const last = bands.at(-1);
    if (last && last.stop === i) last.stop = i + 1;
    else bands.push({ start: i, stop: i + 1, colour });
  }
  return bands;
}

/** The target's position at the next column that differs, after a position and round again; null where none differs. */
export function nextDifference({ pairs, differs }, position) {
  const found = [];
  for (let i = 0; i < differs.length; i++) if (differs[i] && pairs[2 * i + 1] >= 0) found.push(pairs[2 * i + 1]);
  return found.find((at) => position === null || at > position) ?? found[0] ?? null;
}

/** Points of exact against estimated values, at most so many, and the size of the square that holds them. */
export function points({ exact, estimate }, most = 3000) {
  const found = [];
  let limit = 0;
  for (let i = 0; i < exact.length; i++) {
    if (!estimate || Number.isNaN(exact[i]) || Number.isNaN(estimate[i]) || (exact[i] === 0 && estimate[i] === 0)) continue;
    found.push({ i, x: estimate[i], y: exact[i] });
    limit = Math.max(limit, Math.abs(exact[i]), Math.abs(estimate[i]));
  }
  const step = Math.ceil(found.length / most) || 1;
  return { points: found.filter((_, k) => k % step === 0), limit: 1.1 * limit || 1, count: found.length };
}

/** Where two runs of tokens part: the index of the first that is another one. */
export function parting(a, b) {
  let i = 0;
  while (i < a.length && i < b.length && a[i] === b[i]) i += 1;
  return i;
}
