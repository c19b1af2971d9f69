/** All components at a glance: layers down, heads or experts across, in the colours of the column that is sorted by. */
import { html, useMemo, useRef } from "../../html.js";
import { diverging, sequential, short } from "../../draw/scales.js";
import { useTheme } from "../../hooks.js";
import { Key, Legend, Matrix, Panel } from "../../parts/index.js";
import { isNoise, largestOf, missing, partName, sideTitle, valueOf, written } from "./table.js";

/** @param {{ bench: object, data: object, column: { metric: object, side: string }, selected: object|null, hovered: object|null, onSelect: Function, onHover: Function }} props */
export function Overview({ data, column, sortedBy, selected, hovered, onSelect, onHover, stale }) {
  const theme = useTheme();
  const { json, arrays } = data;
  const { metric, side } = column;
  const { layers, count, kind } = json;
  const array = arrays[metric.key];
  const handle = useRef(null);
  const scale = useMemo(() => {
    const limit = largestOf(array);
    return metric.signed || side === "difference" ? diverging(theme, limit) : sequential(theme, 0, limit);
  }, [array, metric.signed, side, theme]);
  const { values, hatch, grey } = useMemo(() => {
    const made = { values: new Float32Array(layers * count), hatch: new Uint8Array(layers * count), grey: new Uint8Array(layers * count) };
    for (let i = 0; i < layers * count; i++) {
      made.values[i] = valueOf(array, side, i);
      made.hatch[i] = Number.isNaN(made.values[i]) && missing(data, metric.key, side, i) === "not run yet" ? 1 : 0;
      made.grey[i] = isNoise(json, metric.key, side, made.values[i]) ? 1 : 0;
    }
    return made;
  }, [data, array, side]);
  const letter = kind === "expert" ? "E" : "H";
  const labels = useMemo(() => [Array.from({ length: layers }, (_, i) => `L${i}`), Array.from({ length: count }, (_, i) => `${letter}${i}`)], [layers, count, letter]);
  const words = (row, col) => {
    const x = valueOf(array, side, row * count + col);
    const said = Number.isFinite(x) ? `${written(x, metric.signed, short)} ${metric.unit}` : missing(data, metric.key, side, row * count + col);
    return `${partName(kind, row, col)}\n${metric.title}${json.sides.length > 1 ? `, ${sideTitle(json.sides, side)}` : ""}: ${said}${
      isNoise(json, metric.key, side, x) ? "\nwithin the noise floor" : ""}`;
  };
  const title = `${metric.title}${json.sides.length > 1 ? `, ${sideTitle(json.sides, side)}` : ""}`;
  return html`<${Panel} title="Overview" note=${`${title}, ${sortedBy ? "as the table is sorted" : "until the table is sorted by a number"}`}
    tools=${html`<${Legend} scale=${scale} title=${metric.unit} width=${110} />
      ${hatch.includes(1) || grey.includes(1) ? html`<${Key} items=${[...(hatch.includes(1) ? [{ name: "not run yet", kind: "hatch" }] : []), ...(grey.includes(1) ? [{ name: "noise", kind: "noise" }] : [])]} />` : null}`}>
    <${Matrix} rows=${layers} cols=${count} values=${values} colour=${scale} hatch=${hatch} grey=${grey} rowLabels=${labels[0]} colLabels=${labels[1]}
      describe=${words} label=${`${title} of every ${kind}, layer by layer`} cell=${{ width: "fit", height: layers > 12 ? 9 : 16 }} minCell=${7} maxCell=${110} maxHeight=${240}
      selected=${selected} hovered=${hovered} onSelect=${onSelect} onHover=${onHover} handle=${handle} dim=${stale} />
  </${Panel}>`;
} // prettier-ignore
