/** What is worked out from patterns on this side: one line of them, the largest of it, what a head does best. */

export const TOP = 8;
/** What the kinds of places are called: in a chip, in words. */
export const KIND = {
  previous_token: ["prev", "previous token"],
  duplicate_token: ["dup", "duplicate token"],
  induction: ["ind", "induction"],
  sink: ["sink", "sink"],
};

/** Numbers from 0 to 1 of whatever type crossed the wire. */
export const shares = (values) => (values instanceof Uint16Array ? Float32Array.from(values, (value) => value / 65535) : values);

/** Where one token looks ("out": a row), or who looks at it ("in": a column), of an n × n pattern. */
export function lineOf(pattern, n, position, direction) {
  const made = new Float32Array(n);
  for (let i = 0; i < n; i++) made[i] = pattern[direction === "out" ? position * n + i : i * n + position] || 0;
  return made;
}

/** The positions with the largest numbers by size, largest first, without zeros. */
export function largest(values, count = TOP) {
  const order = Array.from(values, (value, position) => ({ position, value })).filter(({ value }) => value);
  order.sort((a, b) => Math.abs(b.value) - Math.abs(a.value) || a.position - b.position);
  return order.slice(0, count);
}

/** The largest of the scores of one head: { kind, value }; null where it has none. */
export function best(scores, kinds, nHeads, head) {
  let found = null;
  kinds.forEach((kind, k) => {
    const value = scores[k * nHeads + head];
    if (Number.isFinite(value) && (!found || value > found.value)) found = { kind, value };
  });
  return found;
}

/** A share in three characters: .83, 1.0, .00. */
export const tight = (value) => (value >= 0.995 ? "1.0" : value.toFixed(2).replace(/^0/, ""));

/** The overview with the layers that came since it was asked for. */
export function filled(arrays, layers) {
  if (!layers.size) return arrays;
  const [thumbs, scores, known] = [arrays.thumbs.slice(), arrays.scores.slice(), arrays.known.slice()];
  const [nLayers, nHeads, side] = arrays.thumbs.shape;
  const fresh = layers.values().next().value.thumbs.shape[1];
  const all = fresh === side ? thumbs : new Uint8Array(nLayers * nHeads * fresh * fresh);
  for (const [layer, found] of layers) {
    all.set(found.thumbs, layer * nHeads * fresh * fresh);
    scores.set(found.scores, layer * found.scores.length);
    known[layer] = 1;
  }
  all.shape = [nLayers, nHeads, fresh, fresh];
  scores.shape = arrays.scores.shape;
  known.shape = arrays.known.shape;
  return { thumbs: all, scores, known };
}

/** The largest size of any number. */
export function farthest(...lists) {
  let most = 0;
  for (const values of lists) for (const value of values) if (Math.abs(value) > most) most = Math.abs(value);
  return most;
}

/** Is a token one of harmony's markers, shown in small print? One number a token. */
export const markers = (tokens) => Uint8Array.from(tokens, (token) => (/^<\|.*\|>$/s.test(token) ? 1 : 0));
