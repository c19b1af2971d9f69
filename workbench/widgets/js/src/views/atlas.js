/** The atlas: over a whole corpus, where an expert fires, what it serves and writes, and what is lost without it. */
import "./atlas.css";
import { classes, html, useEffect, useRef, useState } from "../html.js";
import { useData, useSize, useStream } from "../hooks.js";
import { Failure, Ready } from "../parts/index.js";
import { Contexts } from "./atlas/contexts.js";
import { answers } from "./atlas/reduce.js";
import { Closed, Neighbours, Picker, Said, Serves, Without, Writes } from "./atlas/panels.js";

const VIEW = "atlas";
const WIDE = 760;
const PAUSE = 200; // milliseconds between two looks at what has come

/** @param {{ bench: import("../store.js").Bench }} props */
function View({ bench }) {
  const { folder, opened } = bench.state.value.options[VIEW];
  const got = useData(bench, VIEW, { what: "about", folder, opened }, { slot: "about" });
  return html`<div class="wb-atlas"><${Ready} got=${got} height=${240}>${(data) =>
    data.json.state === "open" ? html`<${Whole} bench=${bench} data=${data} />` : html`<${Closed} bench=${bench} json=${data.json} />`}</${Ready}></div>`;
} // prettier-ignore

function Whole({ bench, data }) {
  const { json: about, arrays } = data;
  const options = bench.state.value.options[VIEW];
  const { folder, opened, order, once, n, by, context, policy } = options;
  const box = useRef(null);
  const { width } = useSize(box);
  const { layer, expert } = bench.selection.value;
  const [own, setOwn] = useState(null); // where the atlas' experts are not the model's
  useEffect(() => setOwn(null), [folder, opened]);
  const at = about.same_shape ? { layer, expert } : { layer: own?.[0] ?? null, expert: own?.[1] ?? null };
  const of = { folder, opened, ...at };
  const done = useDone(bench);
  const contexts = useData(bench, VIEW, { what: "contexts", order, once, n, context, ...of }, { slot: "contexts" });
  const spread = useData(bench, VIEW, { what: "spread", by, ...of }, { slot: "spread" });
  const effects = useData(bench, VIEW, { what: "effects", order, once, n, policy, done, ...of }, { slot: "effects" });
  const pick = (l, e) => (about.same_shape ? bench.select({ layer: l, expert: e }) : setOwn([l, e]));
  const said = contexts.data?.json;
  const shown = at.expert !== null && at.layer !== null ? at : said ? { layer: said.layer, expert: said.expert } : null;
  // Numbers of another expert never stand beside this one's, nor those of another atlas, order or way to take it out.
  const known = answers(effects, { folder, opened, order, once, policy }, said) ? effects.data : null;
  const load = (l, e) => arrays.load[l * about.n_experts + e];
  return html`<div ref=${box} class=${classes("wb-atlas-whole", width >= WIDE && "wb-wide")}>
    <${Said} bench=${bench} about=${about} />
    <div class="wb-atlas-top">
      <div class="wb-atlas-side"><${Picker} ...${{ bench, data, shown }} onPick=${pick} />
        <${Ready} got=${spread} height=${60}>${(found) => html`<${Neighbours} json=${found.json} onPick=${pick} />`}</${Ready}></div>
      <${Ready} got=${spread} height=${200}>${(found) => html`<${Serves} bench=${bench} json=${found.json} groups=${about.groups} />`}</${Ready}>
    </div>
    <${Ready} got=${contexts} height=${300}>${(found) => html`<${Contexts} ...${{ bench, about, options }} contexts=${found} effects=${known} narrow=${width > 0 && width < WIDE} stale=${contexts.stale} />`}</${Ready}>
    ${effects.error && html`<${Failure} error=${effects.error} again=${effects.again} />`}
    <div class="wb-atlas-bottom">
      <${Without} ...${{ bench, options, about, load }} json=${known?.json} />
      <${Writes} json=${known?.json} about=${about} />
    </div>
  </div>`;
} // prettier-ignore

/** Counts what a job has streamed, a few times a second, and its end. */
function useDone(bench) {
  const [done, setDone] = useState("");
  const last = useRef(0);
  const job = bench.jobs.value.filter((each) => each.view === VIEW).at(-1);
  const over = job && !["running", "queued"].includes(job.state) ? job.id : 0;
  useStream(bench, VIEW, (key, json) => {
    if (key !== "effects" || performance.now() - last.current < PAUSE) return;
    last.current = performance.now();
    setDone(String(json.done));
  });
  return `${done} ${over}`;
}

export default { name: VIEW, title: "Atlas", View };
