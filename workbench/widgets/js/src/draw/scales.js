/** Colours: the same as in workbench/figures/style.py on light paper, and their twins on dark paper. */

/** @typedef {[number, number, number]} RGB red, green and blue, 0 to 255 */
/** @typedef {"light"|"dark"} Theme */

const STEPS = 256;

export const INK = { light: "#1f2933", dark: "#e3e7ec" };
export const SOFT = { light: "#616b78", dark: "#9aa5b1" };
export const LINE = { light: "#d9dde3", dark: "#333b45" };
export const PAPER = { light: "#ffffff", dark: "#14181d" };
export const UNSEEN = { light: "#f1f3f5", dark: "#20262d" };
/** Cells whose value is smaller than the noise. */
export const NOISE = { light: "#dfe3e8", dark: "#3a424c" };
/** The outline of what is selected, and of what the mouse is on. */
export const CHOSEN = { light: "#1f2933", dark: "#ffffff" };
export const HOVERED = { light: "#e08a00", dark: "#f0ab45" };

const EXPERTS = {
  light: ["#0072b2", "#e08a00", "#00855f", "#b8578f", "#56b4e9", "#c44e00", "#e8d437", "#4b4b9f", "#7fb069", "#8c564b", "#7a828e", "#c9b6e4"],
  dark: ["#2a8fcb", "#e59a24", "#1f9e77", "#c8709f", "#7cc4ee", "#dc6a20", "#e8d437", "#7f7fd6", "#8fc07a", "#b07a6d", "#98a1ad", "#c9b6e4"],
};
const ROLES = {
  light: {
    system: "#7a828e", developer: "#6a51a3", user: "#0072b2", assistant: "#00855f", "assistant/analysis": "#e08a00",
    "assistant/commentary": "#b8578f", "assistant/final": "#00855f", tool: "#c44e00",
  },
  dark: {
    system: "#98a1ad", developer: "#a896dd", user: "#4ba3dd", assistant: "#34b78f", "assistant/analysis": "#f0ab45",
    "assistant/commentary": "#dd8fbb", "assistant/final": "#34b78f", tool: "#f0834a",
  },
};
const SEQUENTIAL = {
  light: ["#ffffff", "#e3eef8", "#bad6ec", "#84b6dc", "#4f92c7", "#24679f"],
  dark: ["#191e24", "#1b3248", "#1f5178", "#3279ad", "#6aa9d8", "#c6e1f5"],
};
const DIVERGING = {
  light: ["#24679f", "#69a4d1", "#c3dcee", "#ffffff", "#f8cfae", "#e28743", "#a8501b"],
  dark: ["#a5d0f0", "#4f97cf", "#234b69", "#191e24", "#64391d", "#cf7838", "#f8c79b"],
};

/** "#rrggbb" → [r, g, b]. @returns {RGB} */
export function rgb(/** @type {string} */ hex) {
  const number = Number.parseInt(hex.slice(1), 16);
  return [number >> 16, (number >> 8) & 255, number & 255];
}

/** [r, g, b] → "rgb(r, g, b)". */
export const css = ([red, green, blue]) => `rgb(${Math.round(red)}, ${Math.round(green)}, ${Math.round(blue)})`;

/** A colour between two; share 0 is the first. @returns {RGB} */
export function mix(/** @type {RGB} */ a, /** @type {RGB} */ b, /** @type {number} */ share) {
  return [0, 1, 2].map((i) => a[i] + (b[i] - a[i]) * share);
}

/** A colour laid thinly on the theme's paper; strength 1 is the colour itself. @returns {RGB} */
export function tint(colour, strength, theme) {
  return mix(rgb(PAPER[theme]), typeof colour === "string" ? rgb(colour) : colour, strength);
}

/** Relative luminance, 0 black to 1 white (WCAG 2.2). */
export function luminance(/** @type {RGB} */ colour) {
  const [red, green, blue] = colour.map((part) => {
    const share = part / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}

/** The contrast of two colours, 1 to 21. */
export function contrast(a, b) {
  const [low, high] = [luminance(a), luminance(b)].sort((x, y) => x - y);
  return (high + 0.05) / (low + 0.05);
}

const READABLE = 4.5; // contrast that WCAG 2.2 asks of text this small

/** Text that reads on a colour: our ink, white, or, on the mid tones between them, black. */
export function inkOn(/** @type {RGB} */ colour) {
  if (contrast(colour, rgb(INK.light)) >= READABLE) return INK.light;
  return contrast(colour, [255, 255, 255]) >= READABLE ? "#ffffff" : "#000000";
}

/** Evenly spaced colours, blended, as 256 steps of red, green, blue. */
function table(stops) {
  const colours = stops.map(rgb);
  const steps = new Uint8Array(STEPS * 3);
  for (let i = 0; i < STEPS; i++) {
    const at = (i / (STEPS - 1)) * (colours.length - 1);
    const from = Math.min(Math.floor(at), colours.length - 2);
    steps.set(mix(colours[from], colours[from + 1], at - from).map(Math.round), i * 3);
  }
  return steps;
}

const TABLES = new Map();

/** The table of a named scale, made once. */
function tableOf(stops) {
  const key = stops.join();
  if (!TABLES.has(key)) TABLES.set(key, table(stops));
  return TABLES.get(key);
}

/**
 * A colour scale over [low, high]. Values outside take the end colours, NaN the colour of "nothing there".
 * @typedef {{ low: number, high: number, kind: string, stops: string[], theme: Theme, table: Uint8Array, unseen: RGB,
 *   index(value: number): number, rgb(value: number): RGB, css(value: number): string }} Scale
 * @returns {Scale}
 */
export function scaleOf(stops, low, high, theme, kind = "sequential") {
  const steps = tableOf(stops);
  const span = high - low || 1;
  const unseen = rgb(UNSEEN[theme]);
  const index = (value) => Math.max(0, Math.min(STEPS - 1, Math.round(((value - low) / span) * (STEPS - 1))));
  const colour = (value) => {
    if (Number.isNaN(value) || value === null || value === undefined) return unseen;
    const at = index(value) * 3;
    return [steps[at], steps[at + 1], steps[at + 2]];
  };
  return { low, high, kind, stops, theme, table: steps, unseen, index, rgb: colour, css: (value) => css(colour(value)) };
}

/** From paper to deep blue (light paper), from paper to pale blue (dark paper). */
export const sequential = (theme, low = 0, high = 1) => scaleOf(SEQUENTIAL[theme], low, high, theme);

/** Blue below zero, orange above it; symmetric. */
export const diverging = (theme, limit = 1) => scaleOf(DIVERGING[theme], -limit, limit, theme, "diverging");

/** From paper to one colour, as of one head or expert. */
export const hued = (colour, theme, low = 0, high = 1) => scaleOf([PAPER[theme], colour], low, high, theme);

/** The scale that Python names: { kind, low, high }. */
export function scaleFor({ kind, low, high }, theme) {
  if (kind !== "diverging") return sequential(theme, low, high);
  return diverging(theme, Math.max(Math.abs(low), Math.abs(high)) || 1);
}

/** "#rrggbb" of a role and channel ("user", "assistant/analysis"); grey for one that we do not know. */
export function roleColour(/** @type {string} */ name, /** @type {Theme} */ theme = "light") {
  return ROLES[theme][name] ?? ROLES[theme][name.split("/")[0]] ?? ROLES[theme].system;
}

/** "#rrggbb" of an expert's or a head's number. There are twelve: always write the number too. */
export function expertColour(/** @type {number} */ number, /** @type {Theme} */ theme = "light") {
  return EXPERTS[theme][number % EXPERTS[theme].length];
}

/** A symmetric limit for a diverging scale that a few outliers do not stretch: the 99th percentile of |value|. */
export function robustLimit(values, share = 0.99) {
  const sizes = Float64Array.from(values, Math.abs).filter(Number.isFinite).sort();
  return sizes.length ? sizes[Math.min(sizes.length - 1, Math.floor(share * sizes.length))] || sizes.at(-1) || 1 : 1;
}

/** A number in few characters: 0.123, 12.3, 1.2e-5; "none" for NaN. */
export function short(value, digits = 3) {
  if (value === null || value === undefined || Number.isNaN(value)) return "none";
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  const size = Math.abs(value);
  const text = size !== 0 && (size < 1e-3 || size >= 1e6) ? value.toExponential(1) : String(Number(value.toPrecision(digits)));
  return text.replace("-", "−").replace("e−", "e-");
}

/**
 * A share or a weight with as many figures after the point in every row. One that is not 0 does not read as 0, nor one
 * short of 1 as 1: "<0.001", ">0.999".
 */
export function portion(value, digits = 3) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "none";
  const [size, sign] = [Math.abs(value), value < 0 ? "−" : ""];
  const [text, least] = [size.toFixed(digits), (10 ** -digits).toFixed(digits)];
  if (size > 0 && Number(text) === 0) return sign ? `>−${least}` : `<${least}`;
  if (size < 1 && Number(text) === 1) return `${sign ? "<−" : ">"}${(1 - 10 ** -digits).toFixed(digits)}`;
  return `${sign}${text}`;
}

/** A share as a percentage in few characters: 12.3%, 0.04%; one short of the whole is never 100%. */
export function percent(share) {
  if (share === null || share === undefined || Number.isNaN(share)) return "none";
  const value = share * 100;
  if (value !== 0 && Math.abs(value) < 0.01) return value < 0 ? "> −0.01%" : "< 0.01%";
  const short = Number(value.toPrecision(Math.abs(value) >= 99.95 ? 4 : 3));
  if (Math.abs(short) === 100 && Math.abs(value) < 100) return value < 0 ? "< −99.99%" : "> 99.99%";
  return `${short}%`.replace("-", "−");
}
