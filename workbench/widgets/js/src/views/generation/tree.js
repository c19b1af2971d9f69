/** What the tree of continuations says of itself in words. */

/** A whole number in a range, from what was typed; null for anything else. */
export function asWhole(text, least, most) {
  if (!/^\s*\d+\s*$/.test(text)) return null;
  const number = Number(text);
  return Number.isSafeInteger(number) && number >= least && number <= most ? number : null;
}

/** The node that a row forks from; null at the end of the prompt. */
export function startsAfter({ nodes }, row) {
  const { parent } = nodes[row[0]];
  return parent === 0 ? null : nodes[parent];
}

/** The nodes that more than one token follows. */
export function forksOf(nodes) {
  const [seen, forks] = [new Set(), new Set()];
  for (const { parent } of Object.values(nodes)) (seen.has(parent) ? forks : seen).add(parent);
  return forks;
}

/** The interventions of a row, each set once, in the order in which they come. */
export function newSpecs({ nodes, specs }, row) {
  const seen = [...new Set(row.map((id) => nodes[id].specs))];
  return seen.length === 1 && !specs[seen[0]].length ? [] : seen.map((which) => specs[which]);
}

/** One node in words, a line each. */
export function describeNode({ token, id, p, rank, entropy, specs, end }, sets, percent, short) {
  const lines = [token, `id ${id}`];
  lines.push(p === null ? "probability not measured yet" : `probability ${percent(p)}, rank ${rank}`);
  if (entropy !== null) lines.push(`entropy there ${short(entropy)} nats`);
  if (sets[specs]?.length) lines.push(`with ${sets[specs].join(", ")}`);
  if (end) lines.push("ends the text");
  return lines.join("\n");
}
