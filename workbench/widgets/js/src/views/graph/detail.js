/** What is pinned, beside the picture: a node with what it says, an edge with what its removal did. */
import { QUIET_KEYS, html } from "../../html.js";
import { percent, short } from "../../draw/scales.js";
import { useData, useTheme } from "../../hooks.js";
import { Button, Failure, TokenLabel } from "../../parts/index.js";
import { EMBED, ERROR, EXPERT, HEAD, LOGITS, confirmable, disagrees, fullName, shortName, sign, signed } from "./model.js";
import { colourOf } from "./paint.js";

const LISTED = 5; // edges on either side

/** @param {{ bench: object, graph: object, shown: object, pinned: object, onPin: Function, choice: object, json: object }} props */
export function Detail(props) {
  const { pinned } = props;
  if (pinned.node !== null) return html`<${NodeDetail} ...${props} i=${pinned.node} />`;
  if (pinned.edge !== null) return html`<${EdgeDetail} ...${props} e=${pinned.edge} />`;
  return html`<${Nothing} ...${props} />`;
}

/** Before anything is pinned: where to look first. */
function Nothing({ graph, onPin }) {
  const order = Array.from({ length: graph.n }, (_, i) => i).filter((i) => [HEAD, EXPERT].includes(graph.node(i).kind));
  order.sort((a, b) => graph.number(b, "influence") - graph.number(a, "influence"));
  return html`<section class="wb-panel wb-graph-detail" aria-label="details">
    <h3 class="wb-panel-title">Most influential</h3>
    <ul class="wb-graph-list">${order.slice(0, 8).map((i) => html`<li key=${i}><${NodeLink} ...${{ graph, i, onPin }} /><span class="wb-right">${percent(graph.number(i, "influence"))}</span></li>`)}</ul>
    <p class="wb-note">Click a node or an edge, or move with the arrow keys: Enter pins, E walks a node's edges, Escape lets go.</p>
  </section>`;
}

function NodeLink({ graph, i, onPin }) {
  const theme = useTheme();
  const { kind, pos } = graph.node(i);
  const colour = kind === LOGITS ? undefined : colourOf(graph.number(i, "effect"), theme);
  return html`<button type="button" class="wb-link wb-graph-node" onClick=${() => onPin({ node: i })} title=${fullName(graph, i)} ...${QUIET_KEYS}>
    <span aria-hidden="true" style=${{ color: colour }}>${sign(graph, i)}</span> ${shortName(graph, i)} <${TokenLabel} text=${graph.tokens[pos] ?? ""} limit=${10} /></button>`;
}

/** Opens another view on what is selected. */
export function openView(bench, name) {
  const { open } = bench.state.value;
  const front = () => (bench.active.value = name);
  if (open.includes(name)) return front();
  return bench.act("bench", { kind: "open", views: [...open, name] }).then(front, () => {});
}

/** A way to the view that shows the part itself; a view that stands alone has no other. */
function Elsewhere({ bench, kind }) {
  if (bench.state.value.single || (kind !== HEAD && kind !== EXPERT)) return null;
  const [name, title] = kind === HEAD ? ["attention", "Attention"] : ["routing", "Routing"];
  return html`<${Button} onClick=${() => openView(bench, name)}>Open in ${title}</${Button}>`;
}

/* ---------------------------------------------------------------- a node */

function NodeDetail(props) {
  const { bench, graph, i, choice, json, onPin } = props;
  const { kind } = graph.node(i);
  const name = graph.names[i];
  const act = (action) => () => bench.act("graph", { ...choice, ...action, node: name }).catch(() => {});
  const number = (which) => graph.number(i, which);
  const able = kind === EMBED || kind === HEAD || kind === EXPERT;
  return html`<section class="wb-panel wb-graph-detail" aria-label=${fullName(graph, i)}>
    <${Title} ...${{ graph, i, onPin }} />
    ${kind === ERROR
      ? html`<p class="wb-note">What this expert's write adds beyond its linear part: its own biases, and how far it is from linear at what it read. Nothing is known of where that comes from.</p>
          <dl class="wb-graph-numbers"><${Row} name="effect, logits" value=${signed(number("effect"))} /><${Row} name="share of the flow" value=${percent(number("influence"))} /></dl>`
      : html`<dl class="wb-graph-numbers">
          <${Row} name=${kind === LOGITS ? "target, logits" : "effect of its write, logits"} value=${signed(number("effect"))} strong />
          ${kind !== LOGITS && html`<${Row} name="influence" value=${percent(number("influence"))} />`}
          ${kind === EXPERT && html`<${Row} name="routing weight" value=${short(number("routing"))} />`}
        </dl>`}
    ${kind !== EMBED && kind !== ERROR && html`<${Balance} ...${{ graph, i }} />`}
    ${able && html`<${Promotes} ...${{ bench, name, choice, json }} />`}
    <${Edges} ...${props} title="Reads from" list=${graph.incoming[i]} end="from" />
    <${Edges} ...${props} title="Is read by" list=${graph.outgoing[i]} end="to" />
    ${able && html`<div class="wb-graph-acts" role="group" aria-label="touch this node">
      <${Button} onClick=${act({ kind: "ablate" })} title="it writes nothing at this token">Ablate here</${Button}>
      ${kind !== EMBED && html`<${Button} onClick=${act({ kind: "ablate", everywhere: true })} title="it writes nothing at any token">Ablate everywhere</${Button}>`}
      ${json.other !== null && html`<${Button} onClick=${act({ kind: "patch" })} title="it writes what it writes in the other prompt at this position">Patch from <bdi>${json.other}</bdi></${Button}>`}
      <${Elsewhere} bench=${bench} kind=${kind} />
    </div>`}
  </section>`;
}

function Title({ graph, i, onPin }) {
  const theme = useTheme();
  const { kind, pos } = graph.node(i);
  const colour = kind === LOGITS ? undefined : colourOf(graph.number(i, "effect"), theme);
  return html`<div class="wb-panel-head"><h3 class="wb-panel-title"><span aria-hidden="true" style=${{ color: colour }}>${sign(graph, i)}</span> ${shortName(graph, i)}</h3>
    <span class="wb-note">at <${TokenLabel} text=${graph.tokens[pos] ?? ""} limit=${18} /> ${pos}</span>
    <span class="wb-tools"><button type="button" class="wb-close" aria-label="Let go" onClick=${() => onPin(null)} ...${QUIET_KEYS}>×</button></span></div>`;
}

const Row = ({ name, value, strong }) => html`<div><dt>${name}</dt><dd class=${strong ? "wb-strong" : ""}>${value}</dd></div>`;

/** What comes in adds up to what the node's write is worth. */
function Balance({ graph, i }) {
  const kept = graph.incoming[i].reduce((sum, e) => sum + (graph.node(graph.edge(e).from).kind === ERROR ? 0 : graph.edge(e).effect), 0);
  const number = (which) => graph.number(i, which);
  const parts = [["kept nodes", kept], ["other nodes", number("total") - kept - number("bias") - number("error")], ["biases", number("bias")], ["error (not linear)", number("error")]];
  return html`<dl class="wb-graph-sum" aria-label="what comes in">
    ${parts.map(([name, value]) => Math.abs(value) > 1e-9 && html`<${Row} key=${name} name=${name} value=${signed(value)} />`)}
    <div class="wb-graph-total"><dt>comes in, logits</dt><dd>${signed(number("total"))}</dd></div>
  </dl>`;
}

/** The tokens that a node's write raises and lowers by itself. */
function Promotes({ bench, name, choice, json }) {
  const got = useData(bench, "graph", { what: "node", node: name, id: json.id, ...choice }, { slot: "node" });
  const said = got.data?.json.node === name ? got.data.json : null;
  const list = (words, tokens) => html`<div><span class="wb-label">${words}</span>${tokens.map(({ id, text, logit }) => html`<div key=${id} class="wb-graph-token">
    <${TokenLabel} text=${text} limit=${14} /><span class="wb-right">${signed(logit)}</span></div>`)}</div>`;
  if (got.error) return html`<${Failure} error=${got.error} again=${got.again} />`;
  return html`<section aria-label="what it promotes" aria-busy=${said ? "false" : "true"}>
    <p class="wb-label">By itself, through the unembedding, logits of the next token</p>
    <div class=${said ? "wb-graph-promotes" : "wb-graph-promotes wb-graph-waits"}>${said ? [list("raises", said.raised), list("lowers", said.lowered)] : null}</div>
  </section>`;
}

/** The strongest edges on one side. */
function Edges({ graph, shown, list, end, title, onPin }) {
  if (!list.length) return null;
  const visible = list.filter((e) => e < shown.edges).length;
  return html`<section aria-label=${title}>
    <p class="wb-label">${title}: ${Math.min(LISTED, list.length)} of ${list.length} edges${visible < list.length ? `, ${visible} shown` : ""}</p>
    <ul class="wb-graph-list">${list.slice(0, LISTED).map((e) => html`<li key=${e}><${NodeLink} graph=${graph} i=${graph.edge(e)[end]} onPin=${onPin} />
      <${EdgeLink} ...${{ graph, e, onPin }} /></li>`)}</ul>
  </section>`;
}

function EdgeLink({ graph, e, onPin }) {
  const theme = useTheme();
  const { effect, share, from, to } = graph.edge(e);
  const words = `edge ${fullName(graph, from)} → ${fullName(graph, to)}: ${signed(effect)} logits, ${percent(share)} of what comes in`;
  return html`<button type="button" class="wb-link wb-right" title=${words} aria-label=${words} onClick=${() => onPin({ edge: e })} ...${QUIET_KEYS}>
    <span style=${{ color: colourOf(effect, theme) }}>${signed(effect)}</span></button>`;
}

/* ---------------------------------------------------------------- an edge */

function EdgeDetail(props) {
  const { bench, graph, e, choice, onPin } = props;
  const { from, to, effect, flow, share, attention } = graph.edge(e);
  const [source, target] = [graph.names[from], graph.names[to]];
  const { kind } = graph.node(to);
  const found = graph.found.get(e);
  const isError = graph.node(from).kind === ERROR;
  const act = (action) => () => bench.act("graph", { ...choice, ...action }).catch(() => {});
  const busy = bench.jobs.value.some((job) => job.view === "graph" && (job.state === "running" || job.state === "queued"));
  return html`<section class="wb-panel wb-graph-detail" aria-label=${`edge ${fullName(graph, from)} to ${fullName(graph, to)}`}>
    <div class="wb-panel-head"><h3 class="wb-panel-title">Edge</h3>
      <span class="wb-tools"><button type="button" class="wb-close" aria-label="Let go" onClick=${() => onPin(null)} ...${QUIET_KEYS}>×</button></span></div>
    <div class="wb-graph-ends"><${NodeLink} graph=${graph} i=${from} onPin=${onPin} /><span aria-hidden="true">→</span><${NodeLink} graph=${graph} i=${to} onPin=${onPin} /></div>
    <dl class="wb-graph-numbers">
      <${Row} name="effect, logits" value=${signed(effect)} strong />
      <${Row} name=${`of what comes in at ${shortName(graph, to)}`} value=${percent(share)} />
      <${Row} name="of the flow into the logits" value=${percent(flow)} />
      ${kind === HEAD && html`<${Row} name=${`attention of H${graph.node(to).index} to position ${graph.node(from).pos}`} value=${percent(attention)} />`}
      ${kind === EXPERT && html`<${Row} name=${`routing weight of E${graph.node(to).index}`} value=${short(graph.number(to, "routing"))} />`}
    </dl>
    ${isError ? null : kind === LOGITS
      ? html`<p class="wb-note">Into the logits an edge is exact, as long as the final norm's scale is held.</p>`
      : html`<${Confirmed} ...${{ found, effect }} />`}
    <div class="wb-graph-acts" role="group" aria-label="touch this edge">
      ${confirmable(graph, e) && !found && html`<${Button} disabled=${busy} onClick=${act({ kind: "confirm", edges: [[source, target]] })} title="take it away in the held model and in the live one">Confirm this edge</${Button}>`}
      ${!isError && html`<${Button} onClick=${act({ kind: "knock_out", edge: [source, target] })} title=${knocked(graph, e)}>Knock out</${Button}>`}
      <${Elsewhere} bench=${bench} kind=${kind} />
    </div>
    ${!isError && html`<p class="wb-note">Knock out: ${knocked(graph, e)}.</p>`}
  </section>`;
}

/** What an intervention can do that comes nearest to the edge's removal. */
function knocked(graph, e) {
  const { from, to } = graph.edge(e);
  const [source, target] = [graph.node(from), graph.node(to)];
  if (target.kind === HEAD) return `at position ${target.pos}, ${shortName(graph, to)} no longer reads position ${source.pos}, whoever wrote there`;
  if (target.kind === LOGITS) return `${shortName(graph, from)} writes nothing at position ${source.pos}`;
  return `${shortName(graph, to)} writes nothing at position ${target.pos}`;
}

/** What taking the edge away did. */
function Confirmed({ found, effect }) {
  if (!found) return html`<p class="wb-note">Not confirmed: what its removal does in the live model was not tried.</p>`;
  const most = Math.max(Math.abs(effect), Math.abs(found.held), Math.abs(found.live), 1e-12);
  const theme = useTheme();
  const bar = (name, value) => html`<div key=${name}><dt>${name}</dt><dd>${signed(value)}</dd>
    <dd class="wb-graph-bar" aria-hidden="true"><span style=${{ [value < 0 ? "right" : "left"]: "50%", width: `${(50 * Math.abs(value)) / most}%`, background: colourOf(value, theme) }}></span></dd></div>`;
  return html`<dl class="wb-graph-bars" aria-label="effect of the edge, logits">${[bar("predicted", effect), bar("held model", found.held), bar("live model", found.live)]}</dl>
    ${disagrees(found) && html`<p class="wb-note wb-strong">× In the live model, taking it away does the opposite.</p>`}`;
}
