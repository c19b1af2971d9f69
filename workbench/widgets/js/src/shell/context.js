/** Which prompt is edited, which run is shown, which answer is weighed. */
import { html, useRef, useState } from "../html.js";
import { Button, Popup, Segmented, Select, TextField } from "../parts/index.js";

const SHOWN_ELSEWHERE = () => {};

/** @param {{ bench: import("../store.js").Bench }} props */
export function Context({ bench }) {
  const { prompts, subject, runs, shown } = bench.state.value;
  const act = (action) => bench.act("bench", action).catch(SHOWN_ELSEWHERE);
  const show = (run) => bench.change("show", { kind: "show", run }, (state) => ({ ...state, shown: run }));
  return html`${runs.length > 1 && html`<${Segmented} label="Showing" value=${shown} options=${runs} onChange=${show} />`}
    ${prompts.length > 1 && html`<${Select} label="Interventions go to" value=${subject} options=${prompts.map(({ name }) => name)}
      onChange=${(name) => act({ kind: "subject", name })} />`}
    <${Answer} bench=${bench} />`;
}

function Answer({ bench }) {
  const { answer } = bench.state.value;
  const [open, setOpen] = useState(false);
  const anchor = useRef(null);
  const said = answer ? html`<bdi>${answer.right.text}</bdi> against <bdi>${answer.wrong.text}</bdi>` : "the two likeliest tokens";
  return html`<span class="wb-field" ref=${anchor}>
    <span class="wb-label">Answer</span>
    <${Button} kind="quiet" class="wb-answer" onClick=${() => setOpen(!open)} title="The two tokens whose logits are weighed against each other">${said}</${Button}>
    ${open && html`<${AnswerForm} bench=${bench} answer=${answer} onClose=${() => setOpen(false)} anchor=${() => anchor.current?.getBoundingClientRect() ?? null} />`}
  </span>`;
}

/** A visible token back as text: the marks of white space are white space again. */
export const plain = (shown) => shown.replaceAll("␣", " ").replaceAll("¶", "\n").replaceAll("⇥", "\t");

function AnswerForm({ bench, answer, anchor, onClose }) {
  const [right, setRight] = useState(answer ? plain(answer.right.text) : "");
  const [wrong, setWrong] = useState(answer ? plain(answer.wrong.text) : "");
  const [error, setError] = useState(null);
  const send = (action) => bench.act("bench", action, { quiet: true }).then(onClose, setError);
  const token = (text, old) => (old && text === plain(old.text) ? old.id : text);
  const set = () => send({ kind: "answer", right: token(right, answer?.right), wrong: token(wrong, answer?.wrong) });
  return html`<${Popup} title="Answer tokens" anchor=${anchor} onClose=${onClose} width=${300}>
    <div class="wb-form">
      <${TextField} label="Right" value=${right} onInput=${setRight} onEnter=${set} width=${180} />
      <${TextField} label="Wrong" value=${wrong} onInput=${setWrong} onEnter=${set} width=${180} />
      <p class="wb-note">Each is one token, often with a space before it. Patching and ablation weigh the logit of the right one against that of the wrong one.</p>
      ${error && html`<p class="wb-error-text" role="alert">${error.message}</p>`}
      <span class="wb-tools">
        <${Button} kind="primary" onClick=${set}>Set</${Button}>
        <${Button} onClick=${() => send({ kind: "answer", right: null, wrong: null })}>The two likeliest</${Button}>
      </span>
    </div>
  </${Popup}>`;
}
