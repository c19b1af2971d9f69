/** What the routing view works out of the routes: pure numbers, no page. See tests/widgets/js/routing.test.mjs. */
import { portion } from "../../draw/scales.js";

const LEAST = 3; // pixels of a slot, so that also one without weight can be seen and clicked

/**
 * @typedef {object} Routes one page of a text
 * @property {ArrayLike<number>} chosen [pos layer slot], the expert in each slot
 * @property {ArrayLike<number>} weight [pos layer slot]
 * @property {ArrayLike<number>|null} before [pos layer slot], the experts of the unedited run
 * @property {ArrayLike<number>|null} flips [pos layer], 1 where the set of experts changed
 * @property {ArrayLike<number>|null} kl [pos], nats
 * @property {ArrayLike<number>|null} flipped [pos], 1 where the likeliest next token changed
 * @property {number} rows @property {number} layers @property {number} slots
 */

/** The routes of an answer, with those of an edit that is only tried laid over them. @returns {Routes} */
export function routesOf({ json, arrays }, tried = null) {
  const [rows, layers, slots] = arrays.chosen.shape;
  const whole = tried && json.start === 0 && tried.arrays.kl?.length === rows ? tried.arrays : null;
  const of = whole ?? arrays;
  return {
    rows, layers, slots,
    chosen: whole?.chosen ?? arrays.chosen,
    weight: whole?.weight ?? arrays.weight,
    before: arrays.before ?? (whole ? arrays.chosen : null),
    flips: of.route_flips ?? null,
    kl: of.kl ?? null,
    flipped: of.flipped ?? null,
  };
}

/** Where the first slot of a cell stands in the arrays. */
export const first = ({ layers, slots }, row, layer) => (row * layers + layer) * slots;

/**
 * The slots of a cell, side by side: as wide as their weights, none narrower than a few pixels. Weights that sum to less
 * than 1 leave room; those that sum to more fill the cell.
 * @param {ArrayLike<number>} weights @param {number} from the first of them @param {number} count
 * @returns {Float32Array} the right edge of each
 */
export function edges(weights, from, count, width, made = new Float32Array(count)) {
  let total = 0;
  for (let i = 0; i < count; i++) total += Math.abs(weights[from + i]);
  const unit = width / Math.max(1, total);
  const least = Math.min(LEAST, width / count);
  let over = 0; // what the narrowest took beyond their share, which the wide ones give
  let spare = 0;
  for (let i = 0; i < count; i++) {
    const wide = Math.abs(weights[from + i]) * unit;
    over += Math.max(0, least - wide);
    spare += Math.max(0, wide - least);
  }
  const free = Math.max(0, width - total * unit);
  const shrink = spare > 0 ? Math.max(0, over - free) / spare : 0;
  let right = 0;
  for (let i = 0; i < count; i++) {
    const wide = Math.abs(weights[from + i]) * unit;
    right += wide > least ? wide - (wide - least) * shrink : least;
    made[i] = right;
  }
  return made;
}

/** The slot under a point of a cell; the last one where there is only room. */
export function slotAt(weights, from, count, width, x) {
  const rights = edges(weights, from, count, width);
  for (let i = 0; i < count; i++) if (x < rights[i]) return i;
  return count - 1;
}

/** The slot in which a token has an expert, or −1. */
export function slotOf(routes, row, layer, expert) {
  const from = first(routes, row, layer);
  for (let i = 0; i < routes.slots; i++) if (routes.chosen[from + i] === expert) return i;
  return -1;
}

/** Did the token not go to this expert before the edits? */
export function isNew({ before, slots }, from, expert) {
  if (!before) return false;
  for (let i = 0; i < slots; i++) if (before[from + i] === expert) return false;
  return true;
}

/** The rows in which an expert has most weight, hardest first: { row, weight, slot }. */
export function hardest(routes, layer, expert, most = 8) {
  const found = [];
  for (let row = 0; row < routes.rows; row++) {
    const slot = slotOf(routes, row, layer, expert);
    if (slot >= 0) found.push({ row, slot, weight: routes.weight[first(routes, row, layer) + slot] });
  }
  return { count: found.length, rows: found.sort((a, b) => b.weight - a.weight).slice(0, most) };
}

/** The words of a cell: its experts with their weights, and what they were. */
export function cellWords(routes, row, layer, slot = null) {
  const from = first(routes, row, layer);
  const one = (i) => `${i === slot ? "▸" : ""}E${routes.chosen[from + i]} ${portion(routes.weight[from + i])}`;
  const parts = [Array.from({ length: routes.slots }, (_, i) => one(i)).join(" · ")];
  if (routes.flips?.[row * routes.layers + layer] && routes.before) {
    const was = Array.from({ length: routes.slots }, (_, i) => `E${routes.before[from + i]}`);
    parts.push(`route changed; before: ${was.join(", ")}`);
  }
  return parts.join("\n");
}

/** Where an arrow leads inside a cell, and whether the cell itself is left: { slot, leaves }; null for another key. */
export function slotStep(slot, key, { slots, col, cols, single }) {
  const by = { ArrowRight: 1, ArrowLeft: -1 }[key];
  if (!by) return null;
  if (!single && slot + by >= 0 && slot + by < slots) return { slot: slot + by, leaves: false };
  if (col + by < 0 || col + by >= cols) return { slot, leaves: false };
  return { slot: by > 0 ? 0 : slots - 1, leaves: true };
}

/** Of all edits those that touch one expert of a layer. */
export const editsOf = (edits, layer, expert) =>
  edits.filter((edit) => edit.layer === layer && (edit.expert === expert || edit.other === expert));

const NAMES = { ban: "banned", zero: "zeroed", renormalise: "left out, renormalised", force: "forced", patch: "patched" };

/** An edit in words: "banned everywhere", "× 0.5 at 12". */
export function editWords(edit) {
  const where = edit.positions === null ? "everywhere" : `at ${edit.positions.length > 3 ? `${edit.positions.length} tokens` : edit.positions.join(", ")}`;
  if (edit.kind === "reweight") return `weight × ${edit.factor} ${where}`;
  if (edit.kind === "bias") return `router's logit ${edit.amount > 0 ? "+" : ""}${edit.amount} ${where}`;
  if (edit.kind === "swap") return `E${edit.expert} and E${edit.other} swapped ${where}`;
  return `${NAMES[edit.kind] ?? edit.kind} ${where}`;
}

/** A number in a column: as many figures after the point in every row. */
export const fixed = (value, digits = 3) => (Number.isFinite(value) ? value.toFixed(digits).replace(/^-(0\.?0*)$/, "$1").replace("-", "−") : "none");

/** The largest finite number, at least `least`. */
export function largest(values, least = 1e-6) {
  let most = least;
  for (const value of values) if (value > most) most = value;
  return most;
}
