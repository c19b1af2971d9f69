/** Routing: which experts each token goes to, what changes when it does not, and what the experts specialise in. */
import "./routing.css";
import { classes, html, useEffect, useMemo, useRef, useState } from "../html.js";
import { short } from "../draw/scales.js";
import { useData, useOption, useSize, useStream } from "../hooks.js";
import { Button, Empty, Ready, Segmented } from "../parts/index.js";
import { Corpus } from "./routing/corpus.js";
import { Effect, Inspector } from "./routing/inspector.js";
import { LayerChoice, Statistics } from "./routing/panels.js";
import { largest, routesOf } from "./routing/reduce.js";
import { Ribbon } from "./routing/ribbon.js";
import { Unchosen } from "./routing/unchosen.js";

const ZOOMS = [["overview", "Overview"], ["fit", "Fit"], ["numbers", "Numbers"]];
const WIDE = 820;

/** @param {{ bench: import("../store.js").Bench }} props */
function View({ bench }) {
  const [part, setPart] = useState(0);
  const got = useData(bench, "routing", { what: "ribbon", part }, { slot: "ribbon" });
  const { position } = bench.selection.value;
  const json = got.data?.json;
  useEffect(() => {
    // The page of a very long text follows the selection.
    if (json && position !== null && position < json.n_pos && (position < json.start || position >= json.start + json.size)) setPart(position);
  }, [position, json?.n_pos]);
  return html`<${Ready} got=${got} height=${430}>${(data) =>
    data.json.n_pos === 0
      ? html`<${Empty}>The text is empty.</${Empty}>`
      : data.arrays.chosen.shape[2] === 0
        ? html`<${Empty}>This model routes to no experts.</${Empty}>`
        : html`<${Whole} ...${{ bench, data, setPart }} stale=${got.stale} />`}</${Ready}>`;
}

function Whole({ bench, data, stale, setPart }) {
  const { json } = data;
  const [zoom, setZoom] = useOption(bench, "routing", "zoom", "fit");
  const [where, setWhere] = useOption(bench, "routing", "where", "everywhere");
  const [tried, setTried] = useState(null);
  const box = useRef(null);
  const wide = useSize(box).width >= WIDE;
  const revision = bench.revision.value;
  const now = tried && tried.json.revision === revision ? tried : null;
  const wanting = useRef(false);
  useStream(bench, "routing", (key, said, arrays) => {
    if (key === "preview" && wanting.current) setTried({ json: said, arrays });
  });
  const routes = useMemo(() => routesOf(data, now), [data, now]);
  const edits = useEdits(bench);
  const { act, tryOut: send, force } = useActs(bench, where);
  const tryOut = (kind, more) => {
    wanting.current = kind !== null;
    if (kind) send(kind, more);
    else setTried(null);
  };
  const focus = useRef({});
  const go = (what, target) => {
    if (what === "where") setWhere(where === "token" ? "everywhere" : "token");
    else if (what === "remove") bench.act("routing", { kind: "remove", layer: target.layer, expert: target.expert }).catch(() => {});
    else requestAnimationFrame(() => focus.current[what]?.());
  };
  const layer = Math.min(bench.selection.value.layer ?? 0, routes.layers - 1);
  const { position } = bench.selection.value;
  const token = position === null ? null : (json.tokens[position - json.start] ?? null);
  return html`<div class="wb-routing" ref=${box}>
    <div class="wb-bar-line">
      <${Segmented} label="Ribbon" value=${zoom} options=${ZOOMS} onChange=${setZoom} />
      <${Pages} json=${json} setPart=${setPart} />
      <${Signs} routes=${routes} />
    </div>
    <div class=${classes("wb-routing-main", wide && "wb-wide")}>
      <${Ribbon} ...${{ bench, data, routes, zoom, stale }} onAct=${act} onGo=${go} />
      <div class="wb-routing-aside">
        <${Inspector} ...${{ bench, data, routes, edits, where, setWhere, act, tryOut, focus }} />
        <${Effect} ...${{ bench, effect: json.effect, tried: now }} />
      </div>
    </div>
    <${Unchosen} ...${{ bench, token, force }} />
    <div class="wb-bar-line wb-routing-cut"><h3 class="wb-panel-title">This text</h3><${LayerChoice} ...${{ bench, layer }} layers=${routes.layers} /></div>
    <${Statistics} ...${{ bench, layer }} />
    <${Corpus} ...${{ bench, layer }} />
  </div>`;
}

/** What shapes and colours in the ribbon mean. */
function Signs({ routes }) {
  const most = useMemo(() => (routes.kl ? largest(routes.kl, 0) : null), [routes]);
  return html`<span class="wb-key wb-routing-signs">
    <span class="wb-key-item"><span class="wb-routing-sample" aria-hidden="true"><i></i><i></i></span>colour and number: expert of that layer · width: routing weight</span>
    ${most !== null && html`<span class="wb-key-item"><b aria-hidden="true">◤</b>new route</span><span class="wb-key-item"><b aria-hidden="true">≠</b>next token flipped · bar: KL, up to ${short(most)} nats</span>`}
  </span>`;
}

/** The page of a text that is too long for one message. */
function Pages({ json, setPart }) {
  if (json.n_pos <= json.size) return null;
  const end = Math.min(json.start + json.size, json.n_pos);
  return html`<span class="wb-field" role="group" aria-label="part of the text">
    <${Button} label="earlier tokens" disabled=${json.start === 0} onClick=${() => setPart(json.start - json.size)}>‹</${Button}>
    <span class="wb-note">tokens ${json.start} to ${end - 1} of ${json.n_pos}</span>
    <${Button} label="later tokens" disabled=${end >= json.n_pos} onClick=${() => setPart(end)}>›</${Button}>
  </span>`;
}

/** The edits on experts, known as soon as the chips change. */
function useEdits(bench) {
  const chips = bench.state.value.chips.map(({ id, on }) => `${id}${on ? "+" : "-"}`).join(" ");
  const got = useData(bench, "routing", { what: "edits", chips }, { slot: "edits" });
  return got.data?.json.edits ?? [];
}

/** What the buttons and keys do. */
function useActs(bench, where) {
  const busy = useRef(null); // the newest edit that waits to be tried while one is on its way
  const action = (kind, more, target) => {
    const { layer, expert, position } = target ?? bench.selection.peek();
    return { kind, layer, expert, position: where === "token" ? position : null, ...more };
  };
  const send = (what) => bench.act("routing", what).catch(() => {});
  const act = (kind, more = {}) => {
    const [target, rest] = more.layer === undefined ? [null, more] : [more, {}];
    const made = action(kind, rest, target);
    if (where === "token" && made.position === null) return bench.note("Select a token first, or let edits act everywhere.");
    return send(made);
  };
  const tryOut = (kind, more) => {
    const made = { kind: "preview", action: action(kind, more) };
    if (busy.current) return void (busy.current.next = made);
    const run = async (first) => {
      busy.current = { next: null };
      await send(first);
      const { next } = busy.current;
      busy.current = null;
      if (next) await run(next);
    };
    return void run(made);
  };
  const force = (expert) => {
    const { layer, position } = bench.selection.peek();
    return send({ kind: "force", layer, expert, position });
  };
  return { act, tryOut, force };
}

export default { name: "routing", title: "Routing", View };
