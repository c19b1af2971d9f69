/** What would rank 5 have written? The experts of one token in the router's order, with those that came next. */
import { QUIET_KEYS, html } from "../../html.js";
import { portion, short } from "../../draw/scales.js";
import { useData, useOption } from "../../hooks.js";
import { Button, Check, Empty, Panel, Ready, TokenLabel } from "../../parts/index.js";
import { ExpertLabel } from "./inspector.js";
import { fixed } from "./reduce.js";

/** @param {{ bench: import("../../store.js").Bench, token: string|null, force: (expert: number) => void }} props */
export function Unchosen({ bench, token, force }) {
  const { layer, position } = bench.selection.value;
  const [measured, setMeasured] = useOption(bench, "routing", "measured", false);
  const [next] = useOption(bench, "routing", "next", 4);
  const known = layer !== null && position !== null;
  const { experts_per_token: k, n_experts: n } = bench.state.value.model;
  const got = useData(bench, "routing", known ? { what: "unchosen", layer, position, next, measured } : null, { slot: "unchosen" });
  const title = `What would rank ${Math.min(k + 1, n)} have written?`;
  if (!known) return html`<${Panel} title=${title}><${Empty}>Select a token in a layer to see its experts in the router's order.</${Empty}></${Panel}>`;
  const tools = html`<${Check} label="force each in a run of its own" checked=${measured} onChange=${setMeasured} />`;
  const note = html`<bdi>${token ?? ""}</bdi> at position ${position}, layer ${layer}`;
  return html`<${Panel} title=${title} note=${note} tools=${tools}>
    <${Ready} got=${got} height=${120}>${(data) => html`<${Table} ...${{ bench, force }} json=${data.json} />`}</${Ready}>
  </${Panel}>`;
}

function Table({ bench, json, force }) {
  const { rows, right, wrong, measured } = json;
  const { expert, layer } = bench.selection.value;
  const heads = [
    ["rank", "in the order of the router's logits; the slots first"],
    ["expert", ""],
    ["route", "whether the token went to it; Force sends it there, at this token alone"],
    ["router p", "softmax of the router's logits over all experts"],
    ["weight", "its routing weight; of those not chosen, what it would have if forced into the weakest slot"],
    ["‖w·y‖", "norm of what it writes into the stream, with that weight"],
    ["direct, logits", "what w·y adds to the answer's logit difference, with the final norm as it is"],
    ["if forced, logits", "direct change of the logit difference: its own part, less that of the expert it displaces"],
    ...(measured ? [["in a run, logits", "change of the logit difference in a run in which it is forced: later layers included"], ["KL, nats", "of the next token's distribution, in that run"]] : []),
    ["raises", "tokens whose logits its direction raises most"],
  ];
  return html`<p class="wb-routing-note">Answer: logit of <${TokenLabel} text=${right} limit=${16} /> − logit of <${TokenLabel} text=${wrong} limit=${16} />, a dash: it was chosen anyway.</p>
    <div class="wb-routing-scroll" tabindex="0" role="region" aria-label="experts in the router's order" ...${QUIET_KEYS}><table class="wb-routing-table">
      <thead><tr>${heads.map(([name, hint], i) => html`<th key=${name} scope="col" title=${hint} class=${i > 2 && i < heads.length - 1 ? "wb-right" : ""}>${name}</th>`)}</tr></thead>
      <tbody>${rows.map((row, i) => html`<tr key=${row.expert} class=${[row.expert === expert ? "wb-picked" : "", row.chosen ? "" : "wb-routing-next", !row.chosen && rows[i - 1]?.chosen ? "wb-routing-cut" : ""].join(" ")}>
        <td>${i + 1}</td>
        <th scope="row"><button type="button" class="wb-link" ...${QUIET_KEYS} title=${`select expert ${row.expert}`} onClick=${() => bench.select({ layer, expert: row.expert })}><${ExpertLabel} expert=${row.expert} /></button></th>
        <td>${row.chosen ? html`<span class="wb-note">went here</span>` : html`<${Button} label=${`Force expert ${row.expert} at this token`} onClick=${() => force(row.expert)}>Force</${Button}>`}</td>
        <td class="wb-right">${portion(row.probability)}</td>
        <td class="wb-right">${portion(row.weight)}</td>
        <td class="wb-right">${fixed(row.written_norm, 2)}</td>
        <td class="wb-right">${fixed(row.direct)}</td>
        <td class="wb-right">${row.chosen ? "–" : fixed(row.forced)}</td>
        ${measured && html`<td class="wb-right">${row.chosen ? "–" : fixed(row.total)}</td><td class="wb-right">${row.chosen ? "–" : short(row.kl)}</td>`}
        <td class="wb-routing-raises">${row.raises.map((text, j) => html`<${TokenLabel} key=${j} text=${text} limit=${12} />`)}</td>
      </tr>`)}</tbody>
    </table></div>`;
}
