/** Steering: a direction added to the stream, and what comes of it, beside a direction that means nothing. */
import "./steering.css";
import { html, useEffect, useMemo, useRef, useState } from "../html.js";
import { percent, short } from "../draw/scales.js";
import { useData } from "../hooks.js";
import { Button, Empty, JobBar, Ready, Segmented, Select, Slider, TextField } from "../parts/index.js";
import { Direction } from "./steering/direction.js";
import { Effects, Texts } from "./steering/results.js";
import { SITES, WHERE, shareOf, stepOf, typed } from "./steering/words.js";

const VIEW = "steering";
const OF_THE_DIRECTION = ["direction", "positive", "negative", "at", "token", "of_layer", "of_index", "of_position", "vector", "layer", "part", "where"];

/** What is asked about, as Python takes it: so that an answer never belongs to older choices. */
function useAsk(bench) {
  const options = bench.state.value.options[VIEW];
  const { layer, position, head, expert, span } = bench.selection.value;
  const mine = Object.fromEntries(OF_THE_DIRECTION.map((name) => [name, options[name]]));
  const said = JSON.stringify({ options: mine, selection: { layer, position, head, expert, span } });
  return useMemo(() => JSON.parse(said), [said]);
}

/** @param {{ bench: import("../store.js").Bench }} props */
function View({ bench }) {
  const ask = useAsk(bench);
  const options = bench.state.value.options[VIEW];
  const vectors = bench.state.value.history.now; // a vector that was put on, or opened, is a step of the history
  const got = useData(bench, VIEW, { what: "setup", vectors, ...ask, scale: options.scale }, { slot: "setup" });
  const setup = got.data?.json;
  return html`<div class="wb-steering">
    <${Direction} ...${{ bench, options, setup }} />
    <${Place} ...${{ bench, options, setup }} />
    <${JobBar} bench=${bench} view=${VIEW} />
    <${Ready} got=${got} height=${320}>${({ json }) => (json.missing
      ? html`<${Empty} title="No direction yet.">${json.missing}</${Empty}>`
      : html`<${Tried} ...${{ bench, ask, options }} setup=${json} />`)}</${Ready}>
  </div>`;
} // prettier-ignore

/** Where it is added. */
function Place({ bench, options, setup }) {
  const set = (values) => bench.option(VIEW, values);
  const layers = Array.from({ length: bench.state.value.model.n_layers }, (_, i) => [String(i), `layer ${i}`]);
  const follows = `as selected${setup && options.layer === null ? ` (layer ${setup.layer})` : ""}`;
  return html`<div class="wb-bar-line">
    <${Select} label="Added in" value=${options.layer === null ? "" : String(options.layer)} options=${[["", follows], ...layers]}
      onChange=${(value) => set({ layer: value === "" ? null : Number(value) })} />
    <${Select} label="to" value=${options.part} options=${SITES} onChange=${(part) => set({ part })} />
    <${Segmented} label="at" value=${options.where} options=${WHERE} onChange=${(where) => set({ where })} />
  </div>`;
}

/** The scale, and what comes of it. */
function Tried({ bench, ask, options, setup }) {
  const [drag, setDrag] = useState(null);
  const scale = drag ?? setup.scale;
  useEffect(() => setDrag(null), [setup.study]);
  const live = { ...ask, scale };
  const settled = { ...ask, scale: setup.scale };
  const effect = useData(bench, VIEW, { what: "effect", of: setup.study, ...live }, { slot: "effect" });
  const controls = useData(bench, VIEW, { what: "controls", of: setup.study, ...settled }, { slot: "controls" });
  const dragged = drag !== null && drag !== setup.scale;
  return html`<${Scale} ...${{ bench, ask, setup, scale, setDrag }} />
    <${Effects} ...${{ effect, controls, dragged }} />
    <${Texts} ...${{ bench, dragged }} ask=${{ ...settled, options: { ...ask.options, length: options.length } }} study=${setup.study} length=${options.length} live=${options.live} />
    ${setup.chips > 0 && html`<p class="wb-note">The interventions on the Bench are not on in this view: default is the text without them.</p>`}`;
}

/** The slider: live while it is dragged, kept when it is let go. */
function Scale({ bench, ask, setup, scale, setDrag }) {
  const [text, setText] = useState(null);
  const reach = useRef(setup.reach);
  reach.current = setup.reach;
  const keep = (value) => (setDrag(value), bench.option(VIEW, { scale: value }));
  const enter = (given) => {
    const value = typed(given);
    if (value === null) return bench.fail(new Error(`“${given}” is no number: the scale is one, such as 2 or −0.5`));
    setText(null);
    return keep(value);
  };
  const put = () => bench.act(VIEW, { kind: "put", ...ask, scale }).then(({ name }) => bench.note(`${name} is on the Bench`), () => {});
  const share = shareOf(setup, scale);
  const same = setup.chip && Math.abs(setup.chip.scale - scale) < 1e-9;
  return html`<div class="wb-steering-scale">
    <div class="wb-bar-line">
      <${Slider} label="Scale" value=${scale} min=${-setup.reach} max=${setup.reach} step=${stepOf(setup.reach)} width=${260} format=${(value) => `× ${short(value)}`}
        onInput=${setDrag} onChange=${keep} />
      <${TextField} label="scale, typed" hideLabel width=${72} value=${text ?? short(scale)} onInput=${setText} onEnter=${enter} />
      <${Button} kind="quiet" onClick=${() => keep(-scale)} title="the other way">Turn around</${Button}>
      <${Button} kind="quiet" onClick=${() => (setDrag(null), bench.option(VIEW, { scale: null }))} title="half as long as what stands there">Half the stream</${Button}>
      <span class="wb-tools"><${Button} kind="primary" onClick=${put} disabled=${!!setup.cannot_put || same} title=${setup.cannot_put ?? "the vector, and a Steer intervention that adds it"}>${
        setup.chip ? (same ? "On the Bench" : "Update the Bench") : "Put it on the Bench"}</${Button}></span>
    </div>
    <div class="wb-steering-length">
      <span class="wb-steering-gauge" aria-hidden="true" title="from 0 to twice what stands at the site; dashed: as long as it"><span style=${{ width: `${Math.min(1, share / 2) * 100}%` }}></span><i></i></span>
      <span class="wb-note"><span><bdi>${setup.name}</bdi></span><span>length ${short(Math.abs(scale) * setup.norm)} = <b>${percent(share)}</b> of what stands at the site (median length ${short(setup.stream)}${
        setup.positions === null ? "" : `, at ${setup.positions} token${setup.positions > 1 ? "s" : ""}`})</span></span>
    </div>
    ${setup.cannot_put && html`<p class="wb-note">Not for the Bench: ${setup.cannot_put}.</p>`}
  </div>`;
} // prettier-ignore

export default { name: "steering", title: "Steering", View };
