/** The same graph as tables: nodes or edges, those that are shown. */
import { html, useMemo } from "../../html.js";
import { percent, tint } from "../../draw/scales.js";
import { useTheme } from "../../hooks.js";
import { Segmented, SortableTable, TokenLabel } from "../../parts/index.js";
import { ERROR, LOGITS, rowOf, shortName, sign, signed } from "./model.js";
import { colourOf } from "./paint.js";

const KINDS = [["nodes", "Nodes"], ["edges", "Edges"]]; // prettier-ignore

/** @param {{ graph: object, shown: object, pinned: object, onPin: Function, kind: string, onKind: Function, bench: object }} props */
export function Tables(props) {
  const { graph, shown, kind, onKind } = props;
  return html`<section class="wb-panel" aria-label="the graph as a table">
    <div class="wb-bar-line"><${Segmented} label="Table of" value=${kind} options=${KINDS} onChange=${onKind} />
      <span class="wb-note">${kind === "nodes" ? `${shown.shown} of ${graph.n} nodes` : `${shown.edges} of ${graph.m} edges`}, those above the threshold</span></div>
    ${kind === "nodes" ? html`<${Nodes} ...${props} />` : html`<${EdgeRows} ...${props} />`}
  </section>`;
}

const named = (graph, i) => html`<span aria-hidden="true">${sign(graph, i)}</span> ${shortName(graph, i)}`;
const placed = (graph, i) => html`<${TokenLabel} text=${graph.tokens[graph.node(i).pos] ?? ""} limit=${14} /> <span class="wb-soft">${graph.node(i).pos}</span>`;

function Nodes({ graph, shown, pinned, onPin }) {
  const theme = useTheme();
  const rows = useMemo(() => {
    const made = [];
    for (let i = 0; i < graph.n; i++) if (shown.nodes[i]) made.push({ i, effect: graph.number(i, "effect"), influence: graph.number(i, "influence") });
    return made;
  }, [graph, shown]);
  const limit = Math.max(1e-12, ...rows.filter(({ i }) => i !== graph.logits).map(({ effect }) => Math.abs(effect)));
  const columns = [
    { key: "node", title: "node", value: ({ i }) => rowOf(graph, i) * 1000 + graph.node(i).index, cell: ({ i }) => named(graph, i), width: "minmax(120px, 1.4fr)" },
    { key: "token", title: "at token", value: ({ i }) => graph.node(i).pos, cell: ({ i }) => placed(graph, i), width: "minmax(120px, 1.4fr)" },
    { key: "effect", title: "effect, logits", align: "right", cell: ({ effect }) => signed(effect), fill: ({ i, effect }) => filled(graph.node(i).kind, effect, limit, theme) },
    { key: "influence", title: "influence", align: "right", value: ({ i, influence }) => (graph.node(i).kind === LOGITS ? null : influence), cell: ({ i, influence }) => (graph.node(i).kind === LOGITS ? "" : percent(influence)) },
    { key: "in", title: "edges in", align: "right", value: ({ i }) => count(graph.incoming[i], shown), cell: ({ i }) => count(graph.incoming[i], shown) },
    { key: "out", title: "edges out", align: "right", value: ({ i }) => count(graph.outgoing[i], shown), cell: ({ i }) => count(graph.outgoing[i], shown) },
  ];
  return html`<${SortableTable} label="nodes that are shown" columns=${columns} rows=${rows} rowKey=${({ i }) => i} sort=${{ key: "influence", down: true }}
    selected=${pinned.node} onSelect=${({ i }) => onPin({ node: i })} maxHeight=${240} />`;
}

/** What stands where nothing was measured: edges into the logits are exact, errors are no edges to take away. */
function unknown(graph, { from, to }) {
  if (graph.node(from).kind === ERROR) return "";
  return html`<span class="wb-soft">${graph.node(to).kind === LOGITS ? "exact" : "–"}</span>`;
}

const count = (list, shown) => list.reduce((sum, e) => sum + (e < shown.edges ? 1 : 0), 0);
const filled = (kind, effect, limit, theme) => (kind === LOGITS ? null : tint(colourOf(effect, theme), 0.45 * Math.min(1, Math.abs(effect) / limit), theme));

function EdgeRows({ graph, shown, pinned, onPin }) {
  const theme = useTheme();
  const rows = useMemo(() => Array.from({ length: shown.edges }, (_, e) => ({ e, ...graph.edge(e), ...graph.found.get(e) })), [graph, graph.found, shown]);
  const limit = Math.max(1e-12, ...rows.map(({ effect }) => Math.abs(effect)));
  const end = (key, title) => ({ key, title, value: (row) => rowOf(graph, row[key]) * 1e4 + graph.node(row[key]).pos, cell: (row) => html`${named(graph, row[key])} ${placed(graph, row[key])}`, width: "minmax(130px, 1.5fr)" });
  const number = (key, title, hint) => ({ key, title, hint, align: "right", value: (row) => row[key] ?? null, cell: (row) => (row[key] === undefined ? unknown(graph, row) : signed(row[key])), width: "minmax(62px, 0.7fr)" });
  const columns = [
    end("from", "from"), end("to", "to"),
    { ...number("effect", "effect, logits"), fill: ({ effect }) => filled(null, effect, limit, theme), width: "minmax(80px, 0.7fr)" },
    { key: "share", title: "of input", hint: "share of what comes in at the target node", align: "right", cell: ({ share }) => percent(share), width: "minmax(70px, 0.8fr)" },
    { key: "flow", title: "of flow", hint: "share of the flow into the logits", align: "right", cell: ({ flow }) => percent(flow), width: "minmax(62px, 0.7fr)" },
    number("held", "held model", "effect when it is taken away in the held model"), number("live", "live model", "… in the live model"),
  ]; // prettier-ignore
  return html`<${SortableTable} label="edges that are shown" columns=${columns} rows=${rows} rowKey=${({ e }) => e} sort=${{ key: "flow", down: true }}
    selected=${pinned.edge} onSelect=${({ e }) => onPin({ edge: e })} maxHeight=${240} />`;
}
