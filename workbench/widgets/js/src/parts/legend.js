/** What colours, hatches and dots mean. */
import { html, useRef, useLayoutEffect } from "../html.js";
import { dotting, hatching, prepare } from "../draw/paint.js";
import { NOISE, short } from "../draw/scales.js";
import { useSharpness, useTheme } from "../hooks.js";

/** @param {{ scale: import("../draw/scales.js").Scale, title: string, hideTitle?: boolean, format?: (value: number) => string, marks?: number[] }} props */
export function Legend({ scale, title, hideTitle = false, format = short, width = 120, marks }) {
  const steps = Array.from({ length: 12 }, (_, i) => scale.css(scale.low + ((scale.high - scale.low) * i) / 11));
  const shown = marks ?? (scale.kind === "diverging" ? [scale.low, 0, scale.high] : [scale.low, scale.high]);
  return html`<span class="wb-legend" role="img" aria-label=${`colour scale, ${title}: from ${format(scale.low)} to ${format(scale.high)}`}>
    ${!hideTitle && html`<span class="wb-label">${title}</span>`}
    <span class="wb-legend-bar" style=${{ width: `${width}px` }}>
      ${steps.map((colour, i) => html`<span key=${i} style=${{ background: colour }}></span>`)}
    </span>
    <span class="wb-legend-marks" style=${{ width: `${width}px` }}>
      ${shown.map((value, i) => html`<span key=${i}>${format(value)}</span>`)}
    </span>
  </span>`;
}

/** A small square of a pattern. */
function Tile({ kind }) {
  const theme = useTheme();
  const canvas = useRef(null);
  useLayoutEffect(() => {
    const context = prepare(canvas.current, 14, 12);
    context.fillStyle = NOISE[theme];
    context.fillRect(0, 0, 14, 12);
    context.fillStyle = (kind === "hatch" ? hatching : dotting)(context, theme);
    context.fillRect(0, 0, 14, 12);
  }, [kind, theme, useSharpness()]);
  return html`<canvas class="wb-tile" ref=${canvas} aria-hidden="true"></canvas>`;
}

/** Named colours and patterns: { name, colour } or { name, kind: "hatch"|"noise" } each. */
export function Key({ items }) {
  return html`<span class="wb-key">
    ${items.map(
      ({ name, colour, kind }) => html`<span key=${name} class="wb-key-item">
        ${kind ? html`<${Tile} kind=${kind} />` : html`<span class="wb-swatch" style=${{ background: colour }}></span>`}${name}
      </span>`,
    )}
  </span>`;
}
