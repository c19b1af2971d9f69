/** The route graph: which parts told which, on the way from the tokens to one answer. */
import "./graph.css";
import { classes, html, useEffect, useMemo, useRef, useState } from "../html.js";
import { percent } from "../draw/scales.js";
import { useData, useOption, useSize, useStream } from "../hooks.js";
import { duration } from "../parts/jobs.js";
import { Button, Empty, Ready, Segmented, Slider } from "../parts/index.js";
import { Picture } from "./graph/canvas.js";
import { Detail } from "./graph/detail.js";
import { Controls, Signs, Summary } from "./graph/head.js";
import { chosenNodes, foundOf, fromSlider, graphOf, pruned, selectionOf, selectionOfEdge, toSlider } from "./graph/model.js";
import { Tables } from "./graph/tables.js";

const WIDE = 760;
const COLUMNS = [["kept", "with nodes"], ["all", "all"]]; // prettier-ignore

/** What is traced, as asks and actions carry it. */
function useChoice(bench) {
  const option = (name, fallback) => useOption(bench, "graph", name, fallback)[0];
  const choice = { target: option("target", "difference"), token: option("token", null), position: option("position", null), n_nodes: option("n_nodes", 100) };
  return [choice, (values) => bench.option("graph", values)];
}

const busyWith = (bench) => bench.jobs.value.some((job) => job.view === "graph" && (job.state === "running" || job.state === "queued"));

/** @param {{ bench: import("../store.js").Bench }} props */
function View({ bench }) {
  const [choice, set] = useChoice(bench);
  const got = useData(bench, "graph", { what: "graph", ...choice }, { slot: "graph" });
  const busy = busyWith(bench);
  const json = got.data?.json ?? null;
  const trace = () => bench.act("graph", { ...choice, kind: "trace" }).catch(() => {});
  useStream(bench, "graph", (key) => key === "traced" && got.again());
  // What takes a moment is traced at once; a job that failed or was cancelled is not begun again by itself.
  const begun = useRef(new Set());
  const key = json && !got.loading && !json.traced && json.cost.quick ? `${json.id} ${choice.n_nodes}` : null;
  useEffect(() => {
    if (key === null || begun.current.has(key)) return;
    begun.current.add(key);
    trace();
  }, [key]);
  const last = useRef(null);
  if (json?.traced) last.current = got.data;
  const failed = !busy && bench.jobs.value.some((job) => job.view === "graph" && (job.state === "failed" || job.state === "cancelled"));
  return html`<${Ready} got=${got} height=${460}>${(data) => {
    const kept = data.json.traced ? data : (busy || data.json.cost.quick) && !failed ? last.current : null;
    return html`<div class="wb-graph">
      <${Controls} ...${{ bench, choice, set }} json=${data.json}>
        ${!data.json.traced && !busy && html`<${Button} kind="primary" onClick=${trace}>Trace</${Button}>`}
      </${Controls}>
      ${kept ? html`<${Graph} ...${{ bench, choice, busy }} data=${kept} stale=${got.stale || kept !== data} />` : html`<${Untraced} ...${{ json: data.json, busy, trace }} />`}
    </div>`;
  }}</${Ready}>`;
}

/** What tracing takes, before it is begun. */
function Untraced({ json, busy }) {
  const { cost } = json;
  if (busy) return html`<${Empty} title="Tracing">The gradient of the target runs back through ${cost.nodes.toLocaleString("en")} nodes; routing, patterns and norm scales are held at what they were.</${Empty}>`;
  return html`<div class="wb-graph-untraced">
    <strong>Not traced yet</strong>
    <span>${json.tokens.length} tokens have ${cost.nodes.toLocaleString("en")} nodes and ${cost.edges.toLocaleString("en")} edges: about ${duration(cost.seconds)} on two cores, and ${cost.memory}${cost.free ? ` of the ${cost.free} that are free` : ""}.</span>
    ${!cost.fits && html`<span class="wb-error-text">That does not fit: choose an earlier token, or a shorter text.</span>`}
    ${cost.fits && cost.seconds > 60 && html`<span class="wb-note">The model does nothing else meanwhile but what you click; Cancel stops it at the next step. An earlier position is quicker: time grows with the square of the length.</span>`}
    <span class="wb-note">Press Trace.</span>
  </div>`;
}

/** What was confirmed since the graph was sent. */
function useConfirmed(bench, data, graph) {
  const [, again] = useState(0);
  const held = useRef({ of: null, summary: null });
  if (held.current.of !== data) held.current = { of: data, summary: data.json.summary };
  const wanted = data.json.summary_of ?? data.json.id;
  useStream(bench, "graph", (key, json, arrays) => {
    if (key !== "checked" || json.id !== wanted || json.n_nodes !== data.json.n_nodes) return;
    held.current.summary = json;
    graph.found = foundOf(arrays);
    again((count) => count + 1);
  });
  return held.current.summary;
}

/** What is pinned, by name, so that it outlasts another number of nodes; the shared selection is followed. */
function usePinned(bench, graph) {
  const [pin, setPin] = useState(null);
  const node = pin?.node !== undefined ? (graph.place.get(pin.node) ?? null) : null;
  const edge = useMemo(() => (pin?.from === undefined ? null : edgeOf(graph, pin)), [graph, pin]);
  const { layer, head, expert, position } = bench.selection.value;
  const own = useRef("");
  useEffect(() => {
    const said = JSON.stringify([layer, head, expert, position]);
    if (own.current === said) return;
    own.current = said;
    const here = [...chosenNodes(graph, { layer, head, expert, position })].filter(([, how]) => how === 2);
    if (here.length) setPin({ node: graph.names[here[0][0]] });
  }, [layer, head, expert, position, graph]);
  const choose = (fields) => {
    const now = { ...bench.selection.peek() };
    bench.select(fields);
    const after = { ...now, ...(("layer" in fields) ? { head: null, expert: null } : {}), ...fields };
    own.current = JSON.stringify([after.layer, after.head ?? null, after.expert ?? null, after.position]);
  };
  const onPin = (what) => {
    if (!what) return setPin(null);
    if (what.node !== undefined) {
      setPin({ node: graph.names[what.node] });
      return choose(selectionOf(graph, what.node));
    }
    const { from, to } = graph.edge(what.edge);
    setPin({ from: graph.names[from], to: graph.names[to] });
    return choose(selectionOfEdge(graph, what.edge));
  };
  return [{ node, edge }, onPin];
}

function edgeOf(graph, { from, to }) {
  const [a, b] = [graph.place.get(from), graph.place.get(to)];
  if (a === undefined || b === undefined) return null;
  return graph.outgoing[a].find((e) => graph.edge(e).to === b) ?? null;
}

function Graph({ bench, data, choice, busy, stale }) {
  const { json } = data;
  const layers = bench.state.value.model.n_layers;
  const graph = useMemo(() => graphOf(data, layers), [data, layers]);
  const summary = useConfirmed(bench, data, graph);
  const [pinned, onPin] = usePinned(bench, graph);
  const [kept, setKept] = useOption(bench, "graph", "threshold", null);
  const [moving, setMoving] = useState(null); // the slider's share while it is dragged
  const threshold = moving ?? kept ?? json.threshold;
  const all = useMemo(() => pruned(graph, threshold), [graph, threshold]);
  const shown = useMemo(() => withPinned(graph, all, pinned), [graph, all, pinned.node, pinned.edge]);
  const [columns, setColumns] = useOption(bench, "graph", "columns", "kept");
  const [table, setTable] = useOption(bench, "graph", "table", "nodes");
  const edits = useEdits(bench, json, choice);
  const hit = useMemo(() => new Set(edits?.nodes ?? []), [edits]);
  const still = moving === null ? all.nodes : null;
  const placed = useRef(all.nodes);
  if (still) placed.current = still;
  else if (placed.current.length !== graph.n) placed.current = all.nodes;
  const box = useRef(null);
  const wide = useSize(box).width >= WIDE;
  const set = (place) => (setMoving(null), setKept(fromSlider(place)));
  const tables = html`<${Tables} ...${{ bench, graph, shown, pinned, onPin }} kind=${table} onKind=${setTable} />`;
  return html`<div ref=${box} class=${classes("wb-graph", stale && "wb-dim")}>
    <${Summary} ...${{ bench, json, summary, edits, choice, busy }} />
    <div class="wb-bar-line">
      <${Slider} label="Threshold" value=${toSlider(threshold)} min=${0} max=${100} width=${180} format=${(place) => `${percent(place === toSlider(threshold) ? threshold : fromSlider(place))} of the flow`}
        onInput=${(place) => setMoving(fromSlider(place))} onChange=${set} />
      <span class="wb-note" role="status">${all.shown} of ${graph.n} nodes, ${all.edges} of ${json.n_edges} edges${json.n_edges > graph.m ? ` (the weakest ${json.n_edges - graph.m}, ${percent(json.share_left)} of the flow of all edges, are left out)` : ""}</span>
      <span class="wb-tools"><${Segmented} label="Tokens" value=${columns} options=${COLUMNS} onChange=${setColumns} /></span>
    </div>
    <div class=${classes("wb-graph-main", wide && "wb-wide")}>
      <div class="wb-graph-left">
        <${Picture} ...${{ bench, graph, shown, pinned, onPin }} placed=${placed.current} folded=${columns === "kept"} edits=${hit} dim=${false}
          words=${`route graph of ${json.words}: ${all.shown} nodes, ${all.edges} edges; tokens across, layers from below. Arrow keys move, Enter pins, E walks edges`} />
        <${Signs} />
        ${wide && tables}
      </div>
      <${Detail} ...${{ bench, graph, shown, pinned, onPin, choice, json }} />
    </div>
    ${!wide && tables}
  </div>`;
}

/** What is pinned is seen even below the threshold. */
function withPinned(graph, all, { node, edge }) {
  const more = node !== null ? [node] : edge !== null ? [graph.edge(edge).from, graph.edge(edge).to] : [];
  if (more.every((i) => all.nodes[i])) return all;
  const nodes = all.nodes.slice();
  for (const i of more) nodes[i] = 1;
  return { ...all, nodes };
}

/** The nodes that interventions act on, and what became of the target. */
function useEdits(bench, json, choice) {
  const chips = bench.state.value.chips.map(({ id, on }) => `${id}${on ? "+" : "-"}`).join(" ");
  const got = useData(bench, "graph", { what: "edits", chips, id: json.id, ...choice }, { slot: "edits" });
  return got.data?.json ?? null;
}

export default { name: "graph", title: "Route graph", View };
