/** The logit lens: at each token, what each layer would say next. */
import "./logit_lens.css";
import { QUIET_KEYS, html, useEffect, useMemo, useRef, useState } from "../html.js";
import { expertColour, percent, roleColour, scaleFor, scaleOf, short } from "../draw/scales.js";
import { useData, useOption, useSize, useStream, useTheme } from "../hooks.js";
import { Button, Empty, JobBar, Key, Legend, LineChart, Matrix, Panel, Ready, Segmented, Select, TextField, TokenLabel } from "../parts/index.js";
import { CellPopup } from "./logit_lens/popup.js";
import { cellText, cellWords, columnsFor, picked, said, selectionOf, stageOf, standing, toggled, unread } from "./logit_lens/cells.js";
import { marks } from "./logit_lens/marks.js";

const VIEW = "logit_lens";
const SHADES = [
  ["probability", "probability of the word"], ["target", "probability of the target"], ["rank", "rank of the target"],
  ["entropy", "entropy"], ["kl", "KL"],
]; // prettier-ignore
const MEASURES = [
  ["target", "probability of the target"], ["rank", "rank of the target"], ["entropy", "entropy"], ["kl", "KL"],
  ["probability", "probability of the word"],
]; // prettier-ignore
const ROW = 21;

/** The colours of a shade: dark where the layer is sure of itself, or right. */
function scaleOfShade(shade, theme) {
  const scale = scaleFor(shade, theme);
  return shade.reverse ? scaleOf([...scale.stops].reverse(), shade.low, shade.high, theme) : scale;
}

/** Positions whose lines are drawn, and how to change them. */
function usePins(bench) {
  const [pinned, setPinned] = useOption(bench, VIEW, "pinned", []);
  return { pinned, toggle: (position) => setPinned(toggled(pinned, position)), clear: () => setPinned([]) };
}

/** The choices above the grid. */
function Controls({ bench, json }) {
  const { runs, shown } = bench.state.value;
  const [shade, setShade] = useOption(bench, VIEW, "shade", "probability");
  const [, setCompare] = useOption(bench, VIEW, "compare", "");
  const [rows, setRows] = useOption(bench, VIEW, "rows", "words");
  const [columns, setColumns] = useOption(bench, VIEW, "columns", "fit");
  const others = runs.filter((name) => name !== shown);
  const many = bench.state.value.model.n_layers > 8;
  return html`<div class="wb-bar-line">
    <${Select} label="Colour" value=${shade} options=${SHADES} onChange=${setShade} />
    <${Target} bench=${bench} known=${json?.target} />
    ${others.length > 0 && html`<${Select} label="Difference from" value=${json?.other ?? ""} onChange=${setCompare}
      options=${[["", "nothing"], ...others.map((name) => [name, name])]} />`}
    <span class="wb-tools">
      ${many && html`<${Segmented} label="Layers" value=${columns} options=${[["fit", "that fit"], ["all", "all"]]} onChange=${setColumns} />`}
      <${Segmented} label="Rows" value=${rows} options=${["words", "overview"]} onChange=${setRows} />
    </span>
  </div>`;
} // prettier-ignore

/** The token that is followed: the final prediction, or one that somebody chose. */
function Target({ bench, known }) {
  const [text, setText] = useState("");
  const [target] = useOption(bench, VIEW, "target", null);
  const follow = (token) => bench.act(VIEW, { kind: "follow", token }).then(() => setText(""), () => {});
  if (target === null) {
    return html`<${TextField} label="Target" value=${text} placeholder="final prediction" width=${128} onInput=${setText} onEnter=${follow}
      title="Follow one token at every position: type it, often with a space before it, and press Enter" />`;
  }
  return html`<span class="wb-field"><span class="wb-label">Target</span><span class="wb-lens-target">
    <${TokenLabel} text=${known?.id === target ? known.text : String(target)} />
    <button type="button" class="wb-close" aria-label="Follow the final prediction again" onClick=${() => follow(null)} ...${QUIET_KEYS}>×</button>
  </span></span>`;
} // prettier-ignore

/** The grid, its key, and the popup of a cell. */
function Grid({ bench, data, width, pins, bounds }) {
  const theme = useTheme();
  const { json, arrays } = data;
  const [rows] = useOption(bench, VIEW, "rows", "words");
  const [columnChoice] = useOption(bench, VIEW, "columns", "fit");
  const n = json.stages.length;
  const columns = useMemo(() => columnsFor({ n, width, all: columnChoice === "all" }), [n, width, columnChoice]);
  const scale = useMemo(() => scaleOfShade(json.shade, theme), [json.shade, theme]);
  const cells = useMemo(() => {
    const hatch = unread(data);
    return { values: picked(arrays.value, n, columns), hatch: hatch && picked(hatch, n, columns) };
  }, [data, columns]);
  const text = useMemo(() => (row, col) => cellText(json, arrays, row * n + columns[col]), [data, columns]);
  const paint = useMemo(() => marks({ hit: arrays.hit, n, columns, values: cells.values, scale, text }), [data, columns, scale]);
  const colLabels = useMemo(() => columns.map((stage) => json.stages[stage]), [columns]);
  const rowLabels = useMemo(() => json.tokens.map((token, i) => (pins.pinned.includes(i) ? `▸${token}` : token)), [json.tokens, pins.pinned]);
  const rowNotes = useMemo(() => json.tokens.map((_, i) => String(i)), [json.tokens]);
  const rowBands = useMemo(() => json.bands.map(({ start, stop, name }) => ({ start, stop, colour: roleColour(name, theme) })), [json.bands, theme]);
  const describe = (row, col) => cellWords(data, row, columns[col], { short, percent });
  const { handle, at, on } = useCells({ bench, columns, pins, count: json.tokens.length, bounds });
  const chosen = bench.selection.value;
  const hover = bench.hover.value;
  const col = columns.indexOf(stageOf(chosen));
  const row = chosen.position !== null && chosen.position < json.tokens.length ? chosen.position : null;
  useEffect(() => {
    if (row !== null && col < 0) handle.current?.reveal(row, 0); // its layer is not among the columns, or none is chosen
  }, [row, col < 0, width]);
  const hoverCol = hover ? columns.indexOf(hover.layer === undefined || hover.layer === null ? -1 : hover.layer + 1) : -1;
  const hovered = hover?.position !== undefined && hover.position !== null && hoverCol >= 0 ? { row: hover.position, col: hoverCol } : null;
  const overview = rows === "overview";
  return html`<${GridKey} json=${json} scale=${scale} />
    <${Matrix} ...${cells} ...${{ text: overview ? undefined : text, paint: overview ? undefined : paint, colLabels, rowBands, describe, handle, hovered }} tooltip=${!at}
      rows=${json.tokens.length} cols=${columns.length} colour=${scale} rowLabels=${rowLabels} rowNotes=${rowNotes}
      label=${`logit lens, ${json.tokens.length} tokens by ${n} layers: ${json.shade.title}`} ...${on}
      selected=${row !== null && col >= 0 ? { row, col } : null} selectedRow=${row !== null && col < 0 ? row : null}
      selectedCol=${row === null && col >= 0 ? col : null}
      cell=${{ height: overview ? "fit" : ROW, width: "fit" }} minCell=${overview ? 1 : 44} maxCell=${120} maxHeight=${440} />
    ${at && html`<${CellPopup} ...${{ bench, at, data, pins }} anchor=${() => on.rectOf(at)} onClose=${on.close} />`}`;
} // prettier-ignore

/** What mouse and keys do in the grid; `at` is the cell whose popup is open. */
function useCells({ bench, columns, pins, count, bounds }) {
  const handle = useRef(null);
  const byKey = useRef(false);
  const [at, setAt] = useState(null);
  const choose = (row, col) => {
    setAt({ position: row, stage: columns[col] });
    bench.select(selectionOf(row, columns[col]));
  };
  useEffect(() => {
    if (at && at.position >= count) setAt(null);
  }, [count]);
  const on = {
    onHover(row, col) {
      const moved = byKey.current;
      byKey.current = false;
      if (row === null) return void (bench.hover.value = null);
      const stage = columns[col];
      bench.hover.value = stage === 0 ? { position: row } : { position: row, layer: stage - 1 };
      if (moved && at) choose(row, col); // the popup moves with the arrow keys
    },
    onSelect(row, col, event) {
      if (event.shiftKey) pins.toggle(row);
      else choose(row, col);
    },
    onKey(event, cell) {
      byKey.current = true;
      queueMicrotask(() => (byKey.current = false));
      if (event.ctrlKey || event.metaKey || event.altKey) return false;
      if (event.key === "p") return pins.toggle(cell.row), true;
      if (event.key === "Escape" && at) return setAt(null), true;
      return false;
    },
    close: () => setAt(null),
    rectOf({ position, stage }) {
      const col = columns.indexOf(stage);
      const cell = handle.current?.rectOf(position, col < 0 ? columns.length - 1 : col);
      const inside = bounds();
      return cell && inside ? standing(cell, handle.current.rectOf(position, columns.length - 1).right, inside) : null;
    },
  };
  return { handle, at, on };
}

/** What the colours and marks mean. */
function GridKey({ json, scale }) {
  const format = (value) => said(json.shade, value, short);
  return html`<div class="wb-lens-key">
    <${Legend} scale=${scale} title=${json.shade.title} format=${format} />
    ${json.done < json.total && html`<${Key} items=${[{ name: "not read yet", kind: "hatch" }]} />`}
    <span class="wb-note">${json.other === null
      ? html`<span>cell: the likeliest next token if the model stopped after that layer; <span class="wb-lens-underlined">underlined</span>: the target</span>`
      : html`<span><bdi>${json.run}</bdi> less <bdi>${json.other}</bdi>; a≠b: their likeliest tokens differ</span>`}
      <span>click a cell for more, shift-click or P pins its token</span></span>
  </div>`;
} // prettier-ignore

/** The chart: how the pinned tokens, or the selected one, fare over the layers. */
function Trajectories({ bench, pins, ask }) {
  const theme = useTheme();
  const [measure, setMeasure] = useOption(bench, VIEW, "measure", "target");
  const { position } = bench.selection.value;
  const positions = pins.pinned.length ? pins.pinned : position === null ? [] : [position];
  const got = useData(bench, VIEW, positions.length ? { ...ask, part: "lines", positions, measure } : null, { slot: "lines" });
  const tools = html`<${Select} label="Shows" value=${measure} options=${MEASURES} onChange=${setMeasure} />
    ${pins.pinned.length > 0 && html`<${Button} kind="quiet" onClick=${pins.clear}>Unpin all</${Button}>`}`;
  const note = pins.pinned.length ? "" : position === null ? "select a token, or pin some" : "the selected token; pin it to keep it here";
  return html`<${Panel} title="Over the layers" note=${note} tools=${tools} class="wb-lens-chart">
    ${positions.length > 0 && html`<${Ready} got=${got} height=${200}>${({ json, arrays }) => {
      const n = json.stages.length;
      const series = json.lines.map((line, i) => ({
        name: `${line.token} ${line.position} → ${line.target}`, colour: expertColour(i, theme), values: arrays.values.subarray(i * n, (i + 1) * n),
      }));
      const range = json.measure.kind === "diverging" || json.measure.log || json.measure.high !== 1 ? undefined : [0, 1];
      if (!arrays.values.some(Number.isFinite)) return html`<${Empty}>Nothing to draw: ${json.measure.waiting ? "not read yet" : "these tokens have no counterpart in the other text"}.</${Empty}>`;
      return html`${pins.pinned.length > 0 && html`<${Pins} ...${{ bench, pins, lines: json.lines }} />`}
        <${LineChart} ...${{ series, range }} xNames=${json.stages} xLabel="read after layer" yLabel=${json.measure.title} height=${190}
          label=${`${json.measure.title} over the layers`} format=${(value) => said(json.measure, value, short)}
          onSelect=${(stage) => bench.select(selectionOf(position ?? positions[0], stage))} />`;
    }}</${Ready}>`}
  </${Panel}>`;
} // prettier-ignore

/** The pinned tokens: click selects, × unpins. */
function Pins({ bench, pins, lines }) {
  return html`<div class="wb-lens-pins"><span class="wb-label">Pinned</span>${lines.map(
    ({ position, token }) => html`<span key=${position} class="wb-lens-pin">
      <button type="button" class="wb-link" onClick=${() => bench.select({ position })} ...${QUIET_KEYS}><${TokenLabel} text=${token} limit=${16} /> <span class="wb-soft">${position}</span></button>
      <button type="button" class="wb-close" aria-label=${`Unpin ${token}, position ${position}`} onClick=${() => pins.toggle(position)} ...${QUIET_KEYS}>×</button>
    </span>`,
  )}</div>`;
} // prettier-ignore

/** Asks again when more of a long grid is read, one ask at a time. */
function useTicks(bench) {
  const [news, setNews] = useState(0);
  const [tick, setTick] = useState(0);
  // Counted, not what they say: two readings may both end at 24 of 24.
  useStream(bench, VIEW, (key) => key === "grid" && setNews((count) => count + 1));
  return { tick, settle: (loading) => !loading && news !== tick && setTick(news), news };
}

function View({ bench }) {
  const box = useRef(null);
  const { width } = useSize(box);
  const [shade] = useOption(bench, VIEW, "shade", "probability");
  const [target] = useOption(bench, VIEW, "target", null);
  const [compare] = useOption(bench, VIEW, "compare", "");
  const ticks = useTicks(bench);
  const ask = { target, compare, tick: ticks.tick };
  const got = useData(bench, VIEW, { part: "grid", shade, ...ask }, { slot: "grid" });
  const pins = usePins(bench);
  useEffect(() => ticks.settle(got.loading), [got.loading, ticks.news]);
  return html`<div class="wb-lens" ref=${box}>
    <${Controls} bench=${bench} json=${got.data?.json ?? null} />
    <${JobBar} bench=${bench} view=${VIEW} />
    <${Ready} got=${got} height=${240}>${(data) => html`<${Grid} ...${{ bench, data, width, pins }} bounds=${() => box.current?.getBoundingClientRect() ?? null} />`}</${Ready}>
    <${Trajectories} ...${{ bench, pins, ask }} />
  </div>`;
}

export default { name: VIEW, title: "Logit lens", View };
