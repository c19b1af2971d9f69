/** How wide texts are, in pixels, without touching the page. */
import { offscreen } from "./paint.js";

let context = null;
const known = new Map(); // font → Map(text → width)

/** The width of a text in a CSS font. */
export function widthOf(/** @type {string} */ text, /** @type {string} */ font) {
  context ??= offscreen(1, 1).getContext("2d");
  if (!known.has(font)) known.set(font, new Map());
  const widths = known.get(font);
  let width = widths.get(text);
  if (width === undefined) {
    if (context.font !== font) context.font = font;
    width = context.measureText(text).width;
    if (widths.size > 20000) widths.clear();
    widths.set(text, width);
  }
  return width;
}

/** The width of the widest of many texts; of a thousand, only the longest are measured. */
export function widest(texts, font, most = 60) {
  const longest = texts.length > most ? [...texts].sort((a, b) => b.length - a.length).slice(0, most) : texts;
  return longest.reduce((width, text) => Math.max(width, widthOf(text, font)), 0);
}
