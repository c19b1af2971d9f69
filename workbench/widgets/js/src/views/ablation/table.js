/** The numbers of the ablation bench as its table and its overview need them. Pure: no DOM. */

export const KINDS = [["head", "Heads"], ["expert", "Experts"], ["layer", "Layers"], ["sink", "Sinks"]];
export const POLICY_WORDS = {
  zero: "zero: write nothing",
  mean: "mean of a text",
  resample: "resample from a text",
  reroute: "reroute to the next expert",
  renormalise: "drop, renormalise the rest",
  remove: "remove: keys share all",
};
export const COMPARE_WORDS = { prompts: "both texts", edited: "unedited and edited", alone: "one run" };
export const FROM_A_SOURCE = ["mean", "resample"];

/** L3 H2, L2 E5, L4. */
export function partName(kind, layer, index) {
  const part = { head: ` H${index}`, expert: ` E${index}`, sink: ` H${index} sink` }[kind] ?? "";
  return `L${layer}${part}`;
}

/** One row for each component, layer by layer. */
export function rowsOf({ kind, layers, count }) {
  return Array.from({ length: layers * count }, (_, i) => {
    const [layer, index] = [Math.floor(i / count), i % count];
    return { i, layer, index, name: partName(kind, layer, index) };
  });
}

/** The column groups; `key` is that of the array. */
export function metricsOf(json, measure) {
  const total = measure === "kl"
    ? { key: "kl", title: "total effect", unit: "KL, nats", hint: "KL of the next token, with and without it" }
    : { key: "effect", title: "total effect", unit: "logits", signed: true, hint: `change of logit ${json.answer.right} − logit ${json.answer.wrong} when it is taken out` };
  return [
    { key: "activation", title: "activation", unit: json.activation.unit, hint: json.activation.said },
    { key: "norm", title: "write norm", unit: "length", hint: json.kind === "sink" ? "length of what its head would write more without it" : "length of what it adds to the residual stream" },
    { key: "direct", title: "direct effect", unit: "logits", signed: true, hint: `what ${json.kind === "sink" ? "its removal would add" : "it adds"} to logit ${json.answer.right} − logit ${json.answer.wrong} through the final norm alone` },
    total,
  ];
} // prettier-ignore

/** What a column of a group shows: "left", "difference" (right − left) or "right". */
export function valueOf(array, side, i) {
  const n = array.shape[1];
  if (side === "left") return array[i];
  return side === "right" ? array[n + i] : array[n + i] - array[i];
}

/** The largest size in a group of columns, over both sides: where its tint is full. */
export function largestOf(array) {
  let most = 0;
  for (const value of array) if (Math.abs(value) > most && Number.isFinite(value)) most = Math.abs(value);
  return most || 1;
}

/** The sides that are shown: of one alone, of two with the difference, or, where there is little room, one of them. */
export function sidesShown(count, only) {
  if (count === 1) return ["left"];
  return only ? [only] : ["left", "difference", "right"];
}

/** The title of one side. */
export function sideTitle(sides, side) {
  return side === "difference" ? "difference" : sides[side === "left" ? 0 : 1].title;
}

/** The newer of what Python answered and what it has streamed since. */
export function newest(data, live) {
  const { json, arrays } = data;
  if (!live || live.json.key !== json.key) return data;
  const left = (list) => list.reduce((sum, n) => sum + n, 0);
  const known = (floor) => floor.filter((value) => value !== null).length;
  const ahead = left(live.json.left) < left(json.left) || known(live.json.floor) > known(json.floor);
  if (!ahead) return data;
  return { json: { ...json, left: live.json.left, floor: live.json.floor }, arrays: { ...arrays, ...live.arrays } };
}

/** Whether a total effect is no larger than what random moves of the stream do. KL has no floor. */
export function isNoise(json, key, side, value) {
  if (key !== "effect" || side === "difference") return false;
  const floor = json.floor[side === "left" ? 0 : 1];
  return floor !== null && Number.isFinite(value) && Math.abs(value) <= floor;
}

/** Why a number is not there. */
export function missing(data, key, side, i) {
  if (key !== "effect" && key !== "kl") return "not defined";
  const [sides, n] = data.arrays.able.shape;
  const which = side === "right" ? [1] : side === "left" || sides === 1 ? [0] : [0, 1];
  return which.every((s) => data.arrays.able[s * n + i]) ? "not run yet" : "cannot be taken out in this way";
} // prettier-ignore

/** A signed number, or one without a sign, in few characters. */
export function written(value, signed, short) {
  if (!Number.isFinite(value)) return "·";
  return signed && value > 0 ? `+${short(value)}` : short(value);
}

/** Which column is drawn in the overview: the one that the table is sorted by, else the most telling that is there. */
export function overviewColumn(sort, metrics, sides, arrays) {
  const [key, side] = sort.split(".");
  if (side && sides.includes(side)) {
    const found = metrics.find((metric) => metric.key === key);
    if (found) return { metric: found, side };
  }
  const total = metrics.at(-1);
  const ran = arrays[total.key].some((value) => Number.isFinite(value));
  return { metric: ran ? total : metrics[2], side: sides.includes("left") ? "left" : sides[0] };
}

/** Places of dots on an axis from −limit to limit, each with a level above the line so that near ones do not hide. */
export function swarm(values, limit, width, size = 7) {
  const x = (value) => ((value + limit) / (2 * limit)) * width;
  const placed = [];
  for (const value of [...values].sort((a, b) => a - b)) {
    const at = x(value);
    let level = 0;
    while (placed.some((other) => other.level === level && Math.abs(other.x - at) < size)) level += 1;
    placed.push({ value, x: at, level });
  }
  return placed;
}

/** The chosen rows with one more or less. */
export function withPart(group, layer, index) {
  const rest = group.filter(([l, i]) => l !== layer || i !== index);
  return rest.length < group.length ? rest : [...group, [layer, index]];
}
