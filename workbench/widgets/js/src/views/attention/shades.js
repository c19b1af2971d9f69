/** A hue for each head, from paper to the hue to a deep tone of it; and thumbnails as one image. */
import { PAPER, INK, css, diverging, expertColour, mix, rgb, scaleOf } from "../../draw/scales.js";

const hex = (colour) => `#${colour.map((part) => Math.round(part).toString(16).padStart(2, "0")).join("")}`;

/** The scale of a head, 0 to 1. */
export function headScale(head, theme, shade = "linear") {
  const hue = rgb(expertColour(head, theme));
  const deep = mix(hue, rgb(INK[theme]), 0.55);
  const scale = scaleOf([PAPER[theme], hex(hue), hex(deep)], 0, 1, theme);
  return shade === "root" ? rooted(scale) : scale;
}

/** Shaded by the square root, so that small shares show. */
function rooted(scale) {
  const colour = (value) => scale.rgb(value > 0 ? Math.sqrt(value) : value);
  return { ...scale, rgb: colour, css: (value) => css(colour(value)), index: (value) => scale.index(Math.sqrt(Math.max(value, 0))) };
}

/** The scale of a change. */
export const changeScale = (theme, limit) => diverging(theme, limit || 1);

/** 256 colours for the bytes of a thumbnail. */
function steps(head, theme, shade, change) {
  const scale = change ? changeScale(theme, 1) : headScale(head, theme, shade);
  return Array.from({ length: 256 }, (_, byte) => scale.rgb(change ? (byte - 128) / 127 : byte / 255));
}

/**
 * Thumbnails side by side, a row of them for each layer, as pixels.
 * @param {Uint8Array} thumbs layer, head, row, column
 * @returns {{ data: Uint8ClampedArray, width: number, height: number }}
 */
export function sheet(thumbs, { nLayers, nHeads, side, theme, shade, change }) {
  const [width, height] = [nHeads * side, nLayers * side];
  const data = new Uint8ClampedArray(width * height * 4);
  const tables = new Map();
  for (let head = 0; head < nHeads; head++) {
    const kind = change ? 0 : head % 12;
    if (!tables.has(kind)) tables.set(kind, steps(kind, theme, shade, change));
    const table = tables.get(kind);
    for (let layer = 0; layer < nLayers; layer++) {
      let from = (layer * nHeads + head) * side * side;
      for (let row = 0; row < side; row++) {
        let out = ((layer * side + row) * width + head * side) * 4;
        for (let col = 0; col < side; col++, from++, out += 4) {
          const colour = table[thumbs[from]];
          data[out] = colour[0];
          data[out + 1] = colour[1];
          data[out + 2] = colour[2];
          data[out + 3] = 255;
        }
      }
    }
  }
  return { data, width, height };
}
