/** The picture: two canvases over one another, a window that scrolls, the mouse and the keys. */
import { QUIET_KEYS, classes, html, useEffect, useId, useLayoutEffect, useMemo, useRef, useState } from "../../html.js";
import { reveal } from "../../draw/ranges.js";
import { useFrame, useSharpness, useSize, useTheme } from "../../hooks.js";
import { LEFT, edgeAt, layout, nodeAt, walk } from "./layout.js";
import { around, chosenNodes, describeEdge, describeNode, rowOf } from "./model.js";
import { paintBase, paintOver } from "./paint.js";

const TALLEST = 560;

/**
 * @param {{ bench: object, graph: import("./model.js").Graph, shown: object, placed: Uint8Array, folded: boolean, edits: Set<number>,
 *   pinned: { node: number|null, edge: number|null }, onPin: (what: { node?: number, edge?: number }|null) => void,
 *   dim: boolean, words: string }} props placed: nodes with room of their own, those that are shown once the slider rests
 */
export function Picture(props) {
  const box = useRef(null);
  const room = useSize(box).width;
  const place = useMemo(() => (room > 120 ? layout(props.graph, { room, folded: props.folded, nodes: props.placed }) : null), [props.graph, room, props.folded, props.placed]);
  return html`<div class=${classes("wb-graph-picture", props.dim && "wb-dim")} ref=${box}>
    ${place && html`<${Window} ...${props} place=${place} />`}
  </div>`;
}

function Window(props) {
  const { bench, graph, shown, place, pinned, edits, words } = props;
  const theme = useTheme();
  const id = useId();
  const [refs] = useState(() => ({ scroller: null, base: null, over: null, tip: null, painted: [], under: null }));
  const [cursor, setCursor] = useState(null);
  const [focused, setFocused] = useState(false);
  const scene = useMemo(() => ({ graph, place, shown, theme, edits }), [graph, graph.found, place, shown, theme, edits]);
  const latest = useRef(null);
  const at = cursor !== null && shown.nodes[cursor] ? cursor : (pinned.node ?? graph.logits);
  latest.current = { ...props, scene, sharpness: useSharpness(), at, cursor: focused ? at : null, selection: bench.selection.value, hover: bench.hover.value };
  const paint = useFrame(() => paintAll(refs, latest.current));
  useLayoutEffect(() => {
    paint();
  });
  useLayoutEffect(() => {
    hide(refs); // its words, and the node under the mouse, are of another graph
    refs.under = null;
    show(refs, place, graph.logits); // the target first: it stands at the right end
  }, [graph]);
  useEffect(() => {
    if (pinned.node !== null) show(refs, place, pinned.node);
  }, [pinned.node, place]);
  const on = actions(refs, latest, { setCursor, paint });
  const height = Math.min(TALLEST, place.height);
  return html`<div class="wb-graph-window" role="grid" tabindex="0" aria-label=${words} aria-rowcount=${place.rows.length}
    aria-colcount=${graph.tokens.length} aria-activedescendant=${id} ...${QUIET_KEYS} style=${{ height: `${height}px` }}
    ref=${(element) => void (refs.scroller = element)} onScroll=${() => (hide(refs), paint())} onKeyDown=${on.key}
    onFocus=${() => setFocused(true)} onBlur=${() => (setFocused(false), hide(refs))}
    onPointerMove=${on.move} onPointerLeave=${on.leave} onClick=${on.click}>
    <div role="presentation" class="wb-matrix-all" style=${{ width: `${Math.ceil(place.width)}px`, height: `${place.height}px` }}>
      <div class="wb-matrix-sticky" role="presentation">
        <canvas aria-hidden="true" ref=${(element) => void (refs.base = element)}></canvas>
        <canvas aria-hidden="true" ref=${(element) => void (refs.over = element)}></canvas>
        <div class="wb-tip" aria-hidden="true" hidden ref=${(element) => void (refs.tip = element)}></div>
      </div>
    </div>
    <div role="row" class="wb-unseen" aria-rowindex=${rowOf(graph, at) + 1}>
      <div role="gridcell" id=${id} aria-colindex=${graph.node(at).pos + 1} aria-selected=${pinned.node === at ? "true" : "false"}>
        ${describeNode(graph, at, shown.edges)}
      </div>
    </div>
  </div>`;
}

/** What is lit: what the mouse is on, else what is pinned. */
function litOf({ graph, shown, pinned }, under) {
  const node = under?.node ?? (under ? null : pinned.node);
  const edge = under?.edge ?? (under ? null : pinned.edge);
  if (node !== null && node !== undefined) return { node, ...around(graph, node, shown.edges) };
  if (edge === null || edge === undefined) return null;
  const { from, to } = graph.edge(edge);
  return { node: null, edges: [edge], nodes: new Set([from, to]) };
}

function paintAll(refs, now) {
  const { scroller, base, over } = refs;
  if (!scroller || !base) return;
  const view = { width: scroller.clientWidth, height: scroller.clientHeight, left: scroller.scrollLeft, top: scroller.scrollTop };
  const key = [now.scene, now.sharpness, now.graph.found, view.width, view.height, view.left, view.top];
  const start = performance.now();
  if (key.some((part, i) => !Object.is(part, refs.painted[i]))) {
    paintBase(base, view, now.scene);
    refs.painted = key;
  }
  const { selection, hover, graph } = now;
  const lit = litOf(now, refs.under);
  const row = selection.layer !== null ? 2 * selection.layer + (selection.expert !== null ? 2 : 1) : null;
  const hovered = hover && !refs.under ? chosenNodes(graph, { head: null, expert: null, position: null, ...hover }) : new Map();
  const more = { lit, chosen: chosenNodes(graph, selection), hovered, cursor: now.cursor, row, position: selection.position };
  paintOver(over, view, now.scene, more);
  over.dataset.painted = String(Number(over.dataset.painted ?? 0) + 1);
  over.dataset.took = (performance.now() - start).toFixed(2);
}

/** Scrolls a node into the window. */
function show({ scroller }, place, i) {
  if (!scroller) return;
  const [wide, high] = [scroller.clientWidth, scroller.clientHeight - place.foot];
  scroller.scrollLeft = reveal(scroller.scrollLeft + LEFT, wide - LEFT, place.x[i] - 20, place.x[i] + 20) - LEFT;
  scroller.scrollTop = reveal(scroller.scrollTop, high, place.y[i] - 20, place.y[i] + 20);
}

const hide = ({ tip }) => {
  if (tip) tip.hidden = true;
};

/** The words of what is under the mouse or the cursor, beside it. */
function tell(refs, text, x, y) {
  const { tip, scroller } = refs;
  tip.textContent = text;
  tip.hidden = false;
  const [left, top] = [x - scroller.scrollLeft, y - scroller.scrollTop];
  const [wide, high] = [tip.offsetWidth, tip.offsetHeight];
  const [room, tall] = [scroller.clientWidth, scroller.clientHeight];
  const toX = left + 14 + wide <= room ? left + 14 : Math.max(0, left - 14 - wide);
  tip.style.transform = `translate(${toX}px, ${Math.max(0, Math.min(top + 12, tall - high))}px)`;
}

function actions(refs, latest, { setCursor, paint }) {
  const find = (event) => {
    const { scene, shown } = latest.current;
    const { left, top } = refs.scroller.getBoundingClientRect();
    const [px, py] = [event.clientX - left, event.clientY - top];
    if (px < LEFT - 6 || py > refs.scroller.clientHeight - scene.place.foot) return null;
    const [x, y] = [px + refs.scroller.scrollLeft, py + refs.scroller.scrollTop];
    const node = nodeAt(scene.place, shown.nodes, x, y);
    if (node >= 0) return { node, x: scene.place.x[node], y: scene.place.y[node] };
    const edge = edgeAt(scene.graph, scene.place, shown.edges, x, y);
    return edge >= 0 ? { edge, x, y } : null;
  };
  const under = (found) => {
    const { graph, shown, bench } = latest.current;
    const same = refs.under?.node === found?.node && refs.under?.edge === found?.edge;
    refs.under = found;
    if (found) tell(refs, found.node !== undefined ? describeNode(graph, found.node, shown.edges) : describeEdge(graph, found.edge), found.x, found.y);
    else hide(refs);
    if (same) return;
    refs.scroller.style.cursor = found ? "pointer" : "";
    bench.hover.value = found?.node === undefined ? null : hoverOf(graph, found.node);
    paint();
  };
  return {
    move: (event) => under(find(event)),
    leave: () => under(null),
    click(event) {
      const found = find(event);
      hide(refs);
      if (found?.node !== undefined) setCursor(found.node);
      latest.current.onPin(found);
    },
    key(event) {
      if (event.altKey || event.metaKey || event.ctrlKey) return;
      const now = latest.current;
      const { graph, shown, at, pinned, onPin, scene } = now;
      const to = walk(graph, scene.place, shown.nodes, at, event.key);
      if (to !== null) {
        setCursor(to);
        show(refs, scene.place, to);
        tell(refs, describeNode(graph, to, shown.edges), scene.place.x[to], scene.place.y[to]);
        now.bench.hover.value = hoverOf(graph, to);
      } else if (event.key === "Enter" || event.key === " ") onPin({ node: at });
      else if (event.key === "Escape" && (pinned.node !== null || pinned.edge !== null)) onPin(null);
      else if (event.key.toLowerCase() === "e") nextEdge(now, event.shiftKey ? -1 : 1);
      else return;
      event.preventDefault();
      event.stopPropagation();
    },
  };
}

/** The next edge of the node under the cursor, the strongest first. */
function nextEdge({ graph, shown, at, pinned, onPin }, by) {
  const { edges } = around(graph, at, shown.edges);
  const order = edges.sort((a, b) => a - b);
  if (!order.length) return;
  const now = order.indexOf(pinned.edge);
  onPin({ edge: order[(now < 0 ? (by > 0 ? 0 : order.length - 1) : now + by + order.length) % order.length] });
}

function hoverOf(graph, i) {
  const { kind, layer, index, pos } = graph.node(i);
  if (kind === 1) return { layer, head: index, position: pos };
  if (kind === 2 || kind === 4) return { layer, expert: index, position: pos };
  return { position: pos };
}
