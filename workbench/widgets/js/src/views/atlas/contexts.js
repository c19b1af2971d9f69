/** The contexts of one expert: a line each, aligned at the token that they were found by; the chosen one at length. */
import { QUIET_KEYS, classes, html, useEffect, useMemo, useSignal, useState } from "../../html.js";
import { css, inkOn, sequential, short } from "../../draw/scales.js";
import { useTheme } from "../../hooks.js";
import { Button, Check, Empty, JobBar, Legend, Panel, Segmented, SortableTable, TokenLabel, TokenStrip } from "../../parts/index.js";
import { change, keyOf, nats, rowsOf, weightOf, whole } from "./reduce.js";

const VIEW = "atlas";
const MORE = 20;
const ORDERS = [["weight", "fires hardest"], ["random", "at random"]];

/** @param {{ bench: import("../../store.js").Bench, contexts: object, effects: object, about: object, options: object, narrow: boolean }} props */
export function Contexts({ bench, contexts, effects, about, options, narrow, stale }) {
  const theme = useTheme();
  const scale = useMemo(() => sequential(theme, 0, 1), [theme]);
  const rows = useMemo(() => rowsOf(contexts, effects), [contexts, effects]);
  const hover = useSignal("");
  const { json } = contexts;
  const known = effects?.json.known ?? 0;
  const control = effects?.json.control ?? null;
  const columns = useMemo(
    () => columnsOf({ scale, narrow, known, expert: json.expert, control, spoken: rows.some((row) => row.from) }),
    [scale, narrow, known > 0, json.expert, control, rows],
  );
  const busy = bench.jobs.value.some((job) => job.view === VIEW && (job.state === "running" || job.state === "queued"));
  const chosen = json.chosen ? keyOf(json.chosen) : null;
  const choose = (row) => bench.option(VIEW, { context: row.key === chosen ? null : [row.document, row.position] });
  const run = () => bench.act(VIEW, { kind: "measure" }).catch(() => {});
  const point = (event) => {
    const spot = event.target.closest?.("[data-weight]");
    hover.value = spot ? `weight ${spot.dataset.weight}` : "";
  };
  const left = rows.length - known;
  return html`<${Panel} title=${`Contexts of L${json.layer}E${json.expert}`}
    tools=${html`<${Segmented} label="Tokens where it" hideLabel value=${options.order} options=${ORDERS} onChange=${(order) => bench.option(VIEW, { order })} />
      <${Check} label="one of each document" checked=${options.once} onChange=${(once) => bench.option(VIEW, { once })} />
      ${!about.blocked && rows.length > 0 && html`<${Button} kind="primary" disabled=${busy || left === 0} onClick=${run}
        title="each context whole, without this expert, and without another of like load">${left ? `Run ${left} with and without it` : "All are run"}</${Button}>`}`}>
    <${JobBar} bench=${bench} view=${VIEW} />
    ${about.blocked && html`<p class="wb-note">These contexts cannot be run here: ${about.blocked}.</p>`}
    ${rows.length === 0
      ? html`<${Empty}>No token of this corpus goes to this expert.</${Empty}>`
      : html`<div class="wb-bar-line"><${Legend} scale=${scale} title=${`weight of E${json.expert} at each token`} /><${Readout} text=${hover} /></div>
        <div class="wb-atlas-list" onPointerOver=${point} onPointerLeave=${() => (hover.value = "")}>
          <${SortableTable} label=${`contexts of layer ${json.layer}, expert ${json.expert}`} columns=${columns} rows=${rows} rowKey=${(row) => row.key}
            selected=${chosen} onSelect=${choose} maxHeight=${24 * 13} dim=${stale} /></div>
        <div class="wb-bar-line"><span class="wb-note">${rows.length} listed${options.order === "random" ? ", drawn evenly from its tokens" : ", the largest weights first"}${
          known ? ` · nats at the framed token: KL(whole ‖ ablated), and the rise of the next token's loss` : ""}</span>
          ${rows.length >= options.n && options.n < json.most && html`<span class="wb-tools"><${Button} onClick=${() => bench.option(VIEW, { n: Math.min(json.most, options.n + MORE) })}>${MORE} more</${Button}></span>`}</div>`}
    ${json.chosen && html`<${Chosen} key=${chosen} ...${{ bench, contexts, about, scale }} row=${rows.find((row) => row.key === chosen)} control=${control} />`}
  </${Panel}>`;
} // prettier-ignore

/** What the mouse is on: a component of its own, so that the table is not drawn again. */
function Readout({ text }) {
  return html`<span class="wb-note wb-atlas-readout" aria-hidden="true">${text.value}</span>`;
}

function columnsOf({ scale, narrow, known, expert, control, spoken }) {
  const made = [
    { key: "weight", title: "weight", align: "right", width: "62px", cell: (row) => weightOf(row.weight) },
    { key: "context", title: "context", width: "minmax(0, 1fr)", sortable: false, cell: (row) => html`<${Line} row=${row} scale=${scale} />` },
  ];
  if (!narrow && spoken) made.push({ key: "from", title: "from", width: "128px", cell: (row) => html`<bdi title=${`${row.from} · document ${row.document} (${row.id}), token ${row.position}`}>${row.from}</bdi>` });
  if (known) {
    const name = (n) => `E${n}`;
    made.push({ key: "kl", title: `KL ${name(expert)}`, align: "right", width: "70px", cell: (row) => nats(row.kl), hint: `KL of the next token without expert ${expert}, nats` });
    if (control !== null) made.push({ key: "klControl", title: `KL ${name(control)}`, align: "right", width: "70px", cell: (row) => html`<span class="wb-soft">${nats(row.klControl)}</span>`, hint: `the same without expert ${control}, the control` });
    if (!narrow) made.push({ key: "loss", title: `loss ${name(expert)}`, align: "right", width: "76px", cell: (row) => change(row.loss), hint: `rise of the next token's loss without expert ${expert}, nats` });
  }
  return made;
} // prettier-ignore

/** One context: the framed token in the middle, so that all of them stand under each other. */
function Line({ row, scale }) {
  const token = (text, i) => {
    const weight = row.weights[i];
    const fill = scale.rgb(weight);
    const look = weight > 0 ? { background: css(fill), color: inkOn(fill) } : {};
    const Name = i === row.centre ? "mark" : "span";
    return html`<${Name} key=${i} class=${classes("wb-atlas-token", i < row.seen && "wb-atlas-unread")} style=${look} data-weight=${`${weightOf(weight)} at ${text}`}
      title=${`weight ${weightOf(weight)}`}><bdi>${text}</bdi></${Name}>`;
  };
  const parts = row.tokens.map(token);
  return html`<span class="wb-atlas-line"><span class="wb-atlas-left">${parts.slice(0, row.centre)}</span><span class="wb-atlas-right">${parts.slice(row.centre)}</span></span>`;
} // prettier-ignore

/** The chosen context with more round it; each token's weight; into the Bench as a prompt. */
function Chosen({ bench, contexts, about, scale, row, control }) {
  const { chosen, layer, expert } = contexts.json;
  const weights = contexts.arrays.chosen;
  const [at, setAt] = useState(chosen.centre);
  useEffect(() => setAt(chosen.centre), [chosen.document, chosen.position]);
  const describe = (i) => {
    const unread = i < chosen.seen ? "\nin the window before: the model had not read it" : "";
    return `${chosen.tokens[i]}\nweight of L${layer}E${expert} ${weightOf(weights[i])}\ntoken ${chosen.position - chosen.centre + i} of the document${i === chosen.centre ? "\nwhere it was found" : ""}${unread}`;
  };
  const fill = (i) => (weights[i] > 0 ? scale.rgb(weights[i]) : null);
  const mark = (i) => (i === chosen.centre ? "wb-atlas-centre" : i < chosen.seen ? "wb-atlas-unread" : "");
  const open = () => bench.act(VIEW, { kind: "prompt", document: chosen.document, position: chosen.position }).then(() => bench.note("The context is the prompt now; undo takes it back."), () => {});
  const where = [row?.from, `document ${whole(chosen.document)}`, chosen.id, `token ${chosen.position}`].filter(Boolean).join(" · ");
  return html`<section class="wb-atlas-chosen" aria-label="the chosen context">
    <div class="wb-bar-line"><strong><bdi>${where}</bdi></strong>
      <span class="wb-tools">${!bench.state.value.single && html`<${Button} onClick=${open} title="the text up to here, from the start of its window, in the place of the prompt">Open as prompt</${Button}>`}
        <${Button} kind="quiet" onClick=${() => bench.option(VIEW, { context: null })}>Close</${Button}></span></div>
    <${TokenStrip} tokens=${chosen.tokens} label="the chosen context, token by token" fill=${fill} describe=${describe} mark=${mark} selected=${at} onSelect=${setAt} />
    <p class="wb-note" role="status"><span><${TokenLabel} text=${chosen.tokens[at]} /> weight ${weightOf(weights[at])}</span>${row && Number.isFinite(row.kl)
      ? html`<span>without L${layer}E${expert}: KL ${nats(row.kl)}, next token's loss ${change(row.loss) || "unknown (the text ends)"} nats</span>${control !== null && html`<span>without E${control}: KL ${nats(row.klControl)}, loss ${change(row.lossControl) || "–"}</span>`}` : null}</p>
  </section>`;
} // prettier-ignore
