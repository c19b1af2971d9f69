/** Token by token: the alternatives at each, forks at any, the interventions that were on where each came from. */
import "./generation.css";
import { html, useMemo, useState } from "../html.js";
import { percent, sequential, short } from "../draw/scales.js";
import { useData, useOption, useStream, useTheme } from "../hooks.js";
import { Button, Distribution, Empty, JobBar, Legend, Panel, Ready, Slider, TextField, TokenLabel, TokenStrip } from "../parts/index.js";
import { asWhole, describeNode, forksOf, newSpecs, startsAfter } from "./generation/tree.js";

const VIEW = "generation";
const NOTHING = () => {};
const SURPRISED = 6; // nats of the strongest colour: what was certain is pale, what was not stands out
const act = (bench, action) => bench.act(VIEW, action).catch(NOTHING);

/** A number that is kept when it is one. */
function Whole({ bench, name, label, least, most, width = 56 }) {
  const [value, setValue] = useOption(bench, VIEW, name, least);
  const [draft, setDraft] = useState(null);
  const keep = (text) => {
    const number = asWhole(text, least, most);
    if (number === null) bench.fail(new Error(`${label}: ${text} is not a whole number from ${least} to ${most}`));
    else setValue(number);
    setDraft(null);
  };
  return html`<${TextField} label=${label} width=${width} value=${draft ?? String(value)} onInput=${setDraft} onEnter=${keep}
    onBlur=${(event) => draft !== null && keep(event.currentTarget.value)} inputmode="numeric" />`;
}

/** How the next tokens are made, and the buttons that make them. */
function Controls({ bench, json }) {
  const [temperature, setTemperature] = useOption(bench, VIEW, "temperature", 0);
  const [length] = useOption(bench, VIEW, "length", 24);
  const { at, leaves } = json;
  return html`<div class="wb-bar-line">
    <${Button} kind="primary" title="the likeliest tokens, or drawn ones at a temperature, after the chosen one" onClick=${() => act(bench, { kind: "go_on", node: at })}>Continue for ${length}</${Button}>
    <${Button} title="one token" onClick=${() => act(bench, { kind: "step", node: at })}>Step</${Button}>
    <${Whole} bench=${bench} name="length" label="Tokens" least=${1} most=${512} />
    <${Slider} label="Temperature" value=${temperature} min=${0} max=${2} step=${0.1} width=${110} onChange=${setTemperature} onInput=${NOTHING}
      format=${(value) => (value === 0 ? "0, the likeliest" : short(value))} />
    ${temperature > 0 && html`<${Whole} bench=${bench} name="seed" label="Seed" least=${0} most=${2 ** 31} width=${72} />`}
    <span class="wb-tools">
      ${at !== 0 && html`<${Button} kind="quiet" title="compare with another branch" onClick=${() => act(bench, { kind: "compare", node: at })}>Compare</${Button}>
        <${Button} kind="quiet" title="take this token away, and all that follow it" onClick=${() => act(bench, { kind: "remove", node: at })}>Remove from here</${Button}>`}
      ${leaves.length > 0 && html`<${Button} kind="quiet" onClick=${() => act(bench, { kind: "clear" })}>Clear</${Button}>`}
    </span>
  </div>`;
}

/** Where a row starts, and what is on in it. */
function Head({ bench, json, row, index }) {
  const from = startsAfter(json, row);
  return html`<div class="wb-generation-head">
    <span class="wb-label">${index === 0 ? "after the prompt" : from === null ? "another start" : html`fork after <${TokenLabel} text=${from.token} limit=${18} />`}</span>
    ${newSpecs(json, row).map((titles) => titles.length
      ? titles.map((title) => html`<code class="wb-generation-spec">${title}</code>`)
      : html`<span class="wb-note">without interventions</span>`)}
  </div>`;
}

/** One row of the tree: tokens after tokens, as far as they have a first child. */
function Row({ bench, json, row, index }) {
  const theme = useTheme();
  const nodes = row.map((id) => json.nodes[id]);
  const tokens = useMemo(() => row.map((id) => json.nodes[id].token), [json]);
  const scale = useMemo(() => sequential(theme, 0, SURPRISED), [theme]);
  const chosen = row.indexOf(json.at);
  const forks = useMemo(() => forksOf(json.nodes), [json.nodes]);
  const mark = (i) => [nodes[i].specs !== undefined && json.specs[nodes[i].specs]?.length ? "wb-generation-edited" : "", forks.has(row[i]) ? "wb-generation-fork" : ""].join(" ").trim();
  return html`<div class=${`wb-generation-row${row.some((id) => json.path.includes(id)) ? " wb-generation-onpath" : ""}`} style=${{ marginLeft: index ? "16px" : "0" }}>
    <${Head} ...${{ bench, json, row, index }} />
    <${TokenStrip} tokens=${tokens} label=${`branch ${index + 1}`} selected=${chosen < 0 ? null : chosen} maxHeight=${130}
      fill=${(i) => (nodes[i].p === null ? null : scale.rgb(-Math.log(Math.max(nodes[i].p, 1e-30))))} describe=${(i) => describeNode(nodes[i], json.specs, percent, short)} mark=${mark}
      onSelect=${(i) => act(bench, { kind: "choose", node: row[i] })} />
  </div>`;
}

const MOST_ROWS = 40;

function Tree({ bench, json }) {
  const theme = useTheme();
  const scale = useMemo(() => sequential(theme, 0, SURPRISED), [theme]);
  if (!json.rows.length) {
    return html`<${Empty} title="Nothing generated yet.">Continue, step, or pick a token among what may come next. Each token can be chosen and forked.</${Empty}>`;
  }
  return html`<div class="wb-generation-tree" role="group" aria-label="continuations">
    <div class="wb-bar-line"><${Legend} scale=${scale} title="surprise where it was taken, nats" />
      <span class="wb-note"><span class="wb-generation-edited">underlined</span>: taken with interventions on · <span class="wb-generation-fork wb-generation-key">boxed</span>: a fork</span>
      <${Button} kind="quiet" pressed=${json.at === 0} onClick=${() => act(bench, { kind: "choose", node: 0 })}>End of the prompt</${Button}></div>
    ${json.rows.slice(0, MOST_ROWS).map((row, index) => html`<${Row} key=${row[0]} ...${{ bench, json, row, index }} />`)}
    ${json.rows.length > MOST_ROWS && html`<p class="wb-note">… and ${json.rows.length - MOST_ROWS} more branches; remove some to see them</p>`}
  </div>`;
}

/** What may come after the chosen token; a click takes it. */
function Next({ bench, json }) {
  const { next, at, nodes, prompt } = json;
  if (!next) return null;
  const after = at === 0 ? prompt.at(-1) : nodes[at].token;
  const items = next.tokens.map(({ id, token, before, after: p, node }) => ({ key: id, label: token, before, after: p, node }));
  const note = [`entropy ${short(next.entropy)} nats`, next.kl === null ? "no interventions on" : `KL from the unedited ${short(next.kl)} nats`].join(" · ");
  const take = ({ key, node }) => act(bench, node ? { kind: "choose", node } : { kind: "step", node: at, token: key });
  return html`<${Panel} title=${html`What may come after <${TokenLabel} text=${after ?? ""} limit=${24} />`} note=${note}>
    <${Distribution} items=${items} names=${["unedited", "edited"]} label="next tokens" onPick=${take} />
    <p class="wb-note">Click a token to go on with it. If another stands there already, that is a fork.</p>
  </${Panel}>`;
}

/** Two branches: what they share, and where they part. */
function Difference({ bench, difference }) {
  const { shared, words, sides } = difference;
  return html`<${Panel} title="Two branches" note=${`${shared} ${shared === 1 ? "token" : "tokens"} in common`}>
    <p class="wb-generation-text"><span class="wb-note">both:</span> ${words.map((word) => html`<${TokenLabel} text=${word} />`)}</p>
    ${sides.map(({ node, words: own, logprob, specs }) => html`<div class="wb-generation-side" key=${node}>
      <span class="wb-note">${specs.length ? `with ${specs.join(", ")}` : "without interventions"} · log-probability ${logprob === null ? "not measured" : `${short(logprob)} nats`}</span>
      <p class="wb-generation-text">${own.length ? own.map((word) => html`<${TokenLabel} text=${word} />`) : html`<span class="wb-note">ends here</span>`}</p>
    </div>`)}
  </${Panel}>`;
}

/** @param {{ bench: import("../store.js").Bench }} props */
function View({ bench }) {
  const options = bench.state.value.options.generation ?? {};
  const [measured, setMeasured] = useState(0);
  useStream(bench, VIEW, (key, json) => setMeasured(json.n));
  // What is asked changes when the tree does; its own words do not matter, only that they differ.
  const ask = { next: true, at: options.at, n: options.tree?.nodes?.length ?? 0, last: options.tree?.nodes?.at(-1) ?? null, compared: options.compared, measured };
  const got = useData(bench, VIEW, ask, { slot: "tree" });
  return html`<div class="wb-generation">
    <${JobBar} bench=${bench} view=${VIEW} />
    <${Ready} got=${got}>${({ json }) => html`<${Controls} ...${{ bench, json }} />
      <div class="wb-generation-columns"><${Tree} ...${{ bench, json }} /><${Next} ...${{ bench, json }} /></div>
      ${json.difference && html`<${Difference} bench=${bench} difference=${json.difference} />`}`}</${Ready}>
  </div>`;
}

export default { name: VIEW, title: "Generation", View };
