/** Several components taken out together, beside random groups of as many: redundancy, and what is only noise. */
import { html, useRef } from "../../html.js";
import { short } from "../../draw/scales.js";
import { useSize } from "../../hooks.js";
import { Button, Panel } from "../../parts/index.js";
import { partName, swarm, written } from "./table.js";

const SHOWN = 12;

/** @param {{ json: object, group: number[][], found: object|null, onRun: Function, onAdd: Function, onClear: Function, onFirst: Function, firsts: number }} props */
export function Group({ json, group, found, onRun, onAdd, onClear, onFirst, onDrop, firsts, busy }) {
  const names = group.map(([layer, index]) => ({ layer, index, name: partName(json.kind, layer, index) }));
  const sides = found?.sides?.filter(Boolean) ?? [];
  return html`<${Panel} title="Knock out together" note=${`${group.length} chosen; beside them 20 random groups of as many that this text uses`}
    tools=${html`<${Button} onClick=${onFirst} disabled=${!firsts} title="as the table is sorted">Choose the first ${firsts}</${Button}>
      <${Button} onClick=${onClear} disabled=${!group.length}>Choose none</${Button}>
      <${Button} onClick=${onAdd} disabled=${!group.length} title="one intervention for each">Take out on the Bench</${Button}>
      <${Button} kind="primary" onClick=${onRun} disabled=${!group.length || busy}>Knock out</${Button}>`}>
    ${names.length
      ? html`<ul class="wb-ablation-chosen" aria-label="chosen for the group">${names.slice(0, SHOWN).map(({ layer, index, name }) => html`<li key=${name}>
          <${Button} kind="quiet" label=${`${name} × take off the group`} onClick=${() => onDrop(layer, index)}>${name} ×</${Button}></li>`)}
          ${names.length > SHOWN ? html`<li class="wb-note">and ${names.length - SHOWN} more</li>` : null}</ul>`
      : html`<p class="wb-note">Choose rows with the boxes at their left, or X on the keyboard. One head alone hardly matters where others do the same work; a group shows it.</p>`}
    ${sides.map((side) => html`<${Strip} key=${side.title} side=${side} count=${group.length} kind=${json.kind} />`)}
  </${Panel}>`;
} // prettier-ignore

/** One axis: the chosen group, the random ones, and the band that they span. */
function Strip({ side, count, kind }) {
  const box = useRef(null);
  const width = Math.max(120, useSize(box).width - 24);
  const others = side.others.filter((value) => value !== null);
  const known = side.effect !== null;
  const limit = 1.08 * Math.max(1e-9, ...(known ? [Math.abs(side.effect)] : []), ...others.map(Math.abs));
  const dots = swarm(others, limit, width);
  const high = 12 + 7 * Math.max(0, ...dots.map((dot) => dot.level));
  const [line, x] = [high + 12, (value) => ((value + limit) / (2 * limit)) * width];
  const words = stripWords(side, others, count, kind);
  return html`<div class="wb-ablation-strip" ref=${box}>
    <p><span class="wb-strong"><bdi>${side.title}</bdi></span> ${words}</p>
    ${known && html`<svg width=${width + 24} height=${line + 24} role="img" aria-label=${`${side.title}: ${words}`}>
      <g transform="translate(12 0)">
        ${side.floor !== null && html`<rect class="wb-ablation-band" x=${x(-side.floor)} width=${x(side.floor) - x(-side.floor)} y="4" height=${line - 4} />`}
        <line class="wb-grid-line" x1="0" x2=${width} y1=${line} y2=${line} /><line class="wb-grid-line" x1=${x(0)} x2=${x(0)} y1="4" y2=${line + 4} />
        ${dots.map((dot, i) => html`<circle key=${i} class="wb-ablation-dot" cx=${dot.x} cy=${line - 7 - 7 * dot.level} r="3" />`)}
        <path class="wb-ablation-mark" d=${`M${x(side.effect)} ${line - 16}l6 8l-6 8l-6 -8z`} />
        ${[-limit / 1.08, 0, limit / 1.08].map((value, i) => html`<text key=${i} class="wb-tick" x=${x(value)} y=${line + 15} text-anchor=${["start", "middle", "end"][i]}>${written(value, true, short)}</text>`)}
      </g>
    </svg>`}
  </div>`;
} // prettier-ignore

/** What the strip shows, in words. */
function stripWords(side, others, count, kind) {
  if (side.effect === null) return "not run yet";
  const what = `◆ ${written(side.effect, true, short)} logits (KL ${short(side.kl)} nats)`;
  if (!others.length) return `${what}; there is no other group of ${count} ${kind}s that this text uses`;
  const p = side.p === null ? "" : `, p = ${short(side.p, 2)}`;
  return `${what}; ● ${others.length} random group${others.length > 1 ? "s" : ""} of ${count}: noise floor ±${short(side.floor)} (grey band)${p}`;
}
