/** What can be done to a head: its sink dragged, edges of its pattern cut, the head taken away. */
import { html, useEffect, useRef, useState } from "../../html.js";
import { Button, Select, Slider } from "../../parts/index.js";
import { SINK } from "./geometry.js";

const PAUSE = 1200; // milliseconds: inputs closer together than this are one step of the history

/** Sends actions of which only the newest counts: the next one when the run that follows from the last is there. */
function useNewest(bench) {
  const box = useRef({ waiting: null, busy: false });
  const flush = () => {
    const { waiting, busy } = box.current;
    if (!waiting || busy || bench.state.peek()?.running) return;
    Object.assign(box.current, { waiting: null, busy: true });
    const after = () => ((box.current.busy = false), flush());
    bench.act("attention", waiting).then(after, after);
  };
  const { running, revision } = bench.state.value;
  useEffect(flush, [running, revision]);
  const send = (action) => {
    box.current.waiting = action;
    flush();
  };
  const idle = () => !box.current.waiting && !box.current.busy && !bench.state.peek()?.running;
  return { send, idle };
}

const RANGES = { scale: [0, 4, 0.05], set: [0, 1, 0.01] };
const START = { scale: 1, set: 0.5 };

/** The sink of one head. */
function Sink({ bench, where, sink }) {
  const { send, idle } = useNewest(bench);
  const drag = useRef({ id: "", at: 0 });
  const [local, setLocal] = useState(null); // what was just dragged to, until Python says the same
  const key = `${where.layer} ${where.head} ${JSON.stringify(sink)}`;
  // What Python says while one drags is already old.
  useEffect(() => void (idle() && setLocal(null)), [key]);
  const operation = local?.operation ?? sink?.operation ?? "restore";
  const kind = operation === "set" ? "set" : "scale";
  const value = local?.value ?? sink?.value ?? START[kind];
  const step = () => {
    const now = Date.now();
    if (now - drag.current.at > PAUSE) drag.current.id = `${now}`;
    drag.current.at = now;
    return drag.current.id;
  };
  const put = (fresh, to, dragged) => {
    setLocal({ operation: fresh, value: to });
    const valued = fresh === "scale" || fresh === "set";
    send({ kind: "sink", ...where, operation: fresh, value: valued ? to : null, drag: dragged ? step() : null });
  };
  const slide = (to) => put(kind === "scale" && to === 1 ? "restore" : kind, to, true);
  const [min, max, by] = RANGES[kind];
  return html`<span class="wb-field">
    <${Select} label="Its sink" value=${operation} onChange=${(fresh) => put(fresh, START[fresh] ?? null, false)}
      options=${[["restore", "as learned"], ["scale", "share scaled"], ["set", "share set"], ["remove", "removed"]]} />
    <${Slider} label=${kind === "scale" ? "times the sink's share" : "the sink's share"} hideLabel width=${120} min=${min} max=${max} step=${by}
      value=${value} disabled=${operation === "remove"} format=${(number) => (kind === "scale" ? `× ${number.toFixed(2)}` : number.toFixed(2))}
      onInput=${slide} onChange=${slide} />
  </span>`;
} // prettier-ignore

/** Whether an edge is among those that are cut, by itself or with its column. */
export const isCut = (cut, query, key) => cut.some(([q, k]) => k === key && (q === null || q === query));

/** The chosen edge. */
function Edge({ bench, where, edits, edge, freed, setFreed, toggle }) {
  if (!edge) return html`<span class="wb-note">Choose a cell of the pattern to cut that edge (Delete).</span>`;
  const { query, key, words } = edge;
  const whole = edits.cut.some(([q, k]) => q === null && k === key);
  const alone = edits.cut.some(([q, k]) => q === query && k === key);
  return html`<span class="wb-field"><span class="wb-label">Edge</span> <bdi class="wb-attention-edge">${words}</bdi></span>
    <${Button} pressed=${alone} onClick=${() => toggle(query, key)} title="Delete">${alone ? "Restore" : "Cut"}</${Button}>
    ${key !== SINK && html`<${Button} pressed=${whole} onClick=${() => toggle(null, key)}
      title=${`Hide position ${key} from every query of this head`}>${whole ? "Show to all" : "Hide from all"}</${Button}>`}
    ${key !== SINK && html`<${Select} label="Freed share" value=${freed} onChange=${setFreed}
      options=${[["redistribute", "to the other keys"], ["drop", "dropped"]]} />`}`;
}

/**
 * @param {{ bench: object, where: { layer: number, head: number }, edits: object|null, edge: object|null, freed: string,
 *   setFreed(value: string): void, toggle(query: number|null, key: number): void, ablate(layer: number, head: number): void }} props
 */
export function Hands(props) {
  const { bench, where, ablate } = props;
  const edits = props.edits ?? { ablated: false, sink: null, cut: [] };
  return html`<div class="wb-attention-hands" role="group" aria-label=${`interventions on head ${where.head} of layer ${where.layer}`}>
    <h3 class="wb-panel-title">Change head ${where.head} of layer ${where.layer}</h3>
    <div class="wb-bar-line">
      <${Sink} key=${`${where.layer} ${where.head}`} bench=${bench} where=${where} sink=${edits.sink} />
      <${Button} pressed=${edits.ablated} onClick=${() => ablate(where.layer, where.head)}
        title="Zero what this head writes">${edits.ablated ? "Restore head" : "Ablate head"}</${Button}>
    </div>
    <div class="wb-bar-line"><${Edge} ...${props} edits=${edits} /></div>
  </div>`;
}
