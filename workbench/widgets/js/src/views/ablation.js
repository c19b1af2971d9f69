/** The ablation bench: what every head, expert, layer or sink does, and what happens without it. */
import "./ablation.css";
import { html, useMemo, useRef, useState } from "../html.js";
import { short } from "../draw/scales.js";
import { useData, useOption, useSize, useStream } from "../hooks.js";
import { Button, JobBar, Ready, Segmented, Select, TokenLabel } from "../parts/index.js";
import { sorted } from "../parts/table.js";
import { Components } from "./ablation/components.js";
import { Group } from "./ablation/group.js";
import { Overview } from "./ablation/overview.js";
import { COMPARE_WORDS, FROM_A_SOURCE, KINDS, POLICY_WORDS, metricsOf, newest, overviewColumn, rowsOf, sideTitle, sidesShown, valueOf, withPart, written } from "./ablation/table.js";

const VIEW = "ablation";
const WIDE = 900;
const FIRSTS = 5;

/** What is asked about, as Python takes it: so that an answer never belongs to older choices. */
function useAsk(bench) {
  const [parts] = useOption(bench, VIEW, "kind", "head");
  const [policy] = useOption(bench, VIEW, "policy", null);
  const [source] = useOption(bench, VIEW, "source", null);
  const [compare] = useOption(bench, VIEW, "compare", null);
  const [over] = useOption(bench, VIEW, "over", "token");
  const { position, span } = bench.selection.value;
  const at = over === "mean" ? null : span ? span[1] - 1 : position;
  return useMemo(() => ({ parts, policy, source, compare, over, position: at }), [parts, policy, source, compare, over, at]);
}

/** @param {{ bench: import("../store.js").Bench }} props */
function View({ bench }) {
  const ask = useAsk(bench);
  const got = useData(bench, VIEW, { what: "table", ...ask }, { slot: "table" });
  const [live, setLive] = useState(null);
  const [streamed, setStreamed] = useState(null);
  useStream(bench, VIEW, (key, json, arrays) => (key === "totals" ? setLive({ json, arrays }) : key === "group" && setStreamed(json)));
  const data = useMemo(() => got.data && newest(got.data, live), [got.data, live]);
  return html`<div class="wb-ablation">
    <${Controls} bench=${bench} json=${data?.json} ask=${ask} />
    <${JobBar} bench=${bench} view=${VIEW} />
    <${Ready} got=${got} height=${320}>${() => html`<${Whole} ...${{ bench, data, ask, streamed }} stale=${got.stale} />`}</${Ready}>
  </div>`;
}

/** The choices above the table. */
function Controls({ bench, json, ask }) {
  const set = (values) => bench.option(VIEW, values);
  const [measure, setMeasure] = useOption(bench, VIEW, "measure", "logits");
  const [sort] = useOption(bench, VIEW, "sort", "part");
  const busy = useBusy(bench);
  const left = json ? json.left.reduce((sum, n) => sum + n, 0) : 0;
  const change = (fresh) => {
    // The table stays sorted by the total effect, in its other unit.
    const [key, side] = sort.split(".");
    if (key === "effect" || key === "kl") set({ measure: fresh, sort: `${fresh === "kl" ? "kl" : "effect"}.${side}` });
    else setMeasure(fresh);
  };
  const run = () => bench.act(VIEW, { kind: "run", ...ask }).catch(() => {});
  const compares = (json?.compares ?? []).map((name) => [name, COMPARE_WORDS[name]]);
  return html`<div class="wb-bar-line">
      <${Segmented} label="Components" hideLabel value=${ask.parts} options=${KINDS} onChange=${(kind) => set({ kind, policy: null, group: [] })} />
      <${Select} label="Take out by" value=${json?.policy ?? ""} options=${(json?.policies ?? []).map((name) => [name, POLICY_WORDS[name]])} onChange=${(policy) => set({ policy })} />
      ${FROM_A_SOURCE.includes(json?.policy) && html`<${Select} label="of" value=${json.source} options=${json.sources} onChange=${(source) => set({ source })} />`}
      <span class="wb-tools"><${Button} kind="primary" disabled=${busy || !left} onClick=${run} title="the total effect of each, the largest direct effects first">${
        left || !json ? `Run ${left} ablations` : "All are run"}</${Button}></span>
    </div>
    <div class="wb-bar-line">
      ${compares.length > 1 && html`<${Select} label="Compare" value=${json.compare} options=${compares} onChange=${(compare) => set({ compare })} />`}
      <${Segmented} label="Activation and norm" value=${ask.over} options=${[["token", "at the token"], ["mean", "mean of the text"]]} onChange=${(over) => set({ over })} />
      <${Segmented} label="Total effect" value=${measure} options=${[["logits", "logits"], ["kl", "KL"]]} onChange=${change} />
    </div>`;
} // prettier-ignore

/** Whether a job of this view is under way. */
function useBusy(bench) {
  return bench.jobs.value.some((job) => job.view === VIEW && (job.state === "running" || job.state === "queued"));
}

/** What is measured, where, and how it stands unablated. */
function Said({ json }) {
  const { answer, sides, floor } = json;
  const known = sides.filter((_, i) => floor[i] !== null && floor[i] !== undefined);
  return html`<p class="wb-note wb-ablation-said">
    <span>Effects: logit <${TokenLabel} text=${answer.right} /> − logit <${TokenLabel} text=${answer.wrong} /> after the text${answer.given ? "" : " (the two likeliest; the answer field changes them)"}</span>
    <span>now ${sides.map((side, i) => html`${i ? ", " : ""}<bdi>${side.title}</bdi> ${written(side.metric, true, short)}`)}</span>
    ${json.position !== null && html`<span>activation and norm at token ${json.position} <${TokenLabel} text=${json.token} /></span>`}
    ${known.length > 0 && html`<span>≈ within the noise floor, the largest of 20 random moves of the stream that are as long as components' own: ${
      known.map((side, i) => html`${i ? ", " : ""}<bdi>${side.title}</bdi> ±${short(floor[sides.indexOf(side)])}`)}</span>`}
  </p>`;
} // prettier-ignore

function Whole({ bench, data, ask, streamed, stale }) {
  const { json, arrays } = data;
  const [measure] = useOption(bench, VIEW, "measure", "logits");
  const [sort] = useOption(bench, VIEW, "sort", "part");
  const [down] = useOption(bench, VIEW, "down", false);
  const [only, setOnly] = useState("difference");
  const box = useRef(null);
  const narrow = useSize(box).width < WIDE;
  const sides = useMemo(() => sidesShown(json.sides.length, narrow ? only : null), [json.sides.length, narrow, only]);
  const metrics = useMemo(() => metricsOf(json, measure), [json, measure]);
  // Rows are sorted anew when the numbers change that they are sorted by.
  const rows = useMemo(() => rowsOf(json), [json.kind, json.layers, json.count, sort.startsWith("part") ? null : arrays[sort.split(".")[0]]]);
  const chips = useChips(bench, json);
  const acts = useActs(bench, json, ask);
  const [group] = useOption(bench, VIEW, "group", []);
  const chosen = useMemo(() => new Set(group.map(([layer, index]) => layer * json.count + index)), [group, json.count]);
  const found = useGroup(bench, ask, group, streamed);
  const place = placeOf(bench.selection.value, json.kind);
  const hover = placeOf(bench.hover.value, json.kind);
  const spot = (at) => (at && at.layer < json.layers && at.index < json.count ? { row: at.layer, col: at.index } : null);
  const flat = (at) => (at ? at.row * json.count + at.col : null);
  const column = overviewColumn(sort, metrics, sides, arrays);
  const firsts = () => {
    const by = sort.split(".");
    const made = by.length > 1 ? { value: (row) => valueOf(arrays[by[0]], by[1], row.i) } : { value: (row) => row.i };
    bench.option(VIEW, { group: sorted(rows, made, down).slice(0, FIRSTS).map((row) => [row.layer, row.index]) });
  };
  return html`<div class="wb-ablation-whole" ref=${box}>
    <${Said} json=${json} />
    ${json.kind !== "layer" && html`<${Overview} ...${{ data, column, stale }} sortedBy=${sort === `${column.metric.key}.${column.side}`} selected=${spot(place)} hovered=${spot(hover)}
      onSelect=${(layer, index) => acts.select({ layer, index })} onHover=${(layer, index) => acts.hover(layer === null ? null : { layer, index })} />`}
    ${narrow && json.sides.length > 1 && html`<${Segmented} label="Show" value=${only} onChange=${setOnly}
      options=${["left", "difference", "right"].map((side) => [side, sideTitle(json.sides, side)])} />`}
    <${Components} ...${{ data, metrics, sides, rows, chosen, stale }} out=${chips} sort=${{ key: sort, down }} onSort=${acts.sort} onPick=${acts.pick} onToggle=${acts.toggle}
      onSelect=${acts.select} onHover=${acts.hover} selected=${flat(spot(place))} hovered=${flat(spot(hover))} />
    <${Group} ...${{ json, group, found }} busy=${useBusy(bench)} onRun=${acts.knockOut} onAdd=${acts.addGroup} onClear=${() => bench.option(VIEW, { group: [] })}
      onDrop=${(layer, index) => acts.pick({ layer, index })} onFirst=${firsts} firsts=${Math.min(FIRSTS, rows.length)} />
  </div>`;
} // prettier-ignore

/** The component that a selection or the mouse is on; null where it is none of this kind. */
function placeOf(at, kind) {
  if (at?.layer === null || at?.layer === undefined) return null;
  if (kind === "layer") return { layer: at.layer, index: 0 };
  const index = kind === "expert" ? at.expert : at.head;
  return index === null || index === undefined ? null : { layer: at.layer, index };
}

/** The chips on the Bench that take a component of this kind out: row → chip. */
function useChips(bench, json) {
  const said = bench.state.value.chips.map(({ id, on }) => `${id}${on ? "+" : "-"}`).join(" ");
  const got = useData(bench, VIEW, { what: "chips", said }, { slot: "chips" });
  const chips = got.data?.json.chips;
  return useMemo(
    () => new Map((chips ?? []).filter((chip) => chip.kind === json.kind).map((chip) => [chip.layer * json.count + chip.index, chip])),
    [chips, json.kind, json.count],
  );
}

/** What is known of the chosen rows together: asked, and streamed since. */
function useGroup(bench, ask, group, streamed) {
  const got = useData(bench, VIEW, group.length ? { what: "group", ...ask, group } : null, { slot: "group" });
  const json = got.data?.json;
  const mine = streamed && json && streamed.key === json.key && String(streamed.group) === String(json.group);
  return mine ? streamed : json;
}

/** What the mouse and the keys do. */
function useActs(bench, json, ask) {
  const latest = useRef(null);
  latest.current = { json, ask };
  return useMemo(() => {
    const send = (action) => bench.act(VIEW, { ...latest.current.ask, ...action }).catch(() => {});
    const fields = ({ layer, index }) => {
      const { kind } = latest.current.json;
      return kind === "layer" ? { layer, head: null, expert: null } : { layer, [kind === "expert" ? "expert" : "head"]: index };
    };
    const group = () => bench.state.peek().options[VIEW].group;
    return {
      select: (row) => bench.select(fields(row)),
      hover: (row) => (bench.hover.value = row ? fields(row) : null),
      toggle: (row) => send({ kind: "toggle", layer: row.layer, index: row.index }),
      pick: (row) => bench.option(VIEW, { group: withPart(group(), row.layer, row.index) }),
      sort: ({ key, down }) => bench.option(VIEW, { sort: key, down }),
      knockOut: () => send({ kind: "knock_out", group: group() }),
      addGroup: () => send({ kind: "add_group", group: group() }),
    };
  }, [bench]);
}

export default { name: "ablation", title: "Ablation", View };
