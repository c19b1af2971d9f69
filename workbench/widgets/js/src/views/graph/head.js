/** What is traced, and how far it can be believed. */
import { html, useLayoutEffect, useRef, useState } from "../../html.js";
import { percent, short } from "../../draw/scales.js";
import { useSharpness, useTheme } from "../../hooks.js";
import { Button, JobBar, Select, TextField, TokenLabel } from "../../parts/index.js";
import { EMBED, ERROR, EXPERT, HEAD, signed } from "./model.js";
import { ADDS, TAKES, sample } from "./paint.js";

const NODES = [25, 50, 100, 200, 400].map((n) => [String(n), String(n)]);

/** Target, position, number of nodes. */
export function Controls({ bench, json, choice, set, again, children }) {
  const { answer, likely, target } = json;
  const last = json.n_pos - 1;
  const selected = bench.selection.value.position;
  const offered = offeredTargets(answer, likely, choice, target);
  const value = choice.target === "difference" ? "difference" : String(choice.token ?? target[0].id);
  const pick = (key) => (key === "difference" ? set({ target: "difference", token: null }) : set({ target: "token", token: Number(key) }));
  return html`<div class="wb-bar-line">
    <${Select} label="Target: logit of" value=${value} options=${offered} onChange=${pick} />
    <${Other} bench=${bench} />
    <span class="wb-field" role="group" aria-label="position whose logits are traced"><span class="wb-label">after</span>
      <${TokenLabel} text=${json.tokens[json.position] ?? ""} limit=${16} /><span class="wb-note">${json.position}</span>
      ${json.position !== last && html`<${Button} kind="quiet" onClick=${() => set({ position: null })}>last token</${Button}>`}
      ${selected !== null && selected !== json.position && selected <= last && html`<${Button} kind="quiet" onClick=${() => set({ position: selected })}>selected token (${selected})</${Button}>`}
    </span>
    <${Select} label="Nodes" value=${String(choice.n_nodes)} options=${NODES} onChange=${(n) => set({ n_nodes: Number(n) })} />
    ${children}
    <${JobBar} bench=${bench} view="graph" />
  </div>`;
}

/** The answer's difference, its tokens, the likeliest, and what is chosen. */
function offeredTargets(answer, likely, choice, target) {
  const pair = answer ?? likely.slice(0, 2);
  const made = [["difference", `${pair[0].text} − ${pair[1]?.text ?? ""}${answer ? "" : " (two likeliest)"}`]];
  const add = ({ id, text }, more = "") => made.some(([key]) => key === String(id)) || made.push([String(id), `${text}${more}`]);
  for (const token of answer ?? []) add(token);
  for (const token of likely) add(token, ` (${percent(token.probability)})`);
  if (choice.target === "token") add(target[0]);
  return made;
}

/** Any token, by its text. */
function Other({ bench }) {
  const [text, setText] = useState("");
  if (!bench.state.value.model.has_tokenizer) return null;
  const enter = (word) => word && bench.act("graph", { kind: "token", token: word }).then(() => setText(""), () => {});
  return html`<${TextField} label="another token" hideLabel value=${text} onInput=${setText} onEnter=${enter} width=${104} placeholder="other token" title="the text of one token, often with a space before it" />`;
}

/** The target's value, where the flow starts, and the agreement with the live model: always there. */
export function Summary({ bench, json, summary, edits, choice, busy }) {
  const theme = useTheme();
  const starts = [["tokens", summary.embed], ["biases", summary.bias], ["what is not linear in experts", summary.error]];
  const tones = theme === "dark" ? ["#5f7f9c", "#6d747d", "#8a6d3b"] : ["#4f92c7", "#aeb6c0", "#e0b15c"];
  const more = () => bench.act("graph", { ...choice, kind: "confirm", n: Math.min(500, summary.n_checked + 30) }).catch(() => {});
  const judged = summary.verdict.indexOf(": ");
  return html`<div class="wb-graph-summary">
    <div class="wb-graph-value">
      <span class="wb-label">${json.target.map(({ id, text }, i) => html`${i ? " − " : "logit of "}${i ? "logit of " : ""}<${TokenLabel} key=${id} text=${text} limit=${18} />`)}</span>
      <span class="wb-graph-large">${signed(summary.value)} <small>logits</small></span>
      ${edits && edits.after !== null && html`<span class="wb-note" role="status">with the interventions <b>${signed(edits.after)}</b> (${signed(edits.after - edits.before)})</span>`}
      ${json.prompt !== bench.state.value.shown && html`<span class="wb-note">of <bdi>${json.prompt}</bdi>, unedited</span>`}
    </div>
    <div class="wb-graph-starts">
      <span class="wb-label">The flow starts in</span>
      <span class="wb-graph-stack" role="img" aria-label=${starts.map(([name, share]) => `${name} ${percent(share)}`).join(", ")}>
        ${starts.map(([name, share], i) => html`<span key=${name} style=${{ width: `${100 * share}%`, background: tones[i] }}></span>`)}</span>
      <span class="wb-key">${starts.map(([name, share], i) => html`<span key=${name} class="wb-key-item"><span class="wb-swatch" style=${{ background: tones[i] }}></span>${name} ${percent(share)}</span>`)}</span>
      <span class="wb-note">kept nodes: ${percent(summary.kept)} of the influence of heads and experts</span>
    </div>
    <div class="wb-graph-agreement" aria-live="polite">
      <span class="wb-label">Does it describe the live model?</span>
      <span><b>${judged < 0 ? summary.verdict : summary.verdict.slice(0, judged)}</b>${judged < 0 ? "" : summary.verdict.slice(judged)}</span>
      <span class="wb-note">${summary.n_checked > 0 && html`<span>held model: signs ${percent(summary.frozen_signs)}, r = ${short(summary.frozen_correlation, 2)}</span>`}
        <${Button} kind="quiet" disabled=${busy || summary.n_checked >= 500} onClick=${more}>${summary.n_checked ? "Confirm 30 more edges" : "Confirm 30 edges"}</${Button}></span>
    </div>
  </div>`;
}

/** What shapes, colours and lines mean. */
export function Signs() {
  const theme = useTheme();
  const line = (colour, dash, width, text) => html`<span class="wb-key-item"><svg width="26" height="10" aria-hidden="true"><line x1="1" x2="25" y1="5" y2="5" stroke=${colour} stroke-width=${width} stroke-dasharray=${dash} /></svg>${text}</span>`;
  return html`<div class="wb-key wb-graph-signs">
    ${[[EMBED, "embedding, logits"], [HEAD, "head"], [EXPERT, "expert"], [ERROR, "error of an expert"]].map(([kind, name]) => html`<span key=${kind} class="wb-key-item"><${Shape} kind=${kind} />${name}</span>`)}
    <span class="wb-key-item"><${Shape} kind=${HEAD} takes />hollow: takes from the target</span>
    ${line(ADDS[theme], "", 3, "adds")}${line(TAKES[theme], "6 3", 3, "takes")}
    <span class="wb-key-item">width: √ share of the flow</span><span class="wb-key-item"><b aria-hidden="true">×</b>live model has the other sign</span>
    <span class="wb-key-item"><b aria-hidden="true">⊘</b>an intervention acts there</span>
  </div>`;
}

function Shape({ kind, takes }) {
  const theme = useTheme();
  const canvas = useRef(null);
  useLayoutEffect(() => sample(canvas.current, kind, theme, !takes), [kind, theme, takes, useSharpness()]);
  return html`<canvas ref=${canvas} aria-hidden="true"></canvas>`;
}
