/** The table of components: every number left, difference and right, tinted by the largest of its kind. */
import { classes, html, useMemo } from "../../html.js";
import { NOISE, diverging, rgb, sequential, short } from "../../draw/scales.js";
import { useTheme } from "../../hooks.js";
import { Button, Check, SortableTable } from "../../parts/index.js";
import { isNoise, largestOf, missing, sideTitle, valueOf, written } from "./table.js";

const NAME = { head: 68, expert: 68, layer: 52, sink: 96 };
const [PICK, OUT] = [30, 66];
const shorter = (value) => short(value, 2);

/** @param {{ data: object, metrics: object[], sides: string[], rows: object[], chosen: Set<number>, out: Map<number, object>,
 *   sort: object, selected: number|null, onSort: Function, onPick: Function, onToggle: Function, onSelect: Function, onHover: Function }} props */
export function Components(props) {
  const { data, metrics, sides, rows, chosen, out, sort, selected, onSort, onPick, onToggle, onSelect, onHover, hovered } = props;
  const theme = useTheme();
  const { json } = data;
  const columns = useMemo(
    () => [...fixed({ json, chosen, out, onPick, onToggle, hovered }), ...metrics.flatMap((metric) => group({ data, metric, sides, theme }))],
    [data, metrics, sides, theme, chosen, out, onPick, onToggle, hovered],
  );
  const key = (event, row) => {
    const act = { x: onPick, o: onToggle }[event.key];
    if (!act || event.ctrlKey) return false;
    act(row);
    return true;
  };
  return html`<div class="wb-ablation-table">
    <${Groups} ...${{ json, metrics, sides, data }} />
    <${SortableTable} columns=${columns} rows=${rows} rowKey=${(row) => row.i} sort=${sort} onSort=${onSort} selected=${selected}
      onSelect=${onSelect} onHover=${onHover} onKey=${key} maxHeight=${360}
      label=${`every ${json.kind}: activation, write norm, direct effect, total effect. X chooses a row for the group, O takes it out or puts it back`} />
    <p class="wb-note wb-ablation-foot"><span>tint: share of the largest number of its group</span><span>keys: ↑ ↓ move, Enter selects, X chooses for the group, O takes out or puts back</span></p>
  </div>`;
}

/** The grid of the heads above the columns, the same as the table's own. */
function Groups({ json, metrics, sides, data }) {
  const template = [`${PICK}px`, `${NAME[json.kind]}px`, `${OUT}px`, ...metrics.map(() => `minmax(${sides.length * 58}px, ${sides.length}fr)`)].join(" ");
  return html`<div class="wb-ablation-groups" style=${{ gridTemplateColumns: template }} aria-hidden="true">
    <span></span><span></span><span></span>
    ${metrics.map((metric) => html`<span key=${metric.key} class="wb-ablation-group" title=${metric.hint}>
      <span class="wb-strong">${metric.title}</span><span class="wb-note"> ${metric.unit} · ${data.arrays[metric.key].some(Number.isFinite) ? `up to ${short(largestOf(data.arrays[metric.key]), 2)}` : "not run yet"}</span>
    </span>`)}
  </div>`;
}

function fixed({ json, chosen, out, onPick, onToggle, hovered }) {
  const stop = (event) => event.stopPropagation();
  return [
    { key: "pick", title: "", width: `${PICK}px`, sortable: false,
      cell: (row) => html`<span class="wb-ablation-pick" onClick=${stop}><${Check} label=${`${row.name} is in the group`} hideLabel tabindex="-1"
        checked=${chosen.has(row.i)} onChange=${() => onPick(row)} /></span>` },
    { key: "part", title: json.kind === "sink" ? "sink of" : json.kind, width: `${NAME[json.kind]}px`, value: (row) => row.i,
      cell: (row) => html`<span class=${classes("wb-ablation-name", out.get(row.i)?.on && "wb-ablation-out", row.i === hovered && "wb-ablation-hovered")}>${row.name}</span>` },
    { key: "out", title: "Bench", hint: "take a component out on the Bench, or put it back", width: `${OUT}px`, sortable: false,
      cell: (row) => html`<span onClick=${stop}><${Button} kind="quiet" class="wb-ablation-toggle" tabindex="-1" pressed=${out.has(row.i)}
        title=${out.has(row.i) ? `put ${row.name} back` : `take ${row.name} out`} onClick=${() => onToggle(row)}>${
        out.has(row.i) ? (out.get(row.i).on ? "out ⊘" : "off ◌") : "take out"}</${Button}></span>` },
  ];
} // prettier-ignore

/** The columns of one metric. */
function group({ data, metric, sides, theme }) {
  const { json, arrays } = data;
  const array = arrays[metric.key];
  const limit = largestOf(array);
  const apart = diverging(theme, limit);
  const plain = metric.signed ? apart : sequential(theme, 0, limit);
  const noise = rgb(NOISE[theme]);
  return sides.map((side, at) => {
    const scale = side === "difference" ? apart : plain;
    const signed = metric.signed || side === "difference";
    const value = (row) => valueOf(array, side, row.i);
    const title = sides.length === 1 && json.sides.length === 1 ? metric.title : side === "difference" ? "diff." : sideTitle(json.sides, side);
    return {
      key: `${metric.key}.${side}`, title, align: "right", width: "minmax(58px, 1fr)", value,
      hint: `${metric.title}, ${metric.unit}: ${metric.hint}${side === "difference" ? `; difference: ${json.sides[1].title} − ${json.sides[0].title}` : ""}`,
      fill: (row) => {
        const x = value(row);
        return Number.isFinite(x) ? (isNoise(json, metric.key, side, x) ? noise : scale.rgb(x)) : null;
      },
      cell: (row) => {
        const x = value(row);
        if (!Number.isFinite(x)) return html`<span class="wb-soft" title=${missing(data, metric.key, side, row.i)}>·</span>`;
        const near = isNoise(json, metric.key, side, x);
        return html`<span class=${at === 0 && "wb-ablation-first"} title=${near ? "no larger than random moves of the stream" : undefined}>${near ? "≈ " : ""}${written(x, signed, near ? shorter : short)}</span>`;
      },
    };
  });
} // prettier-ignore
