/** What the direction does to the next token and to the text, beside a random direction of its length. */
import { classes, html, useEffect, useRef, useState } from "../../html.js";
import { percent, short } from "../../draw/scales.js";
import { useStream } from "../../hooks.js";
import { Button, Distribution, Panel, Ready, Select } from "../../parts/index.js";
import { LENGTHS, TEXTS, against, differences, place } from "./words.js";

/** Bars before and after, for the direction and for one that means nothing. */
export function Effects({ effect, controls, dragged }) {
  const kls = dragged || controls.stale ? null : (controls.data?.json.kl ?? null);
  return html`<div class="wb-steering-pair">
    <${Panel} title="Steered" note="next token after the text">
      <${Ready} got=${effect} height=${150}>${({ json }) => told(json) ?? html`<${Bars} json=${json} name="steered" />
        <${Standing} kl=${json.kl} controls=${kls} />`}</${Ready}>
    </${Panel}>
    <${Panel} title="Random direction" note="of the same length: the control">
      <${Ready} got=${{ ...controls, stale: controls.stale || dragged }} height=${150}>${({ json }) => told(json) ?? html`<${Bars} json=${json.control} name="random" />
        <p class="wb-note">KL of ${json.kl.length} such directions: ${short(Math.min(...json.kl))} to ${short(Math.max(...json.kl))} nats</p>`}</${Ready}>
    </${Panel}>
  </div>`;
}

/** What is still to be filled in, where that is all that there is. */
const told = (json) => (json.missing ? html`<p class="wb-note">${json.missing}</p>` : null);

function Bars({ json, name }) {
  const items = json.bars.map(({ id, text, before, after }) => ({ key: id, label: text, before, after }));
  return html`<${Distribution} items=${items} label=${`next token, default and ${name}`} names=${["default", name]} />
    <p class="wb-note"><span>KL ${short(json.kl)} nats</span><span>mean over the text ${short(json.mean_kl)}</span><span>likeliest token changed at ${json.flipped} of ${json.n}</span><span>experts changed at ${percent(json.routes / Math.max(1, json.n_routes))}</span></p>`;
}

/** The KL on one line with those of the random directions. */
function Standing({ kl, controls }) {
  const beside = against(kl, controls);
  if (!beside) return html`<p class="wb-note">KL beside random directions: …</p>`;
  const most = Math.max(kl, beside.high);
  const words = `KL ${short(kl)} nats (◆); ${beside.n} random directions (●) ${short(beside.low)} to ${short(beside.high)} nats, p = ${short(beside.p, 2)}`;
  return html`<div class="wb-steering-standing" role="img" aria-label=${words} title=${words}>
      ${controls.map((value, i) => html`<span key=${i} class="wb-steering-dot" style=${{ left: `${place(value, most) * 100}%` }}></span>`)}
      <span class="wb-steering-diamond" style=${{ left: `${place(kl, most) * 100}%` }}></span>
    </div><p class="wb-note">${words}</p>`;
}

/** The three texts, as they come. */
export function Texts({ bench, ask, study, length, live, dragged }) {
  const [said, setSaid] = useState(null);
  useStream(bench, "steering", (key, json) => key === "text" && setSaid(json));
  const asked = useRef("");
  const wanted = `${study} ${length}`;
  const write = () => {
    asked.current = wanted;
    bench.act("steering", { kind: "generate", ...ask }).catch(() => {});
  };
  useEffect(() => {
    // A text of this study may be there already: then this has it sent again.
    if (study && live && !dragged && asked.current !== wanted) write();
  }, [study, length, live, dragged]);
  const [texts, setTexts] = useState(null);
  useEffect(() => {
    let here = true;
    if (study) bench.wire.ask("steering", { what: "text", ...ask }, "steering/text").then(({ json }) => here && json.texts && setTexts(json), () => {});
    return () => (here = false);
  }, [study, length]);
  const now = [said, texts].find((each) => each?.study === study) ?? null;
  const shown = now ?? said ?? texts;
  return html`<${Panel} title="Goes on" note=${shown && !now ? "of the scale before" : "greedy; underlined: not in the default"} tools=${html`
      <${Select} label="Tokens" value=${length} options=${LENGTHS.map((n) => [n, String(n)])} onChange=${(n) => bench.option("steering", { length: Number(n) })} />
      <${Button} pressed=${live} onClick=${() => bench.option("steering", { live: !live })} title="write again whenever the scale is let go">Live</${Button}>
      ${!live && html`<${Button} onClick=${write} disabled=${!study}>Write</${Button}>`}`}>
    <div class=${classes("wb-steering-columns", !now && "wb-dim")}>
      ${TEXTS.map(([name, title]) => html`<${Column} key=${name} ...${{ name, title }} side=${shown?.texts[name]} done=${shown?.texts.done} />`)}
    </div>
  </${Panel}>`;
} // prettier-ignore

function Column({ name, title, side, done }) {
  const tokens = side?.tokens ?? [];
  const note = name === "default" || !side ? "" : differences(side.differs, tokens.length);
  return html`<section class="wb-steering-column" aria-label=${`${title}, generated text`}>
    <h4 class="wb-label">${title}${note && html`<span class="wb-note"> · ${note}</span>`}</h4>
    <p class="wb-steering-text">${tokens.map((token, i) => (side.differs[i]
      ? html`<mark key=${i} title="not in the default"><bdi>${token}</bdi></mark>`
      : html`<span key=${i}><bdi>${token}</bdi></span>`))}${
      side?.over ? html`<span class="wb-note" title="the model ended its text"> ∎</span>` : !done && html`<span class="wb-steering-cursor" aria-hidden="true">▏</span>`}</p>
  </section>`;
} // prettier-ignore
