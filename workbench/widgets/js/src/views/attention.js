/** Attention: all heads as thumbnails, one pattern in large, the text under it, and hands on all of it. */
import "./attention.css";
import { html, useEffect, useMemo, useRef, useState } from "../html.js";
import { useData, useOption, useSize, useStream, useTheme } from "../hooks.js";
import { Button, Empty, JobBar, Key, Legend, Panel, Ready, Segmented, Select } from "../parts/index.js";
import { SINK } from "./attention/geometry.js";
import { Hands, isCut } from "./attention/hands.js";
import { Line } from "./attention/line.js";
import { AllHeads, LayerHeads } from "./attention/mosaic.js";
import { KIND, farthest, filled, shares } from "./attention/numbers.js";
import { changeScale, headScale } from "./attention/shades.js";
import { Square } from "./attention/square.js";
import { percent, portion, short } from "../draw/scales.js";

const NAME = "attention";
const NONE = []; // one list, so that nothing is painted again for it

/** The layer and head in large: as in Python's view. */
function usePlace(bench) {
  const [layer] = useOption(bench, NAME, "layer", 0);
  const [head] = useOption(bench, NAME, "head", 0);
  const chosen = bench.selection.value;
  return { layer: chosen.layer ?? layer, head: chosen.head ?? head };
}

/** What is done by hand; errors are told in the status line. */
function useActions(bench, freed) {
  const act = (action) => bench.act(NAME, action).catch(() => {});
  return {
    choose(layer, head) {
      const { layer: l, head: h } = bench.selection.value;
      if (l !== layer || h !== head) bench.select({ layer, head });
      bench.option(NAME, { layer, head });
    },
    ablate: (layer, head) => act({ kind: "ablate", layer, head }),
    toggle: (layer, head) => (query, key) => act({ kind: "edge", layer, head, query, key, freed }),
    pick: (layer, head, row, col) => act({ kind: "pick", layer, head, row, col }),
    fill: () => act({ kind: "fill" }),
  };
}

/** Which layer, which numbers, how they are shaded. */
function Controls({ bench, place, canChange, change, actions }) {
  const [show, setShow] = useOption(bench, NAME, "show", "layer");
  const [shade, setShade] = useOption(bench, NAME, "shade", "linear");
  const [, setValues] = useOption(bench, NAME, "values", "pattern");
  const { windows } = bench.state.value.model;
  const layers = windows.map((window, i) => [String(i), `${i} · ${window ? `window ${window}` : "full"}`]);
  return html`<div class="wb-bar-line">
    <${Segmented} label="Heads" value=${show} options=${[["layer", "of one layer"], ["all", "of all layers"]]} onChange=${setShow} />
    <${Select} label="Layer" value=${String(place.layer)} options=${layers} onChange=${(value) => actions.choose(Number(value), place.head)} />
    ${canChange && html`<${Segmented} label="Show" value=${change ? "change" : "pattern"} options=${[["pattern", "pattern"], ["change", "edited − unedited"]]} onChange=${setValues} />`}
    ${!change && html`<${Select} label="Shade" value=${shade} options=${[["linear", "by share"], ["root", "by its square root"]]} onChange=${setShade} />`}
  </div>`;
} // prettier-ignore

/** The thumbnails of every layer, with those that come while they are worked out. */
function Overview({ bench, data, place, actions, shade, change }) {
  const [came, setCame] = useState({ data: null, layers: new Map() });
  const layers = came.data === data ? came.layers : new Map();
  const latest = useRef(null);
  latest.current = { data, layers };
  useStream(bench, NAME, (key, json, arrays) => {
    const now = latest.current;
    if (json.revision !== bench.revision.peek() || (json.values === "change") !== change) return;
    if (change) return; // each layer's change has a scale of its own: asked again at the end, on one
    setCame({ data: now.data, layers: new Map([...now.layers, [json.layer, arrays]]) });
  });
  const arrays = useMemo(() => filled(data.arrays, layers), [data, came]);
  const missing = arrays.known.reduce((sum, known) => sum + (known ? 0 : 1), 0);
  const job = bench.jobs.value.findLast?.((each) => each.view === NAME);
  const busy = job?.state === "running" || job?.state === "queued";
  return html`${missing > 0 && !busy && html`<div class="wb-bar-line">
      <${Button} onClick=${actions.fill}>Work out ${missing} layer${missing > 1 ? "s" : ""}</${Button}>
      <span class="wb-note">${data.json.n_queries} tokens: hatched layers are worked out one after the other.</span></div>`}
    <${AllHeads} ...${{ bench, json: data.json, arrays, place, shade }} choose=${actions.choose} onDelete=${actions.ablate} />`;
}

/** What the head is and does: the title of the large pattern. */
function title({ json }, scores) {
  const kind = json.window ? `window ${json.window}` : "full attention";
  const parts = [`kv head ${json.kv_head}`, kind];
  if (json.block > 1) parts.push(`${json.n} tokens, each cell the ${json.change ? "strongest" : "largest"} of ${json.block} × ${json.block}`);
  for (const [name, value] of scores) parts.push(`${name} ${portion(value, 2)}`);
  return parts;
}

/** The four scores of the head in large, where the thumbnails of its layer are there. */
function scoresOf(mosaic, { layer, head }, nHeads) {
  const found = mosaic.data;
  if (!found || (!found.arrays.known && found.json.layer !== layer)) return [];
  const { kinds } = found.json;
  const start = found.arrays.known ? layer * kinds.length * nHeads : 0;
  const all = kinds.map((kind, k) => [KIND[kind][1], found.arrays.scores[start + k * nHeads + head]]);
  return all.filter(([, value]) => Number.isFinite(value));
}

/** What hatching, grey and the line mean, where they are there. */
function keyOf({ n, window }) {
  const bound = window && n > window;
  const made = n > 1 ? [{ name: "later tokens", colour: "var(--wb-unseen)" }] : [];
  return bound ? [...made, { name: "outside the window", kind: "hatch" }, { name: "its edge", colour: "var(--wb-hover)" }] : made;
}

/** Where the selection and the mouse are in the large pattern. */
function marksOf(bench, { layer, head, block, n }) {
  const { position, key, layer: l, head: h } = bench.selection.value;
  const within = (i) => i !== null && i !== undefined && i < n;
  const row = within(position) ? Math.floor(position / block) : null;
  const here = l === layer && h === head && row !== null && key !== null;
  const selected = here ? { row, col: key === SINK ? SINK : Math.floor(key / block) } : null;
  const hover = bench.hover.value;
  const hovered = within(hover?.position)
    ? { row: Math.floor(hover.position / block), col: hover.key === undefined ? undefined : hover.key === SINK ? SINK : Math.floor(hover.key / block) }
    : null;
  return { row, selected, hovered };
}

/** The large pattern, what can be done to its head, and the text. */
function Large({ bench, data, tokens, mosaic, actions, shade, freed, setFreed, narrow, side }) {
  const theme = useTheme();
  const { json } = data;
  const { layer, head, block, n, change } = json;
  const [direction, setDirection] = useOption(bench, NAME, "direction", "out");
  const values = useMemo(() => shares(data.arrays.pattern), [data.arrays.pattern]);
  const { sink } = data.arrays;
  const colour = useMemo(
    () => (change ? changeScale(theme, farthest(values, sink)) : headScale(head, theme, shade)),
    [theme, head, shade, change, change && values],
  );
  const chosen = bench.selection.value;
  const { row, selected, hovered } = marksOf(bench, json);
  const toggle = actions.toggle(layer, head);
  const chooseEdge = (query, key) => {
    bench.select({ layer, head, position: query, key });
    bench.option(NAME, { layer, head });
  };
  const cell = ({ row: r, col }) => ({ query: r * block, key: col === SINK ? SINK : col * block });
  const onSelect = (at) => {
    const { query, key } = cell(at);
    if (block > 1 && at.col !== SINK) actions.pick(layer, head, at.row, at.col);
    else if (key <= query) chooseEdge(query, key);
    else bench.select({ layer, head, position: query, key: null });
  };
  const onDelete = (at) => {
    const { query, key } = cell(at);
    if (block === 1) toggle(query, key);
    else if (selected && selected.row === at.row && selected.col === at.col) toggle(chosen.position, chosen.key);
    else bench.note("choose the cell first (Enter): in a long text it stands for many edges, and the strongest is chosen");
  };
  const edge = selected ? edgeOf(chosen, tokens, values, sink, json) : null;
  const hover = bench.hover.value;
  const looked = direction === "in" && hover?.key >= 0 ? hover.key : hover?.position;
  const shown = [looked, direction === "in" && selected && chosen.key >= 0 ? chosen.key : chosen.position, n - 1];
  const position = shown.find((i) => i !== null && i !== undefined && i < n);
  const cut = json.edits?.cut ?? NONE;
  const square = html`<${Panel} title=${`Layer ${layer}, head ${head}`} class="wb-attention-large"
      note=${html`${title(data, scoresOf(mosaic, json, bench.state.value.model.n_heads)).map((part) => html`<span key=${part}>${part}</span>`)}`}>
    <div class="wb-bar-line"><${Legend} scale=${colour} title=${change ? "change of the share of attention" : "share of a query's attention"} format=${(value) => short(value, 2)} width=${140} />
      <${Key} items=${keyOf(json)} />
      ${cut.length > 0 && html`<span class="wb-note">✕ cut</span>`}</div>
    <${Square} about=${json} values=${values} sink=${sink} colour=${colour} tokens=${tokens} change=${change} cut=${cut}
      selected=${selected} row=${row} hovered=${hovered} onSelect=${onSelect} onDelete=${onDelete}
      onHover=${(at) => (bench.hover.value = at && hoverOf(cell(at), json))}
      label=${`attention pattern of layer ${layer}, head ${head}: rows are queries, columns the sink and keys`} />
  </${Panel}>`;
  const hands = html`<${Hands} ...${{ bench, edge, freed, setFreed, toggle }} where=${{ layer, head }} edits=${json.edits} ablate=${actions.ablate} />`;
  const left = side ? html`<div class="wb-attention-rows">${side}${hands}</div>` : square;
  return html`<div class=${narrow ? "wb-attention-rows" : side ? "wb-attention-columns" : "wb-attention-columns wb-attention-turned"}>
      ${narrow ? html`${side}${square}${hands}` : html`${left}${side ? square : hands}`}
    </div>
    <${Line} ...${{ bench, about: json, values, sink, tokens, colour, direction, setDirection, position, change, chooseEdge }} />`;
} // prettier-ignore

const hoverOf = ({ query, key }, { layer, head, block }) => ({ layer, head, position: query, ...(block === 1 ? { key } : {}) });

/** The chosen edge, in words. */
function edgeOf({ position, key }, tokens, values, sink, { n, block, edits }) {
  const name = (i) => `${i} “${(tokens[i] ?? "").slice(0, 20)}”`;
  const share = block > 1 ? null : key === SINK ? sink[position] : values[position * n + key];
  const said = edits && isCut(edits.cut, position, key) ? " (cut)" : share === null ? "" : ` ${percent(share)}`;
  return { query: position, key, words: `${name(position)} → ${key === SINK ? "sink" : name(key)}${said}` };
}

function View({ bench }) {
  const box = useRef(null);
  const { width } = useSize(box);
  const place = usePlace(bench);
  const [show] = useOption(bench, NAME, "show", "layer");
  const [shade] = useOption(bench, NAME, "shade", "linear");
  const [wanted] = useOption(bench, NAME, "values", "pattern");
  const [freed, setFreed] = useOption(bench, NAME, "freed", "redistribute");
  const { shown, model } = bench.state.value;
  const canChange = shown === "edited";
  const change = canChange && wanted === "change";
  const actions = useActions(bench, freed);
  const text = useData(bench, NAME, { what: "text" }, { slot: "text" });
  const heads = useData(bench, NAME, show === "all" ? { what: "all", change } : { what: "layer", layer: place.layer, change }, { slot: "heads" });
  const zoom = useData(bench, NAME, { what: "zoom", ...place, change }, { slot: "zoom" });
  useFilled(bench, show === "all" && change ? heads.again : null);
  const narrow = width < 820 || model.n_heads / model.n_key_value_heads > 8;
  const limit = heads.data?.json.limit;
  const about = show === "all" ? "w: sliding window; lines part the heads of each key-value head (kv)" : "a row for each key-value head (kv); below: what a head does best";
  const mosaic = html`<${Panel} title=${show === "all" ? "Every head" : `Heads of layer ${place.layer}`} class="wb-attention-heads"
      note=${change && limit ? `orange more, blue less, up to ±${short(limit, 2)}` : about}>
    <${Ready} got=${heads} height=${120}>${(data) =>
      data.arrays.known
        ? html`<${Overview} ...${{ bench, data, place, actions, shade, change }} />`
        : html`<${LayerHeads} ...${{ bench, data, shade }} head=${place.head} choose=${actions.choose} onDelete=${actions.ablate} />`}</${Ready}>
  </${Panel}>`;
  const tokens = text.data?.json.tokens;
  const large = { bench, tokens, mosaic: heads, actions, shade, freed, setFreed, narrow };
  return html`<div class="wb-attention" ref=${box}>
    <${Controls} ...${{ bench, place, canChange, change, actions }} />
    <${JobBar} bench=${bench} view=${NAME} />
    ${show === "all" && mosaic}
    ${tokens && tokens.length === 0
      ? html`<${Empty}>The text is empty.</${Empty}>`
      : !zoom.data || !tokens
        ? html`${show === "layer" && mosaic}<${Ready} got=${zoom.data ? text : zoom} height=${240}>${() => null}</${Ready}>`
        : html`<${Ready} got=${zoom}>${(data) => html`<${Large} ...${large} data=${data} side=${show === "layer" && mosaic} />`}</${Ready}>`}
  </div>`;
} // prettier-ignore

/** Asks again when a job of this view has ended. */
function useFilled(bench, again) {
  const job = bench.jobs.value.findLast?.((each) => each.view === NAME);
  const ended = job && !["queued", "running"].includes(job.state) ? `${job.id} ${job.state}` : null;
  const before = useRef(ended);
  useEffect(() => {
    if (ended && ended !== before.current) again?.();
    before.current = ended;
  }, [ended]);
}

export default { name: NAME, title: "Attention", View };
