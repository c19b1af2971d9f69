/** Statistics of the routes of this text: load, company, entropy, who goes where by role and channel. */
import { html, useCallback, useMemo } from "../../html.js";
import { expertColour, percent, sequential, short } from "../../draw/scales.js";
import { useData, useTheme } from "../../hooks.js";
import { Bars, Legend, LineChart, Matrix, Panel, Ready, Select } from "../../parts/index.js";
import { largest } from "./reduce.js";

const names = (count, letter = "") => Array.from({ length: count }, (_, i) => `${letter}${i}`);

/** A table of shares, coloured from paper to blue: clicking a cell chooses its expert. layerOf: the layer of a row. */
export function Shares({ bench, values, rows, label, describe, onSelect, title, layerOf, selectedRow = null, height = 300 }) {
  const theme = useTheme();
  const { expert } = bench.selection.value;
  const experts = values.length / Math.max(1, rows.length);
  const scale = useMemo(() => sequential(theme, 0, largest(values, 0.01)), [values, theme]);
  const columns = useMemo(() => names(experts), [experts]);
  const text = useCallback((r, c) => (Number.isNaN(values[r * experts + c]) ? "" : String(Math.round(values[r * experts + c] * 100))), [values]);
  return html`<div>
    <${Matrix} rows=${rows.length} cols=${experts} values=${values} colour=${scale} rowLabels=${rows} colLabels=${columns} text=${text}
      describe=${describe} label=${label} cell=${{ height: rows.length > 14 ? "fit" : 18, width: "fit" }} minCell=${7} maxCell=${34} maxHeight=${height}
      selectedCol=${expert} selectedRow=${selectedRow} onSelect=${onSelect} onHover=${(r, c) => (bench.hover.value = c === null ? null : { expert: c, layer: layerOf(r) })} />
    <${Legend} scale=${scale} title=${title} format=${percent} width=${90} />
  </div>`;
}

/** @param {{ bench: import("../../store.js").Bench, layer: number }} props */
export function Statistics({ bench, layer }) {
  const got = useData(bench, "routing", { what: "statistics" }, { slot: "statistics" });
  const one = useData(bench, "routing", { what: "layer", layer }, { slot: "layer" });
  return html`<${Ready} got=${got} height=${160}>${(data) => html`<div class="wb-routing-panels">
    <${Load} ...${{ bench, layer, data }} />
    <${Entropy} ...${{ bench, layer, data }} />
    <${Layers} ...${{ bench, layer, data }} />
    <${Ready} got=${one} height=${160}>${(of) => html`<${Together} ...${{ bench, layer }} data=${of} />`}</${Ready}>
    <${Ready} got=${one} height=${160}>${(of) => html`<${Speakers} ...${{ bench, layer }} data=${of} />`}</${Ready}>
  </div>`}</${Ready}>`;
}

/** Which layer the panels are of. */
export function LayerChoice({ bench, layer, layers }) {
  return html`<${Select} label="Layer" value=${layer} options=${names(layers).map((name, i) => [i, name])} onChange=${(value) => bench.select({ layer: Number(value) })} />`;
}

function Load({ bench, layer, data }) {
  const theme = useTheme();
  const [, experts] = data.arrays.load.shape;
  const values = data.arrays.load.subarray(layer * experts, (layer + 1) * experts);
  const { expert } = bench.selection.value;
  const on = bench.hover.value;
  return html`<${Panel} title="Load" note=${`share of this text's tokens that each expert gets, layer ${layer}; dotted: an even ${percent(data.json.even)}`}>
    <${Bars} values=${values} label=${`load of the experts of layer ${layer}`} names=${names(experts, "E")} colour=${(i) => expertColour(i, theme)} line=${data.json.even}
      format=${percent} selected=${expert} hovered=${on?.layer === layer ? on?.expert : null} height=${96}
      onSelect=${(i) => bench.select({ layer, expert: i })} onHover=${(i) => (bench.hover.value = i === null ? null : { layer, expert: i })} />
  </${Panel}>`;
}

/** The load of every layer at once. */
function Layers({ bench, layer, data }) {
  const [layers, experts] = data.arrays.load.shape;
  const { load, weight_share: share } = data.arrays;
  const describe = (r, c) => `layer ${r}, expert ${c}: ${percent(load[r * experts + c])} of the tokens, ${percent(share[r * experts + c])} of the weight`;
  const rows = useMemo(() => names(layers, "L"), [layers]);
  return html`<${Panel} title="Load of every layer" note="% of this text's tokens">
    <${Shares} ...${{ bench, rows, describe, values: load }} label="load of every layer and expert" title="share of tokens" selectedRow=${layer} layerOf=${(r) => r}
      onSelect=${(r, c) => bench.select({ layer: r, expert: c })} />
  </${Panel}>`;
}

function Entropy({ bench, layer, data }) {
  const { token_entropy: router, share_entropy: spread } = data.arrays;
  const series = [
    { name: "the router at one token (0: certain)", values: router },
    { name: "the load over experts (1: even)", values: spread },
  ];
  return html`<${Panel} title="Entropy of each layer" note="as a share of log(number of experts)">
    <${LineChart} series=${series} label="entropy of the router and of the load, by layer" xLabel="layer" xNames=${names(router.length)} range=${[0, 1]}
      format=${(value) => short(value, 2)} height=${150} onSelect=${(i) => bench.select({ layer: i })} />
  </${Panel}>`;
}

/** Who works together. */
function Together({ bench, layer, data }) {
  const [experts] = data.arrays.coactivation.shape;
  const { coactivation: share } = data.arrays;
  const describe = (r, c) => (r === c ? `expert ${r} itself` : `of the tokens of expert ${r}, ${percent(share[r * experts + c])} also go to expert ${c}`);
  const rows = useMemo(() => names(experts, "E"), [experts]);
  return html`<${Panel} title="Together" note=${`% of the row's tokens that also go to the column's expert, layer ${layer}`}>
    <${Shares} ...${{ bench, rows, describe, values: share }} layerOf=${() => layer} label=${`co-activation in layer ${layer}`} title="share of its tokens"
      onSelect=${(r, c) => bench.select({ layer, expert: c })} />
  </${Panel}>`;
}

/** Load by role and channel. */
function Speakers({ bench, layer, data }) {
  const { speakers, tokens } = data.json;
  const { speaker_load: load } = data.arrays;
  const experts = load.shape[1];
  const rows = useMemo(() => speakers.map((name) => name.replaceAll("/", " · ")), [speakers]);
  const describe = (r, c) => `${rows[r]} (${tokens[r]} tokens): ${percent(load[r * experts + c])} go to expert ${c}`;
  return html`<${Panel} title="By role and channel" note=${`% of the speaker's tokens in this text, layer ${layer}`}>
    <${Shares} ...${{ bench, rows, describe, values: load }} layerOf=${() => layer} label=${`load by role and channel in layer ${layer}`} title="share of its tokens"
      onSelect=${(r, c) => bench.select({ layer, expert: c })} />
  </${Panel}>`;
}
