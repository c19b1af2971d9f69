/** Beside the contexts: which expert, what it serves and with whom, what it writes, what is lost without it. */
import { QUIET_KEYS, html, useCallback, useMemo, useState } from "../../html.js";
import { percent, sequential, short } from "../../draw/scales.js";
import { useTheme } from "../../hooks.js";
import { Button, Empty, Legend, Matrix, Panel, Segmented, Select, TextField, TokenLabel } from "../../parts/index.js";
import { barOf, expertWords, liftOf, liftWords, loadOf, meanWords, nats, change, ofTokens, reach, tenths, ticksOf, whole } from "./reduce.js";

const VIEW = "atlas";
const POLICIES = [["reroute", "its tokens are routed anew"], ["zero", "it writes nothing"]];
const share = (x) => `${100 * x}%`;

/** No atlas, or none that can be read: how one is made, and a folder to open. */
export function Closed({ bench, json }) {
  const [folder, setFolder] = useState("");
  const open = (name) => bench.act(VIEW, { kind: "open", folder: name }).catch(() => {});
  const failed = json.state === "failed";
  return html`<div class="wb-atlas-closed">
    ${failed
      ? html`<div class="wb-message wb-failure" role="alert"><span><strong>The atlas cannot be read.</strong> <bdi>${json.why}</bdi></span>
          <${Button} onClick=${() => bench.act(VIEW, { kind: "again" }).catch(() => {})}>Try again</${Button}></div>`
      : html`<${Empty} title=${json.state === "empty" ? "This atlas has no tokens" : "No atlas is open"}>An atlas is where every token of a corpus was routed. It shows what an expert fires on, what it serves, and what is lost without it.</${Empty}>`}
    <p>Make one in a cell, once (it goes on where it stopped, and can be opened again):</p>
    <pre class="wb-atlas-how" tabindex="0" ...${QUIET_KEYS}>bench.atlas = ${json.how ?? 'wb.atlas(model, texts, "my-atlas")'}</pre>
    <div class="wb-bar-line"><${TextField} label="or open a folder" value=${folder} width=${260} onInput=${setFolder} onEnter=${open} />
      <${Button} disabled=${!folder.trim()} onClick=${() => open(folder)}>Open</${Button}></div>
  </div>`;
} // prettier-ignore

/** What the atlas is of, and what is strange about it. */
export function Said({ bench, about }) {
  const warnings = [];
  if (!about.same_model) warnings.push(`This atlas is of another model (${about.model}, ${about.fingerprint}): contexts and statistics are that model's.${about.blocked ? "" : " What is run here is run with the Bench's."}`);
  if (about.interventions.length) warnings.push(`It was built with interventions on: ${about.interventions.join(", ")}. What is run here is run without them.`);
  if (!about.complete) warnings.push("It is unfinished: the numbers are of what is written so far.");
  return html`<div>
    <div class="wb-bar-line"><p class="wb-note"><span><bdi>${about.model}</bdi></span><span>${whole(about.n_tokens)} tokens of ${whole(about.n_documents)} documents</span><span title=${about.folder}>folder <bdi>${about.name}</bdi></span></p>
      <span class="wb-tools"><${Button} kind="quiet" onClick=${() => bench.act(VIEW, { kind: "again" }).catch(() => {})} title="read the folder anew">Reload</${Button}
        ><${Button} kind="quiet" onClick=${() => bench.option(VIEW, { folder: null })}>Another…</${Button}></span></div>
    ${warnings.map((words) => html`<p key=${words} class="wb-atlas-warning" role="note"><strong>Note:</strong> <bdi>${words}</bdi></p>`)}
  </div>`;
} // prettier-ignore

const names = (count) => Array.from({ length: count }, (_, i) => String(i));

/** Layers by experts, shaded by load: choose one. */
export function Picker({ bench, data, shown, onPick }) {
  const theme = useTheme();
  const { json, arrays } = data;
  const [layers, experts] = arrays.load.shape;
  const high = useMemo(() => Math.max(...arrays.load, 1e-9), [arrays.load]);
  const colour = useMemo(() => sequential(theme, 0, high), [theme, high]);
  const rows = useMemo(() => names(layers), [layers]);
  const cols = useMemo(() => names(experts), [experts]);
  const describe = useCallback((r, c) => expertWords(r, c, arrays, experts, json.even), [arrays, experts, json.even]);
  const text = useCallback((r, c) => loadOf(arrays.load[r * experts + c]), [arrays, experts]);
  const hover = bench.hover.value;
  const over = hover && hover.expert !== undefined && hover.expert !== null && hover.layer < layers && hover.expert < experts ? { row: hover.layer, col: hover.expert } : null;
  const at = shown ? shown.layer * experts + shown.expert : null;
  return html`<${Panel} title="Experts" note="layer ↓, expert →; in the cells % of tokens">
    <div class="wb-bar-line"><${Legend} scale=${colour} title="load, share of tokens" format=${percent} /></div>
    <${Matrix} rows=${layers} cols=${experts} values=${arrays.load} colour=${colour} text=${text} describe=${describe} rowLabels=${rows} colLabels=${cols}
      label="experts of each layer, by load" cell=${{ height: layers > 12 ? 13 : 22 }} selected=${shown ? { row: shown.layer, col: shown.expert } : null} hovered=${over}
      onHover=${(r, c) => json.same_shape && (bench.hover.value = r === null ? null : { layer: r, expert: c })} onSelect=${onPick} />
    ${at !== null && html`<p class="wb-note wb-atlas-facts"><span class="wb-strong">L${shown.layer}E${shown.expert}</span><span>${whole(arrays.count[at])} tokens</span><span>load ${percent(arrays.load[at])} (even: ${percent(json.even)})</span>${
      Number.isFinite(arrays.mean_weight[at]) && html`<span>mean weight ${short(arrays.mean_weight[at])}</span>`}</p>`}
  </${Panel}>`;
} // prettier-ignore

/** Lift by group, on a logarithmic axis. */
export function Serves({ bench, json, groups }) {
  const far = useMemo(() => reach(json.groups), [json.groups]);
  const tools = groups.length > 1 ? html`<${Segmented} label="By" hideLabel value=${json.by} options=${groups} onChange=${(by) => bench.option(VIEW, { by })} />` : null;
  if (!json.by) return html`<${Panel} title="Specialisation"><${Empty}>Nothing is said of these documents: no domain, language, role or channel. wb.atlas(…, domain=…) says it.</${Empty}></${Panel}>`;
  return html`<${Panel} title=${`Specialisation by ${json.by}`} tools=${tools}>
    <div class="wb-atlas-scroll" tabindex="0" role="region" aria-label=${`specialisation by ${json.by}`} ...${QUIET_KEYS}><table class="wb-atlas-lifts">
      <thead><tr><th scope="col">${json.by}</th><th scope="col" class="wb-atlas-track"><span class="wb-unseen">lift, drawn</span>${ticksOf(far).map(({ at, name }) => html`<span key=${name} class="wb-atlas-tick" style=${{ left: share(at) }} aria-hidden="true">${name}</span>`)}</th>
        <th scope="col" class="wb-right" title=${`P(${json.by} | expert) / P(${json.by})`}>lift</th><th scope="col" class="wb-right" title="tokens of the group that go to the expert">its tokens</th></tr></thead>
      <tbody>${json.groups.map((group) => html`<${Lift} key=${group.name} group=${group} far=${far} />`)}</tbody>
    </table></div>
    <p class="wb-note">Lift: how much more often its tokens are of the group than tokens at large (1: no more). Thin line: 95% interval over documents.${json.more ? ` ${json.more} more groups are not shown.` : ""}</p>
  </${Panel}>`;
} // prettier-ignore

function Lift({ group, far }) {
  const { one, from, to, low, high } = barOf(group, far);
  const words = `lift ${liftWords(group)}\n${ofTokens(group.count, group.tokens)} tokens, ${whole(group.documents)} documents`;
  return html`<tr title=${words}>
    <th scope="row"><bdi>${group.name}</bdi></th>
    <td class="wb-atlas-track" aria-hidden="true"><span class="wb-atlas-one" style=${{ left: share(one) }}></span>
      <span class=${group.lift >= 1 ? "wb-atlas-bar" : "wb-atlas-bar wb-atlas-less"} style=${{ left: share(from), width: share(to - from) }}></span>
      ${low !== null && html`<span class="wb-atlas-whisker" style=${{ left: share(low), width: share(high - low) }}></span>`}</td>
    <td class="wb-right">${liftOf(group.lift)}<span class="wb-unseen">, ${liftWords(group)}</span></td>
    <td class="wb-right wb-soft">${ofTokens(group.count, group.tokens)}</td>
  </tr>`;
} // prettier-ignore

/** Experts of the layer that serve the same tokens. */
export function Neighbours({ json, onPick }) {
  if (!json.neighbours.length) return html`<${Panel} title="Neighbours"><${Empty}>It shares no token with another expert.</${Empty}></${Panel}>`;
  return html`<${Panel} title="Neighbours" note="experts of its tokens' other slots">
    <table class="wb-atlas-lifts"><thead><tr><th scope="col">expert</th><th scope="col" class="wb-right">lift</th><th scope="col" class="wb-right">of its tokens</th><th scope="col" class="wb-right">tokens</th></tr></thead>
      <tbody>${json.neighbours.map((other) => html`<tr key=${other.expert}><td><${Button} kind="quiet" label=${`E${other.expert}: choose this expert of layer ${json.layer}`} onClick=${() => onPick(json.layer, other.expert)}>E${other.expert}</${Button}></td>
        <td class="wb-right">${liftOf(other.lift)}</td><td class="wb-right">${tenths(other.share)}</td><td class="wb-right wb-soft">${whole(other.count)}</td></tr>`)}</tbody></table>
  </${Panel}>`;
} // prettier-ignore

/** Means over the contexts, of the expert and of the control. */
export function Without({ bench, json, options, about, load }) {
  const tools = html`<${Select} label="Without it" value=${options.policy} options=${POLICIES} onChange=${(policy) => bench.option(VIEW, { policy })} />`;
  if (about.blocked) return html`<${Panel} title="What is lost without it"><${Empty}>It cannot be run here: ${about.blocked}.</${Empty}></${Panel}>`;
  if (!json?.means) return html`<${Panel} title="What is lost without it" tools=${tools}><${Empty}>Run the contexts to see how far the next token moves when the expert is taken out, beside another expert of like load.</${Empty}></${Panel}>`;
  const { means, layer, expert, control, served, known } = json;
  const far = 1.04 * Math.max(...means.kl.flatMap(({ mean, high }) => [mean, high ?? 0]), 1e-6); // air beside the numbers
  const row = (i, name, role) => html`<tr key=${i}><th scope="row">${name} <span class="wb-soft">${role}</span></th>
    <td class="wb-atlas-track" aria-hidden="true"><span class=${i ? "wb-atlas-bar wb-atlas-less" : "wb-atlas-bar"} style=${{ left: 0, width: share(means.kl[i].mean / far) }}></span>
      ${means.kl[i].low !== null && html`<span class="wb-atlas-whisker" style=${{ left: share(means.kl[i].low / far), width: share((means.kl[i].high - means.kl[i].low) / far) }}></span>`}</td>
    <td class="wb-right">${meanWords(means.kl[i])}</td><td class="wb-right">${meanWords(means.loss_change[i], change)}</td></tr>`;
  return html`<${Panel} title="What is lost without it" tools=${tools}>
    <div class="wb-atlas-scroll" tabindex="0" role="region" aria-label="means over the contexts" ...${QUIET_KEYS}><table class="wb-atlas-lifts"><thead><tr><th scope="col">taken out</th><th scope="col" class="wb-atlas-track"><span class="wb-unseen">KL, drawn</span></th><th scope="col" class="wb-right">mean KL, nats</th><th scope="col" class="wb-right">mean rise of the loss</th></tr></thead>
      <tbody>${row(0, `L${layer}E${expert}`, "")}${control !== null && row(1, `L${layer}E${control}`, "control")}</tbody></table></div>
    <p class="wb-note">${known} contexts, at the framed token; in brackets 95% intervals over contexts (bootstrap). ${control !== null && html`The control is the expert of the layer with the nearest load (${percent(load(layer, control))}, this one ${percent(load(layer, expert))}); it serves ${served} of the framed tokens.`}
      ${options.order === "weight" && " The contexts are its strongest, not a sample: “at random” says what it does in general."}${!options.once && " Contexts of one document are alike, and the intervals too narrow for it."}</p>
  </${Panel}>`;
} // prettier-ignore

/** The tokens whose logits it raises and lowers. */
export function Writes({ json, about }) {
  if (about.blocked) return null;
  if (!json?.raised.length) return html`<${Panel} title="What it writes"><${Empty}>${json?.known ? "None of these tokens goes to it in this model." : "Run the contexts to read what it writes at their framed tokens."}</${Empty}></${Panel}>`;
  const far = Math.max(...[...json.raised, ...json.lowered].map(({ value }) => Math.abs(value)));
  const list = (title, items) => html`<div><h4 class="wb-label">${title}</h4><ol class="wb-atlas-words">${items.map(({ token, value }, i) => html`<li key=${i}><${TokenLabel} text=${token} limit=${20} />
      <span class="wb-atlas-amount" aria-hidden="true"><span style=${{ width: share(Math.abs(value) / far) }} class=${value < 0 ? "wb-atlas-down" : ""}></span></span><span class="wb-right">${change(value) || nats(value)}</span></li>`)}</ol></div>`;
  return html`<${Panel} title="What it writes" note="expert lens, logits">
    <div class="wb-atlas-two">${list("raises", json.raised)}${list("lowers", json.lowered)}</div>
    <p class="wb-note">Mean over ${json.written} contexts of what weight × output adds directly to each token's logit at the framed token, through the final norm and the unembedding, from the mean over the vocabulary. What later layers make of it is not in it.</p>
  </${Panel}>`;
} // prettier-ignore
