/** Painting on canvases: sharp on any screen, cells as one image, marks that do not rely on colour. */
import { NOISE, PAPER, SOFT, rgb } from "./scales.js";

export const MONO = "'DejaVu Sans Mono', Menlo, Consolas, 'Liberation Mono', monospace";
export const SANS = "Inter, 'Segoe UI', 'Helvetica Neue', Arial, 'Liberation Sans', sans-serif";

/** Gives a canvas its size in CSS pixels and the screen's sharpness; returns a cleared context that counts CSS pixels. */
export function prepare(canvas, width, height) {
  const ratio = canvas.ownerDocument?.defaultView?.devicePixelRatio || 1;
  const [wide, high] = [Math.max(1, Math.round(width * ratio)), Math.max(1, Math.round(height * ratio))];
  if (canvas.width !== wide || canvas.height !== high) {
    canvas.width = wide;
    canvas.height = high;
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
  }
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  context.direction = "ltr"; // a token of a right-to-left script must not mirror its cell
  return context;
}

/** A canvas that is never on the page. */
export function offscreen(width, height) {
  return new OffscreenCanvas(Math.max(1, width), Math.max(1, height));
}

/**
 * The colours of a block of cells as an image of one pixel each.
 * @param {{ values: ArrayLike<number>, cols: number, colour: Function|import("./scales.js").Scale,
 *   grey?: ArrayLike<number>, faded?: ArrayLike<number>, theme: string }} cells
 * @param {{ top: number, left: number, bottom: number, right: number }} part rows and columns, ends not included
 */
export function colours(cells, { top, left, bottom, right }, image = null) {
  const { values, cols, colour, grey, faded, theme } = cells;
  const wide = right - left;
  const data = image?.data ?? new Uint8ClampedArray(wide * (bottom - top) * 4);
  const paper = rgb(PAPER[theme]);
  const noise = rgb(NOISE[theme]);
  const scale = typeof colour === "function" ? null : colour;
  let out = 0;
  for (let row = top; row < bottom; row++) {
    for (let i = row * cols + left, end = row * cols + right; i < end; i++, out += 4) {
      const pixel = grey?.[i] ? noise : scale ? null : colour(values[i], i);
      let red, green, blue;
      if (pixel) [red, green, blue] = pixel;
      else if (Number.isNaN(values[i])) [red, green, blue] = scale.unseen;
      else {
        const at = scale.index(values[i]) * 3;
        red = scale.table[at];
        green = scale.table[at + 1];
        blue = scale.table[at + 2];
      }
      const fade = faded?.[i] ? 0.45 : 0;
      data[out] = red + (paper[0] - red) * fade;
      data[out + 1] = green + (paper[1] - green) * fade;
      data[out + 2] = blue + (paper[2] - blue) * fade;
      data[out + 3] = 255;
    }
  }
  return data;
}

/** The colour of one cell, as `colours` paints it. */
export function colourOf(cells, row, col) {
  const pixel = colours(cells, { top: row, bottom: row + 1, left: col, right: col + 1 });
  return [pixel[0], pixel[1], pixel[2]];
}

/** Which cells of a block are marked, as an image whose alpha is the mark; null where none is. */
export function markedCells(marks, cols, { top, left, bottom, right }) {
  const data = new Uint8ClampedArray((right - left) * (bottom - top) * 4);
  let any = false;
  let out = 3;
  for (let row = top; row < bottom; row++) {
    for (let i = row * cols + left, end = row * cols + right; i < end; i++, out += 4) {
      if (marks[i]) {
        data[out] = 255;
        any = true;
      }
    }
  }
  return any ? data : null;
}

/** Draws an image of one pixel a cell into a rectangle of the canvas, without smoothing. */
export function stretch(context, data, wide, high, x, y, width, height) {
  const small = offscreen(wide, high);
  small.getContext("2d").putImageData(new ImageData(data, wide, high), 0, 0);
  context.imageSmoothingEnabled = false;
  context.drawImage(small, x, y, width, height);
}

/** A small tile of a pattern, painted by `paint(context, size)`, as a fill. */
function pattern(context, size, paint) {
  const tile = offscreen(size, size);
  paint(tile.getContext("2d"), size);
  return context.createPattern(tile, "repeat");
}

/** Diagonal lines on paper: not run yet. */
export function hatching(context, theme) {
  return pattern(context, 6, (tile, size) => {
    tile.fillStyle = PAPER[theme];
    tile.fillRect(0, 0, size, size);
    tile.strokeStyle = SOFT[theme];
    tile.globalAlpha = 0.55;
    tile.lineWidth = 1;
    tile.beginPath();
    for (const shift of [-size, 0, size]) {
      tile.moveTo(shift, size);
      tile.lineTo(shift + size, 0);
    }
    tile.stroke();
  });
}

/** Sparse dots: inside the noise. */
export function dotting(context, theme) {
  return pattern(context, 6, (tile) => {
    tile.fillStyle = SOFT[theme];
    tile.globalAlpha = 0.7;
    tile.fillRect(2, 2, 1, 1);
    tile.fillRect(5, 5, 1, 1);
  });
}

/** Fills the marked cells of a block with a pattern. */
export function fillMarked(context, data, wide, high, x, y, width, height, fill) {
  const ratio = context.getTransform().a;
  const layer = offscreen(Math.round(width * ratio), Math.round(height * ratio));
  const inner = layer.getContext("2d");
  stretch(inner, data, wide, high, 0, 0, layer.width, layer.height);
  inner.globalCompositeOperation = "source-in";
  inner.scale(ratio, ratio);
  inner.fillStyle = fill(inner);
  inner.fillRect(0, 0, width, height);
  context.drawImage(layer, x, y, width, height);
}

/** As much of a text as fits, with an ellipsis where it was cut. */
export function fit(context, text, room) {
  if (context.measureText(text).width <= room) return text;
  let [low, high] = [0, text.length];
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (context.measureText(`${text.slice(0, middle)}…`).width <= room) low = middle;
    else high = middle - 1;
  }
  // Never half of a surrogate pair.
  const end = /[\ud800-\udbff]$/.test(text.slice(0, low)) ? low - 1 : low;
  return end > 0 ? `${text.slice(0, end)}…` : "";
}

/** An outline round a cell that shows on any colour: the ink, and paper just inside it. */
export function outline(context, { x, y, width, height }, colour, theme, weight = 2) {
  const half = weight / 2;
  context.lineWidth = weight;
  context.strokeStyle = colour;
  context.strokeRect(x + half - 1, y + half - 1, Math.max(width - weight + 2, 1), Math.max(height - weight + 2, 1));
  if (width < 10 || height < 10) return;
  context.lineWidth = 1;
  context.strokeStyle = PAPER[theme];
  context.strokeRect(x + weight - 0.5, y + weight - 0.5, width - 2 * weight + 1, height - 2 * weight + 1);
}

