/** All about one cell: its likeliest tokens, how the target stands; it moves from cell to cell. */
import { html } from "../../html.js";
import { percent, short } from "../../draw/scales.js";
import { useData, useOption } from "../../hooks.js";
import { Button, Distribution, Popup, Ready, TokenLabel } from "../../parts/index.js";
import { POPUP, stageWords, together } from "./cells.js";

const VIEW = "logit_lens";

/** @param {{ bench: object, at: { position: number, stage: number }, data: object, pins: object, anchor: Function, onClose: Function }} props */
export function CellPopup({ bench, at, data, pins, anchor, onClose }) {
  const [target] = useOption(bench, VIEW, "target", null);
  const [compare] = useOption(bench, VIEW, "compare", "");
  const got = useData(bench, VIEW, { part: "cell", ...at, target, compare }, { slot: "cell" });
  const isPinned = pins.pinned.includes(at.position);
  const title = `After ${data.json.tokens[at.position] ?? ""} ${at.position}, ${stageWords(at.stage)}`;
  return html`<${Popup} title=${title} anchor=${anchor} onClose=${onClose} focus=${false} width=${POPUP}>
    <div class="wb-lens-cell"><${Ready} got=${got}>${({ json }) => html`<${Facts} ...${{ bench, json, target }} run=${data.json.run} />`}</${Ready}>
      <span class="wb-tools"><${Button} pressed=${isPinned} onClick=${() => pins.toggle(at.position)}>${isPinned ? "Unpin" : "Pin"} this token</${Button}>
      </span>
      <span class="wb-note">arrow keys move, Esc closes; click a token to follow it</span>
    </div>
  </${Popup}>`;
} // prettier-ignore

function Facts({ bench, json, target, run }) {
  const follow = ({ key }) => bench.act(VIEW, { kind: "follow", token: key === target ? null : key }).catch(() => {});
  const names = json.other ? [json.other.name, run] : ["before", "after"];
  return html`<${Distribution} items=${together(json)} names=${names} label="likeliest next tokens; click one to follow it" max=${1}
      onPick=${follow} picked=${json.target.id} />
    <dl class="wb-lens-facts">
      <dt>Target <${TokenLabel} text=${json.target.text} limit=${14} /></dt>
      <dd>${percent(json.target.p)}, rank ${json.target.rank}${json.other && ` · ${json.other.name}: ${percent(json.other.target.p)}, rank ${json.other.target.rank}`}</dd>
      <dt>Entropy</dt><dd>${short(json.entropy)} nats</dd>
      <dt>KL(final ‖ here)</dt><dd>${short(json.kl)} nats</dd>
      ${json.other && html`<dt>KL(${run} ‖ ${json.other.name})</dt><dd>${short(json.other.kl)} nats</dd>`}
    </dl>`;
} // prettier-ignore
