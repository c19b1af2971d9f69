/** Activation patching: which part of the source's run, put into the target's, brings the source's answer back? */
import "./patching.css";
import { html, useCallback, useMemo, useRef, useState } from "../html.js";
import { PAPER, SOFT, diverging, mix, rgb, css, short } from "../draw/scales.js";
import { useData, useOption, useSize, useStream, useTheme } from "../hooks.js";
import { Button, JobBar, Key, Legend, Matrix, Panel, Ready, Segmented, Select, TokenLabel } from "../parts/index.js";
import { CellPanel } from "./patching/cell.js";
import { Missing } from "./patching/empty.js";
import { PARTS, STREAM, bandsOf, cellOf, describeCell, fieldsOf, merged, nextDifference, share } from "./patching/grid.js";
import { Scatter } from "./patching/scatter.js";
import { Aligned } from "./patching/strip.js";

const METRICS = [["logit_difference", "logit difference"], ["probability", "probability"], ["kl", "KL from the source"]]; // prettier-ignore
const OVER = [["together", "all positions"], ["position", "each position"]]; // prettier-ignore
export const TARGET = { light: "#b8578f", dark: "#dd8fbb" };

/** The options, as an ask carries them. */
function useChoice(bench) {
  const option = (name, fallback) => useOption(bench, "patching", name, fallback);
  const [source, setSource] = option("source", null);
  const [metric, setMetric] = option("metric", "logit_difference");
  const [part, setPart] = option("part", "resid_pre");
  const [over, setOver] = option("over", "together");
  const [layer, setLayer] = option("layer", null);
  return { choice: { source, metric, part, over, layer }, set: { setSource, setMetric, setPart, setOver, setLayer } };
}

/** What is patched, from where, and how it is measured. */
function Controls({ bench, choice, set, names }) {
  const { n_layers } = bench.state.value.model;
  const { part, over, metric } = choice;
  const layers = Array.from({ length: n_layers }, (_, i) => [String(i), String(i)]);
  const apart = !STREAM.includes(part) && over === "position";
  const pick = (value) => {
    set.setLayer(Number(value));
    bench.select({ layer: Number(value) });
  };
  return html`<div class="wb-bar-line">
    <${Segmented} label="Source" value=${names[0]} options=${[...names].sort()} onChange=${set.setSource} />
    <${Segmented} label="Patch" value=${part} options=${PARTS} onChange=${set.setPart} />
    ${!STREAM.includes(part) && html`<${Segmented} label="at" value=${over} options=${OVER} onChange=${set.setOver} />`}
    ${apart && html`<${Select} label="Layer" value=${String(choice.layer ?? Math.floor(n_layers / 2))} options=${layers} onChange=${pick} />`}
    <${Select} label="Metric" value=${metric} options=${METRICS} onChange=${set.setMetric} />
  </div>`;
}

/** The two prompts, token under token. */
function Prompts({ bench, data, choice }) {
  const { json, arrays } = data;
  const { n_layers } = bench.state.value.model;
  const { layer: chosen, head, position } = bench.selection.value;
  const layer = chosen ?? choice.layer ?? Math.floor(n_layers / 2);
  const tokens = useMemo(() => [json.source_tokens, json.target_tokens], [json]);
  const names = [json.source, json.target];
  const part = choice.part === "head" && head !== null ? "head" : STREAM.includes(choice.part) ? choice.part : "resid_pre";
  const carried = `${part === "head" ? `head ${head}` : part} of layer ${layer}`;
  const drop = (from, to) => {
    const action = { kind: "drag", source: names[from.side], part, layer, source_position: from.position, position: to.position };
    bench.act("patching", part === "head" ? { ...action, head } : action).then(
      () => bench.note(`${carried}: position ${from.position} of ${names[from.side]} is now in position ${to.position} of ${names[to.side]}`),
      () => {},
    );
  };
  const layers = Array.from({ length: n_layers }, (_, i) => String(i));
  const next = nextDifference(arrays, position);
  const differ = arrays.differs.reduce((sum, one) => sum + one, 0);
  return html`<div class="wb-patching-prompts">
    <div class="wb-bar-line">
      <span class="wb-patching-name wb-patching-source"><bdi>${names[0]}</bdi> (source)</span>
      <span class="wb-patching-name wb-patching-target"><bdi>${names[1]}</bdi> (target)</span>
      <span class="wb-note">${differ} of ${arrays.differs.length} tokens differ (bold, underlined)</span>
      ${next !== null && html`<${Button} kind="quiet" onClick=${() => bench.select({ position: next })}>Next difference</${Button}>`}
      <span class="wb-tools"><${Select} label="Drag carries layer" value=${String(layer)} options=${layers} onChange=${(value) => bench.select({ layer: Number(value) })} /></span>
    </div>
    <${Aligned} tokens=${tokens} names=${names} pairs=${arrays.pairs} differs=${arrays.differs} position=${position} carried=${carried}
      hovered=${bench.hover.value?.position ?? null} onHover=${(i) => (bench.hover.value = i === null ? null : { position: i })}
      onSelect=${(side, i) => i < json[side === 0 ? "target_tokens" : "source_tokens"].length && bench.select({ position: i })} onDrop=${drop} />
  </div>`;
}

/** The numbers of the grid, as they stream in. */
function useGrid(bench, data) {
  const [, again] = useState(0);
  const held = useRef({ of: null, about: null, arrays: null });
  if (held.current.of !== data) held.current = { of: data, about: data.json, arrays: data.arrays };
  useStream(bench, "patching", (key, json, arrays) => {
    if (key !== "grid" || json.id !== held.current.about.id) return;
    held.current.about = { ...held.current.about, ...json };
    held.current.arrays = { ...arrays, able: held.current.of.arrays.able };
    again((count) => count + 1);
  });
  const { about, arrays } = held.current;
  return { about, arrays, marks: useMemo(() => merged({ ...arrays, floor: about.floor }), [arrays, about.floor]) };
}

/** Thin strokes on cells that are only estimated: the colour is not the only sign. */
const strokes = (faded, cols, theme) => (context, { part, rect, cw, ch }) => {
  if (cw < 7 || ch < 7) return;
  context.strokeStyle = SOFT[theme];
  context.globalAlpha = 0.45;
  context.lineWidth = 1;
  context.beginPath();
  for (let row = part.top; row < part.bottom; row++) {
    for (let col = part.left; col < part.right; col++) {
      if (!faded[row * cols + col]) continue;
      const { x, y } = rect(row, col);
      context.moveTo(x + 2, y + ch - 2);
      context.lineTo(x + Math.min(7, cw - 2), y + ch - 2 - Math.min(5, ch - 4));
    }
  }
  context.stroke();
  context.globalAlpha = 1;
};

function Heatmap({ bench, grid, prompts, opened, open }) {
  const theme = useTheme();
  const { about, arrays, marks } = grid;
  const [rows, cols] = about.shape;
  const scale = useMemo(() => diverging(theme, about.limit), [theme, about.limit]);
  const tokens = prompts && { source: prompts.json.source_tokens, target: prompts.json.target_tokens };
  const onPositions = about.dims[1] === "pos";
  const names = (dim, n) => Array.from({ length: n }, (_, i) => (dim === "layer" ? `L${i}` : dim === "head" ? `H${i}` : `E${i}`));
  const rowLabels = useMemo(() => names(about.dims[0], rows), [about.dims[0], rows]);
  const colLabels = useMemo(() => (onPositions ? tokens?.target : names(about.dims[1], cols)), [onPositions, prompts, about.dims[1], cols]);
  const bands = useMemo(() => (onPositions && prompts ? bandsOf(prompts.arrays.differs, TARGET[theme]) : undefined), [onPositions, prompts, theme]);
  const paint = useMemo(() => strokes(marks.faded, cols, theme), [marks, cols, theme]);
  const box = useRef(null);
  const roomy = (useSize(box).width - 40) / cols >= 38; // pixels that "≈−.12" needs
  const text = useCallback((r, c) => words(marks, r * cols + c), [marks, cols]);
  const { layer, position } = bench.selection.value;
  const cell = cellOf(bench.selection.value, about);
  const hover = bench.hover.value;
  const hovered = hover && cellOf({ ...NOWHERE, ...hover }, about);
  const on = (r, c) => {
    if (r === null) return (bench.hover.value = null);
    const { site: _, ...fields } = fieldsOf(r, c, about);
    return (bench.hover.value = fields);
  };
  return html`<div ref=${box}><${Matrix} rows=${rows} cols=${cols} values=${marks.values} hatch=${marks.hatch} faded=${marks.faded} grey=${marks.grey}
    colour=${scale} text=${roomy ? text : undefined} paint=${paint} rowLabels=${rowLabels} colLabels=${colLabels} colBands=${bands}
    label=${`share brought back by each patch: ${about.dims[0]} down, ${onPositions ? "position" : about.dims[1]} across`}
    describe=${(r, c) => describeCell(r, c, about, arrays, tokens)} cell=${{ height: rows > 16 ? 14 : rows > 8 ? 20 : 24 }} maxHeight=${440} minCell=${5}
    selected=${cell} selectedRow=${!cell && about.dims[0] === "layer" ? within(layer, rows) : null}
    selectedCol=${!cell && onPositions ? within(position, cols) : null} hovered=${hovered && inside(hovered, rows, cols) ? hovered : null}
    onHover=${on} onSelect=${(r, c) => (bench.select(fieldsOf(r, c, about)), open({ row: r, col: c, id: about.id }))} /></div>`;
}

const NOWHERE = { layer: null, position: null, head: null, expert: null };
const within = (value, count) => (value !== null && value < count ? value : null);
const inside = ({ row, col }, rows, cols) => row < rows && col < cols;

/** What is written in a cell. */
function words({ values, hatch, faded, grey, idle }, i) {
  if (hatch[i] || grey[i] || idle[i] || Number.isNaN(values[i])) return "";
  if (Math.abs(values[i]) < 0.005) return faded[i] ? "≈0" : "0";
  const text = values[i].toFixed(Math.abs(values[i]) >= 0.995 ? 1 : 2).replace("-", "−").replace(/^(−?)0\./, "$1.");
  return faded[i] ? `≈${text}` : text;
}

/** What colours and marks mean. */
function Reading({ about }) {
  const theme = useTheme();
  const scale = useMemo(() => diverging(theme, about.limit), [theme, about.limit]);
  const guess = css(mix(scale.rgb(about.limit / 2), rgb(PAPER[theme]), 0.45));
  const noise = about.floor === null ? "inside the noise floor" : `inside the noise floor, ±${share(about.floor)}: 95% of ${about.controls} random patches as long do no more`;
  return html`<div class="wb-bar-line">
    <${Legend} scale=${scale} title=${`share brought back: 0 ${about.target} as it is, 1 ${about.source}`} format=${share} />
    <${Key} items=${[{ name: "estimate, not run yet (≈)", colour: guess }, { name: "not run yet", kind: "hatch" }, { name: noise, kind: "noise" }]} />
  </div>`;
}

/** What is measured, and the way to measure it. */
function Running({ bench, about, choice }) {
  const busy = bench.jobs.value.some((job) => job.view === "patching" && (job.state === "running" || job.state === "queued"));
  const act = (kind) => () => bench.act("patching", { kind, ...choice }).catch(() => {});
  const done = about.total - about.left;
  const [source, target] = about.ends;
  const nothing = source === target;
  const label = about.left === 0 ? `All ${about.total} cells are run` : done ? `Run the ${about.left} cells left` : `Run ${about.total} cells`;
  return html`<div class="wb-bar-line">
    <${Button} kind="primary" disabled=${busy || nothing || about.left === 0} onClick=${act("run")}>${label}</${Button}>
    <${Button} disabled=${busy || nothing || about.estimated} onClick=${act("estimate")} title="attribution patching: gradients instead of runs">Estimate only</${Button}>
    <${JobBar} bench=${bench} view="patching" />
    <span class="wb-note wb-patching-said">
      <span>${measured(about)}</span><span><bdi>${about.source}</bdi> ${short(source)}, <bdi>${about.target}</bdi> ${short(target)}</span>
      ${about.metric !== "kl" && !about.answer_given && html`<span>the tokens that each says next: choose others as the answer</span>`}
      ${nothing && html`<span class="wb-strong">both score the same: there is nothing to bring back; choose other answer tokens</span>`}
    </span>
  </div>`;
}

/** The metric in words. */
function measured({ metric, answer, source }) {
  const token = (text) => html`<${TokenLabel} text=${text} limit=${24} />`;
  if (metric === "kl") return html`KL(<bdi>${source}</bdi> ‖ patched), nats`;
  if (metric === "probability") return html`probability of ${token(answer.right)}`;
  return html`logit of ${token(answer.right)} − logit of ${token(answer.wrong)}`;
}

function Grid({ bench, data, prompts, choice }) {
  const grid = useGrid(bench, data);
  const { about, arrays, marks } = grid;
  const [opened, open] = useState(null);
  const [text, setText] = useOption(bench, "patching", "text", true);
  const cell = cellOf(bench.selection.value, about);
  const there = cell && inside(cell, ...about.shape) ? cell : null;
  const isOpen = Boolean(there && opened && opened.id === about.id && opened.row === there.row && opened.col === there.col);
  const tokens = prompts && { source: prompts.json.source_tokens, target: prompts.json.target_tokens };
  const estimated = Boolean(arrays.estimate) || Boolean(about.why_no_estimate);
  return html`<div class="wb-patching-grid">
    <${Running} bench=${bench} about=${{ ...about, estimated }} choice=${choice} />
    <${Heatmap} ...${{ bench, grid, prompts, open }} />
    <${Reading} about=${about} />
    <div class="wb-patching-below">
      <${CellPanel} ...${{ bench, choice, about, text }} cell=${there} opened=${isOpen} onText=${setText}
        words=${there ? describeCell(there.row, there.col, about, arrays, tokens) : ""}
        onOpen=${() => open({ ...there, id: about.id })} />
      <${Panel} title="Estimate against exact" class="wb-patching-check">
        <${Scatter} exact=${arrays.exact} estimate=${arrays.estimate ?? null} r=${about.r} n=${about.n} why=${about.why_no_estimate}
          chosen=${there ? there.row * about.shape[1] + there.col : null} version=${about.id} left=${about.left} />
      </${Panel}>
    </div>
  </div>`;
}

function View({ bench }) {
  const { choice, set } = useChoice(bench);
  const two = bench.state.value.prompts.length > 1;
  const prompts = useData(bench, "patching", two ? { kind: "prompts", source: choice.source } : null, { slot: "prompts" });
  const grid = useData(bench, "patching", two ? { kind: "grid", ...choice } : null, { slot: "grid" });
  if (!two) return html`<${Missing} bench=${bench} why="one" />`;
  return html`<div class="wb-patching">
    <${Ready} got=${prompts} height=${80}>${(data) => data.json.missing !== "one" && html`
      <${Controls} ...${{ bench, choice, set }} names=${[data.json.source, data.json.target]} />
      <${Prompts} bench=${bench} data=${data} choice=${choice} />
      ${data.json.missing && html`<${Missing} bench=${bench} why=${data.json.missing} target=${data.json.target}
        note=${data.json.missing === "length" ? `${data.json.source_tokens.length} and ${data.json.target_tokens.length}` : ""} />`}`}</${Ready}>
    <${Ready} got=${grid} height=${160}>${(data) => !data.json.missing && html`<${Grid} ...${{ bench, data, choice }} prompts=${prompts.data} />`}</${Ready}>
  </div>`;
}

export default { name: "patching", title: "Patching", View };
