/** One expert: what is done to it, and what that changes. */
import { QUIET_KEYS, html, useEffect, useRef, useState } from "../../html.js";
import { expertColour, percent, portion, short } from "../../draw/scales.js";
import { useTheme } from "../../hooks.js";
import { Bars, Button, Empty, Panel, Segmented, Select, Slider, TokenLabel } from "../../parts/index.js";
import { editWords, editsOf, first, hardest, slotOf } from "./reduce.js";

export const WHERE = [["everywhere", "everywhere"], ["token", "at this token"]];
const ACTS = [
  ["ban", "Ban", "b", "mask its router logit: the next expert takes its place"],
  ["zero", "Zero", "z", "drop what it writes; the others keep their weights"],
  ["renormalise", "Renormalise", "n", "drop it and scale the others' weights to sum to 1"],
  ["force", "Force", "f", "route here: it takes the weakest slot where it was not chosen"],
];

/** An expert's number on its colour. */
export function ExpertLabel({ expert }) {
  const theme = useTheme();
  return html`<span class="wb-expert"><span class="wb-expert-swatch" style=${{ background: expertColour(expert, theme) }}></span>E${expert}</span>`;
}

/**
 * @param {{ bench: import("../../store.js").Bench, data: object, routes: import("./reduce.js").Routes, edits: object[],
 *   where: string, setWhere: Function, act: Function, tryOut: Function, focus: object }} props
 */
export function Inspector({ bench, data, routes, edits, where, setWhere, act, tryOut, focus }) {
  const { layer, expert, position } = bench.selection.value;
  if (layer === null || expert === null) {
    return html`<${Panel} title="Expert" class="wb-routing-inspector">
      <${Empty}>Click an expert in the ribbon, or move there with the arrow keys and press Enter, to ban, force, reweight or swap it.</${Empty}>
    </${Panel}>`;
  }
  const own = editsOf(edits, layer, expert);
  const title = html`Layer ${layer} · <${ExpertLabel} expert=${expert} />`;
  return html`<section class="wb-panel wb-routing-inspector" aria-label=${`layer ${layer}, expert ${expert}`}>
    <div class="wb-panel-head"><h3 class="wb-panel-title">${title}</h3></div>
    <${Standing} ...${{ bench, data, routes, layer, expert, position }} />
    <${Segmented} label="Edits act" value=${where} options=${WHERE} onChange=${setWhere} />
    ${where === "token" && position === null && html`<p class="wb-note">No token is selected: click one in the ribbon.</p>`}
    <div class="wb-routing-acts" role="group" aria-label="edits">
      ${ACTS.map(([kind, name, key, hint]) => {
        const on = own.some((edit) => edit.kind === kind && edit.on && sameWhere(edit, where, position));
        return html`<${Button} key=${kind} pressed=${on} title=${`${hint} (${key})`} onClick=${() => act(kind)}>${name}<kbd aria-hidden="true">${key}</kbd></${Button}>`;
      })}
    </div>
    <${Weight} key=${`${layer} ${expert} ${where} ${position}`} ...${{ own, where, position, act, tryOut, focus }} />
    <${Swap} key=${`${layer} ${expert}`} ...${{ bench, expert, act, focus }} />
    <${Own} ...${{ bench, own, layer, expert }} />
  </section>`;
}

const sameWhere = (edit, where, position) =>
  where === "everywhere" ? edit.positions === null : edit.positions?.length === 1 && edit.positions[0] === position;

/** Where the expert stands at the token, and in this text. */
function Standing({ bench, data, routes, layer, expert, position }) {
  const { count, rows } = hardest(routes, layer, expert, 6);
  const { tokens, start, n_pos: n } = data.json;
  const row = position === null ? -1 : position - start;
  const slot = row >= 0 && row < routes.rows ? slotOf(routes, row, layer, expert) : -1;
  const here = slot < 0 ? "not chosen" : `slot ${slot + 1}, weight ${portion(routes.weight[first(routes, row, layer) + slot])}`;
  return html`${row >= 0 && row < routes.rows && html`<p class="wb-routing-here"><${TokenLabel} text=${tokens[row]} limit=${16} /> <span class="wb-soft">${position}</span>: ${here}</p>`}
    <p class="wb-note">Serves ${count} of ${routes.rows < n ? `the ${routes.rows} tokens on this page` : `${n} tokens`} (${percent(count / routes.rows)})${count ? "; with most weight:" : "."}</p>
    <div class="wb-routing-tokens">${rows.map(({ row, weight }) => html`<button type="button" key=${row} class="wb-link"
      title=${`${tokens[row]}, position ${start + row}, weight ${portion(weight)}`} onClick=${() => bench.select({ position: start + row })} ...${QUIET_KEYS}><${TokenLabel} text=${tokens[row]} limit=${14} />
      <span class="wb-soft">${portion(weight, 2)}</span></button>`)}</div>`;
}

/** The slider: what it would do is shown while it is dragged; it is put on when it is let go. */
function Weight({ own, where, position, act, tryOut, focus }) {
  const there = own.find((edit) => edit.kind === "reweight" && sameWhere(edit, where, position))?.factor ?? 1;
  const [factor, setFactor] = useState(there);
  const box = useRef(null);
  useEffect(() => setFactor(there), [there]);
  useEffect(() => () => tryOut(null), []); // another expert: nothing is tried any more
  const slide = (value) => {
    setFactor(value);
    if (value === there) tryOut(null);
    else tryOut("reweight", { factor: value });
  };
  useEffect(() => {
    focus.current.weight = () => box.current?.querySelector("input")?.focus();
  });
  const format = (value) => `× ${value.toFixed(2)}`;
  return html`<div ref=${box}><${Slider} label="Weight" value=${factor} min=${0} max=${3} step=${0.05} format=${format}
    onInput=${slide} onChange=${(value) => act("reweight", { factor: value })} /></div>`;
}

/** Tokens of one go to the other, and the other way round. */
function Swap({ bench, expert, act, focus }) {
  const others = Array.from({ length: bench.state.value.model.n_experts }, (_, i) => i).filter((i) => i !== expert);
  const [other, setOther] = useState(others[0]);
  const box = useRef(null);
  useEffect(() => {
    focus.current.swap = () => box.current?.querySelector("select")?.focus();
  });
  if (!others.length) return null;
  return html`<div class="wb-routing-line" ref=${box}>
    <${Select} label="Swap with" value=${other} options=${others.map((i) => [i, `E${i}`])} onChange=${(value) => setOther(Number(value))} />
    <${Button} onClick=${() => act("swap", { other })} title="tokens of one go to the other, with the slot's weight">Swap</${Button}>
  </div>`;
}

/** The edits that are on this expert. */
function Own({ bench, own, layer, expert }) {
  if (!own.length) return html`<p class="wb-note">No edit is on this expert.</p>`;
  const send = (kind, id) => () => bench.act("bench", { kind, id }).catch(() => {});
  return html`<ul class="wb-routing-own" aria-label="edits on this expert">${own.map(
    (edit) => html`<li key=${edit.id}><span class=${edit.on ? "" : "wb-routing-off"}>${editWords(edit)}${edit.on ? "" : " (off)"}</span>
      <${Button} kind="quiet" label=${`${edit.on ? "Turn off" : "Turn on"}: ${editWords(edit)}`} onClick=${send("chip_toggle", edit.id)}>${edit.on ? "off" : "on"}</${Button}>
      <${Button} kind="quiet" label=${`Remove: ${editWords(edit)}`} onClick=${send("chip_remove", edit.id)}>×</${Button}></li>`,
  )}
    ${own.length > 1 && html`<li><${Button} kind="quiet" title="take every edit of this expert away (x)"
      onClick=${() => bench.act("routing", { kind: "remove", layer, expert }).catch(() => {})}>Remove all</${Button}></li>`}</ul>`;
}

/** What the edits did, or what one would do that is only tried. */
export function Effect({ bench, effect, tried, start }) {
  const said = tried?.json ?? effect;
  if (!said) return null;
  const go = (position) => () => bench.select({ position });
  return html`<section class="wb-panel wb-routing-effect" aria-label="effect of the edits" aria-live="polite">
    <div class="wb-panel-head"><h3 class="wb-panel-title">${tried ? "What it would do" : "What the edits did"}</h3>
      <span class="wb-note"><bdi>${tried ? `tried, not yet on: ${tried.json.title}` : "against the unedited run"}</bdi></span></div>
    <dl class="wb-routing-numbers">
      <div><dt>KL, mean</dt><dd>${short(said.mean_kl)} nats</dd></div>
      <div><dt>KL, last token</dt><dd>${short(said.last_kl)} nats</dd></div>
      <div><dt>≠ next tokens</dt><dd>${said.n_flipped}${said.n_pos ? ` of ${said.n_pos}` : ""}</dd></div>
      <div><dt>◤ routes</dt><dd>${said.n_routes}</dd></div>
    </dl>
    ${said.flipped?.length
      ? html`<div class="wb-routing-tokens" role="group" aria-label="flipped next tokens, by KL">${said.flipped.map((each) => html`<button type="button" key=${each.position} class="wb-link"
          title=${`position ${each.position}: ${each.before} became ${each.after}, KL ${short(each.kl)} nats`} onClick=${go(each.position)} ...${QUIET_KEYS}>
          <span class="wb-soft">${each.position}</span> <${TokenLabel} text=${each.before} limit=${12} /> → <${TokenLabel} text=${each.after} limit=${12} /></button>`)}</div>`
      : null}
    ${said.flips_of_layer
      ? html`<div><p class="wb-note">Share of routes changed, by layer</p>
          <${Bars} values=${said.flips_of_layer} label="share of routes changed, by layer" names=${said.flips_of_layer.map((_, i) => `L${i}`)} format=${percent} height=${28} max=${1} /></div>`
      : null}
  </section>`;
}
