/** The cells of the logit lens: which columns there is room for, their words, their colours. Pure; see the tests. */

export const NARROWEST = 58; // pixels of a column with words
export const POPUP = 262; // pixels

/** At most `room` of n columns, evenly, the last always among them (as workbench.figures.axes.strided). */
export function strided(n, room) {
  if (n <= room) return Array.from({ length: n }, (_, i) => i);
  const count = Math.max(room, 2);
  const made = new Set();
  for (let i = 0; i < count; i++) made.add(Math.round((i * (n - 1)) / (count - 1)));
  return [...made].sort((a, b) => a - b);
}

/** The columns that are shown in a width, with their labels taking their part of it. */
export function columnsFor({ n, width, all }) {
  if (all || !width) return strided(n, n);
  return strided(n, Math.max(2, Math.floor((width - Math.min(140, width * 0.3)) / NARROWEST)));
}

/** Some columns of an array, row after row. */
export function picked(values, n, columns) {
  const rows = values.length / n;
  const made = new values.constructor(rows * columns.length);
  let at = 0;
  for (let row = 0; row < rows; row++) for (const column of columns) made[at++] = values[row * n + column];
  return made;
}

/** The word of a cell; "" where there is none. */
export const wordOf = (words, index) => words[index] ?? "";

/** What is written in a cell: the word, and of two runs that differ both. */
export function cellText(json, arrays, i) {
  const mine = wordOf(json.words, arrays.word[i]);
  if (!arrays.other_word || !mine) return mine;
  const theirs = wordOf(json.other_words, arrays.other_word[i]);
  return mine === theirs ? mine : `${mine}≠${theirs}`;
}

/** A column's name in words. */
export const stageWords = (stage) => (stage === 0 ? "the embedding" : `layer ${stage - 1}`);

/** A number of a shade, as it is said: a rank is kept as its log10. */
export function said(shade, value, short) {
  if (Number.isNaN(value) || value === null || value === undefined) return "none";
  return shade.log ? String(Math.round(10 ** value)) : short(value);
}

/** The words of a cell: tooltip and screen reader. */
export function cellWords({ json, arrays }, row, stage, { short, percent }) {
  const i = row * json.stages.length + stage;
  const where = `after “${json.tokens[row]}”, position ${row}, ${stageWords(stage)}`;
  const mine = wordOf(json.words, arrays.word[i]);
  if (!mine) return `${json.done < json.total && !(arrays.partner?.[row] < 0) ? "not read yet" : `no counterpart in ${json.other}`}\n${where}`;
  const lines = [`${mine} ${percent(arrays.probability[i])}`];
  if (arrays.other_word) lines[0] += ` · in ${json.other}: ${wordOf(json.other_words, arrays.other_word[i])}`;
  if (arrays.hit?.[i]) lines[0] += " · the target";
  lines.push(where);
  if (json.shade.name !== "probability" || arrays.other_word) {
    lines.push(`${json.shade.title}: ${said(json.shade, arrays.value[i], short)}`);
  }
  return lines.join("\n");
}

/** 1 for each cell that is still to be read; null where none is. */
export function unread({ json, arrays }) {
  if (json.done >= json.total) return null;
  const n = json.stages.length;
  return Uint8Array.from(arrays.word, (word, i) => {
    const alone = arrays.partner && arrays.partner[Math.floor(i / n)] < 0;
    return word >= json.words.length && !alone ? 1 : 0;
  });
}

/** The stage of a selection: 0 the embedding, n after layer n − 1; null for none. */
export function stageOf({ layer, site }) {
  if (layer !== null && layer !== undefined) return layer + 1;
  return site === "hook_embed" ? 0 : null;
}

/** What a click on a cell selects. */
export function selectionOf(position, stage) {
  const where = stage === 0 ? { layer: null, site: "hook_embed" } : { layer: stage - 1, site: null };
  return { position, head: null, expert: null, key: null, ...where };
}

/** Positions with one more, or without it; the newest stay where there are too many. */
export function toggled(pinned, position, most = 8) {
  return pinned.includes(position) ? pinned.filter((other) => other !== position) : [...pinned, position].slice(-most);
}

/** The likely tokens of two runs together, the likeliest in either first. */
export function together(cell, most = 10) {
  if (!cell.other) return cell.top.map(({ id, text, p }) => ({ key: id, label: text, before: null, after: p }));
  const all = new Map(cell.top.map(({ id, text, p, other }) => [id, { key: id, label: text, before: other, after: p }]));
  for (const { id, text, p, other } of cell.other.top) all.set(id, { key: id, label: text, before: p, after: other });
  return [...all.values()].sort((a, b) => Math.max(b.before, b.after) - Math.max(a.before, a.after)).slice(0, most);
}

/**
 * Where the popup of a cell stands: beside the grid, else beside the cell, where it hides nothing of its row's left; as
 * the rectangle that it hangs below of (its top where the cell's is) or stands above of (its bottom where the cell's is).
 */
export function standing(cell, gridRight, bounds, width = POPUP) {
  const gap = 8;
  const right = Math.max(cell.right, gridRight);
  const left = right + gap + width <= bounds.right ? right + gap : cell.right + gap + width <= bounds.right ? cell.right + gap : cell.left - gap - width;
  if (left < bounds.left) return cell;
  return { left, right: left + width, top: cell.bottom + 6, bottom: cell.top - 6 };
}
