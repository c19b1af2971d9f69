/** A corpus: which domains each expert serves, and the contexts in which one fires hardest. */
import { html, useMemo, useRef, useState } from "../../html.js";
import { percent, portion } from "../../draw/scales.js";
import { useData, useStream } from "../../hooks.js";
import { Button, Empty, JobBar, Panel, Ready } from "../../parts/index.js";
import { Shares } from "./panels.js";

const PAUSE = 250; // milliseconds between two looks at what has come

/** @param {{ bench: import("../../store.js").Bench, layer: number }} props */
export function Corpus({ bench, layer }) {
  const { expert } = bench.selection.value;
  const [done, setDone] = useState(0);
  const last = useRef(0);
  useStream(bench, "routing", (key, json) => {
    if (key !== "corpus" || (json.done < json.total && performance.now() - last.current < PAUSE)) return;
    last.current = performance.now();
    setDone(json.done);
  });
  const job = bench.jobs.value.findLast((each) => each.view === "routing");
  const running = job !== undefined && ["queued", "running"].includes(job.state);
  const over = job && !running ? job.id : 0; // what came last before a cancel may have been too soon to be looked at
  const got = useData(bench, "routing", { what: "corpus", layer, expert, done, over }, { slot: "corpus" });
  const start = () => bench.act("routing", { kind: "corpus" }).catch(() => {});
  const json = got.data?.json;
  const tools = json?.ready && !running
    ? html`<${Button} onClick=${start}>${json.done === 0 ? `Run ${json.total} texts` : json.done < json.total ? `Go on (${json.done} of ${json.total})` : "Run again"}</${Button}>`
    : null;
  return html`<${Panel} title="In a corpus" tools=${tools} note=${json?.done ? `${json.done} of ${json.total} texts, without edits` : "without edits"}>
    <${JobBar} bench=${bench} view="routing" />
    <${Ready} got=${got} height=${60}>${(data) => html`<${Found} ...${{ bench, data, layer, expert }} />`}</${Ready}>
  </${Panel}>`;
}

function Found({ bench, data, layer, expert }) {
  const { ready, why, done, contexts, domains } = data.json;
  if (!ready) return html`<${Empty}>${why}</${Empty}>`;
  if (!done) {
    return html`<${Empty}>Run the corpus to see which domains each expert serves, and where one fires hardest. (It is the
      microworld unless you give your own: wb.view.routing(run, texts=[…]) or bench["routing"].use_texts([…]).)</${Empty}>`;
  }
  return html`<div class="wb-routing-corpus">
    <${Domains} ...${{ bench, data, layer, domains }} />
    <div><p class="wb-note">${expert === null
        ? "Select an expert to see the contexts in which it fires hardest."
        : `Where expert ${expert} of layer ${layer} has most weight; one context a text, the token between the marks.`}</p>
      ${expert !== null && (contexts.length ? html`<${Contexts} contexts=${contexts} />` : html`<${Empty}>No text went to this expert.</${Empty}>`)}
    </div>
  </div>`;
}

function Domains({ bench, data, layer, domains }) {
  const { tokens } = data.json;
  const load = data.arrays.domain_load;
  const experts = load.shape[1];
  const rows = useMemo(() => domains, [domains.join("\n")]);
  const describe = (r, c) => `${rows[r]} (${tokens[r]} tokens): ${Number.isNaN(load[r * experts + c]) ? "none yet" : `${percent(load[r * experts + c])} go to expert ${c}`}`;
  return html`<div><p class="wb-note">% of the domain's tokens that go to each expert, layer ${layer}</p>
    <${Shares} ...${{ bench, rows, describe, values: load }} layerOf=${() => layer} label=${`load by domain in layer ${layer}`} title="share of its tokens" height=${330}
      onSelect=${(r, c) => bench.select({ layer, expert: c })} /></div>`;
}

/** Snippets, with the token where the expert fired between marks. */
function Contexts({ contexts }) {
  return html`<ol class="wb-routing-contexts" aria-label="contexts in which it fires hardest">${contexts.map(
    (each, i) => html`<li key=${i} title=${`text ${each.text}, position ${each.position}`}>
      <span class="wb-number">${portion(each.weight)}</span><span class="wb-routing-domain"><bdi>${each.domain}</bdi></span>
      <span class="wb-routing-snippet"><span class="wb-routing-left"><bdi>${each.tokens.slice(0, each.at).join("")}</bdi></span><mark><bdi>${each.tokens[each.at]}</bdi></mark><span class="wb-routing-right"><bdi>${each.tokens.slice(each.at + 1).join("")}</bdi></span></span>
    </li>`,
  )}</ol>`;
}
