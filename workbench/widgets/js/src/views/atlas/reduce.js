/** Numbers and words of the atlas, apart from the page. */
import { percent, portion, short } from "../../draw/scales.js";

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

/** A share with one decimal, so that columns of them stand straight: "17.0%"; what is not none or all never reads so. */
export function tenths(share) {
  if (!there(share)) return "–";
  const text = (100 * share).toFixed(1);
  if (share > 0 && text === "0.0") return "<0.1%";
  return share < 1 && text === "100.0" ? ">99.9%" : `${text}%`;
}

/** A lift in a column: "2.17"; "<0.01" where it is not 0. */
export const liftOf = (lift) => (there(lift) ? (lift > 0 && lift < 0.005 ? "<0.01" : lift.toFixed(2)) : "–");

/** Whether an answer of `useData` is of these choices, and of the layer and expert that `said` shows. */
export function answers({ data, asked }, choices, said) {
  if (!data || !asked || !said || data.json.layer !== said.layer || data.json.expert !== said.expert) return false;
  return Object.entries(choices).every(([name, value]) => asked[name] === value);
}

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

const seen = (value) => Math.abs(value) >= 5e-4; // in three figures after the point

/** A number of nats as written in a cell: nothing where it was not run, "0" of what is exactly that. */
export function nats(value) {
  if (!there(value)) return "";
  if (!seen(value)) return value === 0 ? "0" : "<0.001";
  return value.toFixed(Math.abs(value) < 9.9995 ? 3 : 1).replace("-", "−");
}

/** "+0.31" of a change; 0.000 has no sign. */
export function change(value) {
  if (!there(value) || value === 0) return nats(value);
  return seen(value) ? `${value > 0 ? "+" : ""}${nats(value)}` : "0.000";
}

/** A weight of the router as written in a column. */
export const weightOf = (value) => portion(value);

/** What is written in a cell of the picker: whole percents of the tokens, and never 0 of an expert that has some. */
export const loadOf = (load) => (load > 0 && load < 0.005 ? "<1" : `${Math.round(100 * load)}`);

/** "2.99 (2.00 to 4.54)". */
export function meanWords({ mean, low, high }, write = nats) {
  if (!there(mean)) return "–";
  const all = [mean, low, high].map(write);
  return there(low) && new Set(all).size > 1 ? `${all[0]} (${all[1]} to ${all[2]})` : all[0];
}

/** What one cell of the expert picker says. */
export function expertWords(layer, expert, { load, count, mean_weight }, experts, even) {
  const i = layer * experts + expert;
  const mean = mean_weight[i];
  const rest = there(mean) ? `\nmean weight ${short(mean)}` : "";
  return `layer ${layer}, expert ${expert}\n${whole(count[i])} tokens, load ${percent(load[i])} (even: ${percent(even)})${rest}`;
}
