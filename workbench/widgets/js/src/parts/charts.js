/** Small charts: before and after, lines over layers, bars. SVG and plain elements, with the numbers written. */
import { QUIET_KEYS, classes, html, useId, useRef, useState } from "../html.js";
import { tickNames, ticks } from "../draw/ranges.js";
import { expertColour, percent, short } from "../draw/scales.js";
import { useSize, useTheme } from "../hooks.js";
import { TokenLabel } from "./tokens.js";

/**
 * Paired bars, before and after: one row for each thing, its numbers beside them.
 * @param {{ items: { key?: unknown, label: string, before: number|null, after: number|null }[], label: string,
 *   max?: number, format?: (value: number) => string, names?: [string, string], onPick?: (item: object) => void,
 *   picked?: unknown }} props before null: only one set of bars
 */
export function Distribution({ items, label, max, format = percent, names = ["before", "after"], onPick, picked }) {
  const paired = items.some((item) => item.before !== null && item.before !== undefined);
  const full = max ?? Math.max(1e-12, ...items.flatMap((item) => [item.before ?? 0, item.after ?? 0]));
  const width = (value) => ({ width: `${Math.max(0, Math.min(1, (value ?? 0) / full)) * 100}%` });
  return html`<table class="wb-distribution" aria-label=${label}>
    <thead><tr>
      <th scope="col">token</th>
      <th scope="col" class="wb-distribution-bars">${paired
        ? html`<span class="wb-bar-key wb-before"></span>${names[0]} <span class="wb-bar-key wb-after"></span>${names[1]}`
        : html`<span class="wb-unseen">share</span>`}</th>
      ${paired && html`<th scope="col" class="wb-right">${names[0]}</th>`}
      <th scope="col" class="wb-right">${paired ? names[1] : "share"}</th>
    </tr></thead>
    <tbody>${items.map(
      (item, i) => html`<tr key=${item.key ?? i} class=${picked !== undefined && picked === item.key ? "wb-picked" : ""}>
        <th scope="row">${onPick
          ? html`<button type="button" class="wb-link" onClick=${() => onPick(item)} ...${QUIET_KEYS}><${TokenLabel} text=${item.label} limit=${24} /></button>`
          : html`<${TokenLabel} text=${item.label} limit=${24} />`}</th>
        <td class="wb-distribution-bars" aria-hidden="true">
          ${paired && html`<span class="wb-bar wb-before" style=${width(item.before)}></span>`}
          <span class="wb-bar wb-after" style=${width(item.after)}></span>
        </td>
        ${paired && html`<td class="wb-right wb-soft">${format(item.before)}</td>`}
        <td class="wb-right">${format(item.after)}</td>
      </tr>`,
    )}</tbody>
  </table>`;
}

const MARGIN = { left: 44, right: 12, top: 10, bottom: 30 };
const DASHES = ["", "5 3", "2 2", "7 2 2 2", "1 3"];

/** The ends of an axis round all values; room for a flat line. */
function span(series, range) {
  if (range) return range;
  let [low, high] = [Infinity, -Infinity];
  for (const { values } of series) {
    for (const value of values) {
      if (Number.isFinite(value)) [low, high] = [Math.min(low, value), Math.max(high, value)];
    }
  }
  if (!(high >= low)) return [0, 1];
  return high === low ? [low - 0.5, high + 0.5] : [low, high];
}

/**
 * Lines over a few hundred points. Left and right arrows move the marker; its numbers are written below the chart.
 * @param {{ series: { name: string, values: ArrayLike<number>, colour?: string }[], label: string, xLabel?: string,
 *   yLabel?: string, xNames?: (string|number)[], range?: [number, number], height?: number, format?: Function,
 *   marked?: number|null, onMark?: (index: number|null) => void, onSelect?: (index: number) => void }} props
 */
export function LineChart(props) {
  const { series, label, xLabel, yLabel, xNames, range, height = 170, format = short, onSelect } = props;
  const theme = useTheme();
  const id = useId();
  const box = useRef(null);
  const width = Math.max(160, useSize(box).width);
  const [own, setOwn] = useState(null);
  const count = Math.max(0, ...series.map(({ values }) => values.length));
  const last = props.marked ?? own;
  const marked = last !== null && last < count ? last : null; // of a longer line, it may be past the end of this one
  const mark = (index) => (setOwn(index), props.onMark?.(index));
  const [low, high] = span(series, range);
  const x = (i) => MARGIN.left + (count > 1 ? i / (count - 1) : 0.5) * (width - MARGIN.left - MARGIN.right);
  const y = (value) => MARGIN.top + (1 - (value - low) / (high - low)) * (height - MARGIN.top - MARGIN.bottom);
  const at = (event) => {
    const { left } = event.currentTarget.getBoundingClientRect();
    const share = (event.clientX - left - MARGIN.left) / (width - MARGIN.left - MARGIN.right);
    return Math.max(0, Math.min(count - 1, Math.round(share * (count - 1))));
  };
  const nameOf = (i) => String(xNames?.[i] ?? i);
  const key = (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1, Home: -count, End: count }[event.key];
    if (by) mark(Math.max(0, Math.min(count - 1, (marked ?? 0) + by)));
    else if (event.key === "Enter" && onSelect && marked !== null) onSelect(marked);
    else return;
    event.preventDefault();
    event.stopPropagation();
  };
  const words = marked === null ? "" : `${xLabel ?? ""} ${nameOf(marked)}: ${series.map((line) => `${line.name} ${format(line.values[marked])}`).join(" · ")}`;
  const colour = (line, i) => line.colour ?? expertColour(i, theme);
  return html`<div class="wb-chart" ref=${box}>
    <svg width=${width} height=${height} role="img" aria-label=${label} aria-describedby=${id} tabindex="0" ...${QUIET_KEYS}
      onPointerMove=${(event) => mark(at(event))} onPointerLeave=${() => mark(null)} onKeyDown=${key}
      onClick=${(event) => onSelect?.(at(event))}>
      <${Axes} ...${{ low, high, x, y, width, height, count, nameOf, format, xLabel, yLabel }} />
      ${series.map((line, i) => html`<path key=${line.name} class="wb-line-path" d=${path(line.values, x, y)}
        stroke=${colour(line, i)} stroke-dasharray=${DASHES[i % DASHES.length]} />`)}
      ${marked !== null && html`<line class="wb-mark-line" x1=${x(marked)} x2=${x(marked)} y1=${MARGIN.top} y2=${height - MARGIN.bottom} />`}
      ${marked !== null && series.map((line, i) => Number.isFinite(line.values[marked]) &&
        html`<circle key=${i} cx=${x(marked)} cy=${y(line.values[marked])} r="3" fill=${colour(line, i)} />`)}
    </svg>
    <div class="wb-chart-foot">
      ${series.length > 1 && html`<span class="wb-key">${series.map((line, i) => html`<span key=${i} class="wb-key-item">
        <svg width="18" height="8" aria-hidden="true"><line x1="0" x2="18" y1="4" y2="4" class="wb-line-path"
          stroke=${colour(line, i)} stroke-dasharray=${DASHES[i % DASHES.length]} /></svg><bdi>${line.name}</bdi></span>`)}</span>`}
      <span class="wb-note" id=${id} aria-live="polite">${words}</span>
    </div>
  </div>`;
}

/** A line with a gap at each NaN. */
function path(values, x, y) {
  let made = "";
  let pen = "M";
  for (let i = 0; i < values.length; i++) {
    if (!Number.isFinite(values[i])) pen = "M";
    else {
      made += `${pen}${x(i).toFixed(1)} ${y(values[i]).toFixed(1)}`;
      pen = "L";
    }
  }
  return made;
}

function Axes({ low, high, x, y, width, height, count, nameOf, format, xLabel, yLabel }) {
  const bottom = height - MARGIN.bottom;
  const step = Math.max(1, Math.ceil(count / Math.max(1, Math.floor((width - MARGIN.left) / 34))));
  const across = Array.from({ length: Math.ceil(count / step) }, (_, i) => i * step);
  const up = ticks(low, high, 4);
  const names = tickNames(up, format);
  return html`<g aria-hidden="true">
    ${up.map((value, i) => html`<g key=${value}>
      <line class="wb-grid-line" x1=${MARGIN.left} x2=${width - MARGIN.right} y1=${y(value)} y2=${y(value)} />
      <text class="wb-tick" x=${MARGIN.left - 5} y=${y(value)} dy="0.32em" text-anchor="end">${names[i]}</text></g>`)}
    ${across.map((i) => html`<text key=${i} class="wb-tick" x=${x(i)} y=${bottom + 12} text-anchor="middle">${nameOf(i)}</text>`)}
    ${xLabel && html`<text class="wb-tick" x=${(MARGIN.left + width - MARGIN.right) / 2} y=${height - 4} text-anchor="middle">${xLabel}</text>`}
    ${yLabel && html`<text class="wb-tick" x="10" y=${(MARGIN.top + bottom) / 2} text-anchor="middle"
      transform=${`rotate(-90 10 ${(MARGIN.top + bottom) / 2})`}>${yLabel}</text>`}
  </g>`;
}

/**
 * Upright bars, one for each number, up to about 130. Buttons where `onSelect` is given.
 * @param {{ values: ArrayLike<number>, label: string, names?: (string|number)[], colour?: (i: number) => string,
 *   height?: number, max?: number, line?: number, format?: Function, selected?: number|null, hovered?: number|null,
 *   onSelect?: (i: number) => void, onHover?: (i: number|null) => void }} props line: a dotted level, as of an even share
 */
export function Bars(props) {
  const { values, label, names, colour, height = 90, line, format = short, selected, hovered, onSelect, onHover } = props;
  const theme = useTheme();
  const group = useRef(null);
  const list = Array.from(values);
  const max = props.max ?? Math.max(1e-12, line ?? 0, ...list.filter(Number.isFinite));
  const nameOf = (i) => String(names?.[i] ?? i);
  const shown = (i) => list.length <= 16 || i % (list.length <= 40 ? 4 : 8) === 0 || i === selected;
  const key = (event) => {
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!by || !onSelect) return;
    const at = [...group.current.querySelectorAll(".wb-column")].indexOf(event.target);
    group.current.querySelectorAll(".wb-column")[(at + by + list.length) % list.length]?.focus();
    event.preventDefault();
    event.stopPropagation();
  };
  const Column = onSelect ? "button" : "span";
  const focusable = (i) => (onSelect ? { type: "button", tabindex: i === (selected ?? 0) ? 0 : -1, ...QUIET_KEYS } : { role: "img" });
  return html`<div class="wb-columns" role="group" aria-label=${label} ref=${group} onKeyDown=${key}
    onPointerLeave=${() => onHover?.(null)} style=${{ height: `${height + 16}px` }}>
    ${line !== undefined && html`<span class="wb-columns-line" style=${{ bottom: `${16 + (line / max) * height}px` }}></span>`}
    ${list.map((value, i) => html`<${Column} key=${i} ...${focusable(i)} title=${`${nameOf(i)}: ${format(value)}`}
      class=${classes("wb-column", i === selected && "wb-selected", i === hovered && "wb-hovered")}
      aria-label=${`${nameOf(i)}: ${format(value)}`} aria-pressed=${onSelect ? String(i === selected) : undefined}
      onClick=${onSelect ? () => onSelect(i) : undefined} onPointerEnter=${() => onHover?.(i)}>
      <span class="wb-column-bar" style=${{ height: `${Math.max(0, (value || 0) / max) * height}px`, background: colour?.(i) ?? expertColour(0, theme) }}></span>
      <span class="wb-column-name">${shown(i) ? nameOf(i) : ""}</span>
    </${Column}>`)}
  </div>`;
}
