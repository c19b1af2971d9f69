/** Without two prompts that can be patched: why, and a field to make the second. */
import { html, useState } from "../../html.js";
import { Button, Empty } from "../../parts/index.js";
import { QUIET_KEYS, useId } from "../../html.js";

const WHY = {
  one: ["Patching needs a second prompt", "It takes what one prompt's run computed (the source) and puts it into another's (the target), to see what brings the source's answer back. Write a second prompt with as many tokens, with the deciding word changed."],
  same: ["The two prompts are the same", "No patch can change anything until a word differs. Change it here, or in the prompts above."],
  length: ["The two prompts have unlike numbers of tokens", "A grid patches position by position, so each needs its counterpart. Exchange a word for one of as many tokens. Single tokens can be dragged all the same."],
}; // prettier-ignore

/** @param {{ bench: object, why: "one"|"same"|"length", target?: string, note?: string }} props */
export function Missing({ bench, why, target, note }) {
  const prompts = bench.state.value.prompts;
  const edited = (why === "one" ? prompts[0] : prompts.find(({ name }) => name === target)) ?? prompts[0];
  const [title, words] = WHY[why];
  return html`<div class="wb-patching-missing">
    <${Empty} title=${title}>${words}${note ? ` (${note})` : ""}</${Empty}>
    ${edited.kind === "text"
      ? html`<${Editor} key=${`${why} ${edited.name}`} ...${{ bench, why, edited, first: prompts[0] }} />`
      : html`<p>${why === "one"
          ? html`<${Button} kind="primary" onClick=${() => copy(bench, prompts[0])}>Make a copy to edit</${Button}> <span class="wb-note">It stands beside the first in the composer above.</span>`
          : html`<span class="wb-note">Change a word of ${edited.name} in the composer above.</span>`}</p>`}
  </div>`;
}

const second = (first) => (first.name === "corrupt" ? "other" : "corrupt");

/** A prompt as an action carries it. */
function asGiven({ kind, text, messages }) {
  if (kind === "chat") return { messages };
  return kind === "tokens" ? { tokens: text.split(" ").map(Number) } : { text };
}

function copy(bench, first) {
  const prompts = [{ name: first.name, ...asGiven(first) }, { name: second(first), ...asGiven(first) }];
  bench.act("bench", { kind: "pair", prompts }).catch(() => {});
}

function Editor({ bench, why, edited, first }) {
  const id = useId();
  const [text, setText] = useState(edited.text);
  const name = why === "one" ? second(first) : edited.name;
  const use = () => {
    const action = why === "one"
      ? { kind: "pair", prompts: [{ name: first.name, ...asGiven(first) }, { name, text }] }
      : { kind: "prompt", name, text };
    bench.act("bench", action).catch(() => {});
  }; // prettier-ignore
  return html`<div class="wb-form">
    <label class="wb-label" for=${id}>${why === "one" ? "Second prompt" : `Prompt ${name}`}: change the word that decides</label>
    <textarea id=${id} class="wb-text" rows="2" value=${text} onInput=${(event) => setText(event.currentTarget.value)} spellcheck=${false} ...${QUIET_KEYS}></textarea>
    <${Button} kind="primary" disabled=${text === edited.text} onClick=${use}>${why === "one" ? "Compare with this" : "Use this"}</${Button}>
  </div>`;
}
