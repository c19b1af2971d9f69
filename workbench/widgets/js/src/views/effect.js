/** What the interventions do: to the next token, to the routes, and to the text that follows. */
import "./effect.css";
import { QUIET_KEYS, classes, html, useEffect, useState } from "../html.js";
import { expertColour, percent, short } from "../draw/scales.js";
import { useData, useOption, useStream, useTheme } from "../hooks.js";
import { Bars, Button, Check, Distribution, JobBar, Panel, Ready, Select, SortableTable, TokenLabel, progressText } from "../parts/index.js";
import { pieces, positionOf, share, total, verdict } from "./effect/words.js";

const VIEW = "effect";
const LENGTHS = ["8", "16", "24", "48", "96", "192"];
const PAUSE = 200; // ms after an edit, before text is generated: quick changes of mind cost nothing

/** One line that says it all, and hides the rest. */
function Summary({ bench, json }) {
  const [open, setOpen] = useOption(bench, VIEW, "open", true);
  const { kl, flipped, routes, n } = json;
  const at = (position) => () => bench.select({ position });
  return html`<div class="wb-effect-sum" role="status">
    <span>KL after <button type="button" class="wb-link" onClick=${at(json.position)} ...${QUIET_KEYS}><${TokenLabel} text=${json.token} limit=${18} /></button> <span class="wb-soft">${json.position}</span> <b>${short(kl.here)}</b> nats</span>
    <span>mean <b>${short(kl.mean)}</b></span>
    <span>largest <b>${short(kl.max)}</b> at <button type="button" class="wb-link" onClick=${at(kl.at)} ...${QUIET_KEYS}>${kl.at}</button></span>
    <span>top tokens flipped <b>${share(flipped.count, n)}</b></span>
    <span>routes flipped <b>${share(total(routes.counts), n * routes.counts.length)}</b></span>
    <span class="wb-tools"><${Button} kind="quiet" onClick=${() => setOpen(!open)} pressed=${open}>${open ? "Less" : "More"}</${Button}></span>
  </div>`;
} // prettier-ignore

/** The next token before and after, at the selected position. */
function NextToken({ json }) {
  const { answer } = json;
  const items = json.bars.map(({ id, text, before, after }) => ({ key: id, label: text, before, after }));
  return html`<${Panel} title="Next token" note=${html`after <${TokenLabel} text=${json.token} limit=${16} /> ${json.position}`}>
    <${Distribution} items=${items} max=${1} label=${`next token after position ${json.position}, before and after the interventions`} />
    ${answer && html`<p class="wb-note">logit of <bdi>${answer.right}</bdi> less <bdi>${answer.wrong}</bdi>: ${short(answer.before)} → <span class="wb-strong">${short(answer.after)}</span></p>`}
  </${Panel}>`;
} // prettier-ignore

/** At how many tokens the experts changed, layer by layer. */
function Routes({ bench, json }) {
  const theme = useTheme();
  const { counts, here } = json.routes;
  const { layer } = bench.selection.value;
  const hover = bench.hover.value?.layer ?? null;
  const some = total(counts) > 0;
  const hereNames = here.flatMap((flipped, i) => (flipped ? [i] : []));
  return html`<${Panel} title="Routes flipped" note="tokens with other experts, by layer">
    ${some
      ? html`<${Bars} values=${counts} height=${92} label="tokens whose experts changed, by layer" selected=${layer} hovered=${hover}
          colour=${() => expertColour(1, theme)} format=${(count) => share(count, json.n)} max=${Math.max(1, ...counts)}
          onSelect=${(i) => bench.select({ layer: i })} onHover=${(i) => (bench.hover.value = i === null ? null : { layer: i })} />
        <p class="wb-note">most: ${share(Math.max(...counts), json.n)} in layer ${counts.indexOf(Math.max(...counts))} · at position ${json.position}: ${hereNames.length ? `layer ${hereNames.join(", ")}` : "none"}</p>`
      : html`<p class="wb-effect-none">Every token kept its experts in every layer.</p>`}
  </${Panel}>`;
} // prettier-ignore

const COLUMNS = [
  { key: "position", title: "#", align: "right", width: "38px" },
  { key: "token", title: "after", cell: (row) => html`<${TokenLabel} text=${row.token} limit=${12} />`, width: "minmax(60px, 1fr)" },
  { key: "before", title: "was", cell: (row) => html`<${TokenLabel} text=${row.before} limit=${12} />`, width: "minmax(60px, 1fr)" },
  { key: "after", title: "is", cell: (row) => html`<${TokenLabel} text=${row.after} limit=${12} />`, width: "minmax(60px, 1fr)" },
  { key: "kl", title: "KL", align: "right", cell: (row) => short(row.kl, 2), width: "54px", hint: "KL(before ‖ after), nats" },
]; // prettier-ignore

/** The positions whose likeliest next token is another one now. */
function Flipped({ bench, json }) {
  const { count, list } = json.flipped;
  const { position } = bench.selection.value;
  const more = count > list.length ? `${share(count, json.n)}, the first ${list.length} listed` : share(count, json.n);
  return html`<${Panel} title="Top tokens flipped" note=${more}>
    ${count
      ? html`<${SortableTable} columns=${COLUMNS} rows=${list} rowKey=${(row) => row.position} label="positions whose likeliest next token changed"
          selected=${position} onSelect=${(row) => bench.select({ position: row.position })} maxHeight=${144}
          onHover=${(row) => (bench.hover.value = row ? { position: row.position } : null)} />`
      : html`<p class="wb-effect-none">The likeliest next token is the same at every position.</p>`}
  </${Panel}>`;
} // prettier-ignore

/** One of the two texts. */
function Text({ name, said, kind }) {
  return html`<span class="wb-label">${name}</span>
    <div class="wb-said-text" role="group" aria-label=${`the text that follows, ${name}`} tabindex="0" ...${QUIET_KEYS}>${pieces(said).map(
      ({ text, marker, differs, ends }, i) => html`<bdi key=${i} class=${classes(marker && "wb-said-marker", differs && kind)}>${text}</bdi>${ends ? "\n" : ""}`,
    )}${said.over ? html` <span class="wb-said-end">■ end</span>` : ""}</div>`;
} // prettier-ignore

/** The text that follows, with the interventions and without; made again when they change. */
function Completion({ bench, given }) {
  const [live, setLive] = useOption(bench, VIEW, "live", true);
  const [length, setLength] = useOption(bench, VIEW, "length", 24);
  const revision = bench.revision.value;
  const [streamed, setStreamed] = useState(null);
  useStream(bench, VIEW, (key, json) => key === "completion" && setStreamed(json));
  const start = () => bench.act(VIEW, { kind: "complete" }).catch(() => {});
  useEffect(() => {
    if (!live) return undefined;
    const timer = setTimeout(start, PAUSE);
    return () => clearTimeout(timer);
  }, [live, length, revision]);
  // What was streamed for the interventions as they are now is newer than what came with the numbers. Of which run it
  // is Python says: it may arrive after the next run did.
  const said = streamed && streamed.revision === revision ? streamed : given;
  const job = bench.jobs.value.findLast((other) => other.view === VIEW);
  const busy = job?.state === "running" || job?.state === "queued";
  const cancel = () => bench.act("bench", { kind: "cancel", job: job.id }).catch(() => {});
  const tools = html`${busy && html`<span class="wb-note">${progressText({ ...job, rate: null, left: null })}</span><${Button} kind="quiet" onClick=${cancel} label="Cancel the text that follows">Cancel</${Button}>`}
    <${Select} label="Tokens" value=${String(length)} options=${LENGTHS} onChange=${(text) => setLength(Number(text))} />
    <${Check} label="follow every edit" checked=${live} onChange=${setLive} />
    ${!live && !busy && html`<${Button} onClick=${start}>Generate</${Button}>`}`;
  return html`<${Panel} title="The text that follows" note=${said ? verdict(said) : ""} tools=${tools} class="wb-effect-text">
    ${!busy && html`<${JobBar} bench=${bench} view=${VIEW} />`}
    ${said
      ? html`<div class="wb-said"><${Text} name="before" said=${said.before} kind="wb-said-old" /><${Text} name="after" said=${said.after} kind="wb-said-new" /></div>`
      : html`<p class="wb-effect-none">${live ? "On its way…" : "Not generated for these interventions."}</p>`}
  </${Panel}>`;
} // prettier-ignore

function View({ bench }) {
  const on = bench.state.value.chips.some((chip) => chip.on);
  const position = positionOf(bench.selection.value);
  const [open] = useOption(bench, VIEW, "open", true);
  const got = useData(bench, VIEW, on ? { position } : null, { slot: "numbers" });
  if (!on) return html`<p class="wb-effect-none">All interventions are off: the run is the unedited one.</p>`;
  return html`<div class="wb-effect"><${Ready} got=${got} height=${40}>${({ json }) =>
    json.on
      ? html`<${Summary} bench=${bench} json=${json} />
          ${open && html`<div class="wb-effect-parts"><${NextToken} json=${json} /><${Routes} bench=${bench} json=${json} /><${Flipped} bench=${bench} json=${json} /></div>
          <${Completion} bench=${bench} given=${json.completion} />`}`
      : null}</${Ready}></div>`;
} // prettier-ignore

export default { name: VIEW, title: "Effect", View };
