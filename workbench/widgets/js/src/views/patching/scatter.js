/** Estimates against exact values: a small square of points. */
import { html, useLayoutEffect, useMemo, useRef } from "../../html.js";
import { prepare } from "../../draw/paint.js";
import { CHOSEN, LINE, SOFT, expertColour, portion } from "../../draw/scales.js";
import { useSharpness, useTheme } from "../../hooks.js";
import { points, share } from "./grid.js";

const SIZE = 176;
const LEFT = 6;

/** Changes with each cell while there are few, then ever more seldom: nobody sees one point among thousands. */
const seen = (n, left) => (left === 0 || n < 200 ? n : Math.round(40 * Math.log(n)));

/** @param {{ exact: Float32Array, estimate: Float32Array|null, r: number|null, n: number, left: number,
 *   chosen: number|null, version: unknown, why: string|null }} props version: another grid */
export function Scatter({ exact, estimate, r, n, left, chosen, version, why }) {
  const theme = useTheme();
  const canvas = useRef(null);
  const found = useMemo(() => points({ exact, estimate }), [estimate === null, seen(n, left), version]);
  useLayoutEffect(() => paint(canvas.current, found, theme, chosen), [found, theme, chosen, useSharpness()]);
  const said = r === null ? "no correlation yet" : `r = ${portion(r, 2)}`;
  return html`<div class="wb-patching-scatter">
    ${found.count > 0 && html`<canvas ref=${canvas} role="img" aria-label=${`exact share against estimate, ${found.count} cells, ${said}`}></canvas>`}
    ${found.count === 0 ? html`<p class="wb-note">Points come as estimated cells are run.</p>` : html`<p class="wb-note"><span class="wb-strong">${said}</span>${n > 0 && html`<span>${n} cells</span>`}<span>up: exact, across: estimate, both to ±${share(found.limit)}; line: equal</span></p>`}
    ${why && html`<p class="wb-note">No estimates: ${why}</p>`}
  </div>`;
}

function paint(canvas, { points: all, limit }, theme, chosen) {
  if (!canvas) return;
  const context = prepare(canvas, SIZE, SIZE);
  const span = SIZE - 2 * LEFT;
  const x = (value) => LEFT + ((value / limit + 1) / 2) * span;
  const y = (value) => LEFT + ((1 - value / limit) / 2) * span;
  context.strokeStyle = LINE[theme];
  context.lineWidth = 1;
  context.strokeRect(LEFT + 0.5, LEFT + 0.5, span - 1, span - 1);
  const lines = [[-limit, 0, limit, 0], [0, -limit, 0, limit]]; // prettier-ignore
  for (const [x0, y0, x1, y1] of lines) stroke(context, x(x0), y(y0), x(x1), y(y1));
  context.strokeStyle = SOFT[theme];
  context.setLineDash([3, 3]);
  stroke(context, x(-limit), y(-limit), x(limit), y(limit));
  context.setLineDash([]);
  context.fillStyle = expertColour(0, theme);
  context.globalAlpha = all.length > 400 ? 0.4 : 0.75;
  for (const point of all) dot(context, x(point.x), y(point.y), all.length > 400 ? 1.5 : 2.5);
  context.globalAlpha = 1;
  const picked = all.find(({ i }) => i === chosen);
  if (!picked) return;
  context.strokeStyle = CHOSEN[theme];
  context.lineWidth = 2;
  context.beginPath();
  context.arc(x(picked.x), y(picked.y), 5, 0, 7);
  context.stroke();
}

function stroke(context, x0, y0, x1, y1) {
  context.beginPath();
  context.moveTo(x0, y0);
  context.lineTo(x1, y1);
  context.stroke();
}

function dot(context, x, y, radius) {
  if (radius < 2) return context.fillRect(x - radius, y - radius, 2 * radius, 2 * radius);
  context.beginPath();
  context.arc(x, y, radius, 0, 7);
  return context.fill();
}
