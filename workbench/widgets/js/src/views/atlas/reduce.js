/** Numbers and words of the atlas, apart from the page. */
import { percent, short } from "../../draw/scales.js";

const WHOLE = new Intl.NumberFormat("en-US");
const LEAST = 1 / 64; // a lift of 0 has no logarithm
const WIDEST = 6; // powers of two on either side of 1

/** 22534 → "22,534". */
export const whole = (n) => WHOLE.format(n);

/** "780 of 1,212 tokens". */
export const ofTokens = (count, tokens) => `${whole(count)} of ${whole(tokens)}`;

const log = (lift) => Math.log2(Math.max(lift, LEAST));
const there = (x) => x !== null && x !== undefined && Number.isFinite(x);

/** How many powers of two an axis of these lifts has below 1 and above it. @returns {{ down: number, up: number }} */
export function reach(groups) {
  const ends = groups.flatMap(({ lift, lift_low, lift_high }) => [lift, lift_low, lift_high]).filter(there).map(log);
  const end = (values) => Math.min(WIDEST, Math.ceil(2 * Math.max(0.5, ...values)) / 2);
  return { down: end(ends.map((x) => -x)), up: end(ends) };
}

/** Where a lift stands on the axis, 0 to 1. */
export function placeOf(lift, { down, up }) {
  return Math.max(0, Math.min(1, (log(lift) + down) / (down + up)));
}

/** A row's bar and whisker as shares of the track: { one, from, to, low, high }; low and high null where nobody knows. */
export function barOf({ lift, lift_low, lift_high }, far) {
  const [at, one] = [placeOf(lift ?? 0, far), placeOf(1, far)];
  const known = there(lift_low) && there(lift_high);
  return {
    one,
    from: Math.min(one, at),
    to: Math.max(one, at),
    low: known ? placeOf(lift_low, far) : null,
    high: known ? placeOf(lift_high, far) : null,
  };
}

/** The ticks of that axis: powers of two, at most seven, none at its very ends. */
export function ticksOf({ down, up }) {
  const step = Math.max(1, Math.ceil((down + up) / 6));
  const made = [];
  for (let power = -Math.floor(down / step) * step; power <= up; power += step) made.push(power);
  return made
    .map((power) => ({ at: placeOf(2 ** power, { down, up }), name: power < 0 ? `1/${2 ** -power}` : String(2 ** power) }))
    .filter(({ at }) => at > 0.04 && at < 0.96);
}

/** A share with one decimal, so that columns of them stand straight: "17.0%". */
export const tenths = (share) => (there(share) ? `${(100 * share).toFixed(1)}%` : "–");

/** A lift in words: "2.2 (2.1 to 2.3)". */
export function liftWords({ lift, lift_low, lift_high, documents }) {
  if (!there(lift)) return "–";
  const known = there(lift_low) && there(lift_high);
  const alone = documents === 1 ? "; one document: no interval" : "";
  return known ? `${short(lift)}, 95% interval ${short(lift_low)} to ${short(lift_high)}` : `${short(lift)}${alone}`;
}

/** Where a context is from: "chat · assistant/final". */
export function fromWords({ domain, language, role, channel }) {
  const who = role && channel ? `${role}/${channel}` : (role ?? channel);
  return [domain, language, who].filter(Boolean).join(" · ");
}

/** Rows of the table: each context with its numbers. */
export function rowsOf(contexts, effects) {
  const { rows, before } = contexts.json;
  const { weights } = contexts.arrays;
  const width = weights.shape[1];
  const kl = effects?.arrays?.kl;
  const change = effects?.arrays?.loss_change;
  const n = rows.length;
  const fits = kl && kl.shape[1] === n;
  return rows.map((row, i) => ({
    ...row,
    key: keyOf(row),
    weight: weights[i * width + before],
    weights: weights.subarray(i * width + before - row.centre, i * width + before - row.centre + row.tokens.length),
    from: fromWords(row),
    kl: fits ? kl[i] : NaN,
    klControl: fits ? kl[n + i] : NaN,
    loss: fits ? change[i] : NaN,
    lossControl: fits ? change[n + i] : NaN,
  }));
}

export const keyOf = ({ document, position }) => `${document}:${position}`;

/** A number of nats as written in a cell: nothing where it was not run. */
export const nats = (value) => (there(value) ? (Math.abs(value) < 5e-4 ? "0.000" : value.toFixed(Math.abs(value) < 10 ? 3 : 1)) : "");

/** "+0.31" of a change. */
export const change = (value) => (there(value) ? `${value > 0 && nats(value) !== "0.000" ? "+" : ""}${nats(value).replace("-", "−")}` : "");

/** "2.99 (2.00 to 4.54)". */
export function meanWords({ mean, low, high }, write = nats) {
  if (!there(mean)) return "–";
  return there(low) ? `${write(mean)} (${write(low)} to ${write(high)})` : write(mean);
}

/** What one cell of the expert picker says. */
export function expertWords(layer, expert, { load, count, mean_weight }, experts, even) {
  const i = layer * experts + expert;
  const mean = mean_weight[i];
  const rest = there(mean) ? `\nmean weight ${short(mean)}` : "";
  return `layer ${layer}, expert ${expert}\n${whole(count[i])} tokens, load ${percent(load[i])} (even: ${percent(even)})${rest}`;
}
