/** The prompts: one quiet line each, and an editor when one wants to write. */
import { QUIET_KEYS, html, useLayoutEffect, useRef, useState } from "../html.js";
import { roleColour } from "../draw/scales.js";
import { useTheme } from "../hooks.js";
import { Button, Segmented } from "../parts/index.js";
import { actionFor, draftOf, message, replaced, shifted, summary, withKind, without } from "./drafts.js";
import { Message } from "./message.js";

/** @param {{ bench: import("../store.js").Bench }} props */
export function Composer({ bench }) {
  const [drafts, setDrafts] = useState(null);
  const { prompts } = bench.state.value;
  const opener = useRef(null);
  const wasOpen = useRef(false);
  useLayoutEffect(() => {
    if (wasOpen.current && !drafts) opener.current?.querySelector("button")?.focus({ preventScroll: true });
    wasOpen.current = Boolean(drafts);
  }, [drafts === null]);
  if (drafts) return html`<${Editor} ...${{ bench, drafts, setDrafts, prompts }} close=${() => setDrafts(null)} />`;
  const edit = () => setDrafts(prompts.map(draftOf));
  return html`<div class="wb-prompts">
    <div class="wb-prompt-lines">
      ${prompts.map((prompt) => html`<${Line} key=${prompt.name} prompt=${prompt} named=${prompts.length > 1} edit=${edit} />`)}
    </div>
    <span ref=${opener}><${Button} onClick=${edit} title="Write another prompt">Edit prompt</${Button}></span>
  </div>`;
}

function Line({ prompt, named, edit }) {
  const theme = useTheme();
  const { text, who, note } = summary(prompt);
  const colour = roleColour(who.replace(" · ", "/"), theme);
  return html`<div class="wb-prompt-line" onDblClick=${edit}>
    <span class="wb-label" title=${prompt.name}>${named ? prompt.name : "Prompt"}</span>
    ${who && html`<span class="wb-who" style=${{ borderColor: colour }}>${who}</span>`}
    <span class="wb-prompt-text"><bdi>${text}</bdi></span>
    <span class="wb-note">${note}</span>
  </div>`;
}

function Editor({ bench, drafts, setDrafts, prompts, close }) {
  const [error, setError] = useState(null);
  const [busy, setBusy] = useState(false);
  const box = useRef(null);
  useLayoutEffect(() => box.current.querySelector("textarea")?.focus({ preventScroll: true }), []);
  const run = async () => {
    try {
      setError(null);
      const action = actionFor(prompts, drafts);
      setBusy(true);
      if (action) await bench.act("bench", action, { quiet: true });
      close();
    } catch (failure) {
      setError(failure);
      setBusy(false);
    }
  };
  const key = (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) run();
    else if (event.key === "Escape") close();
    else return;
    event.preventDefault();
    event.stopPropagation();
  };
  const add = () => setDrafts([...drafts, { ...structuredClone(drafts[0]), name: drafts[0].name === "corrupt" ? "clean" : "corrupt" }]);
  return html`<section class="wb-editor" aria-label="Prompt editor" onKeyDown=${key} ref=${box}>
    <div class="wb-drafts">
      ${drafts.map((draft, i) => html`<${Draft} key=${draft.name} draft=${draft} chat=${bench.state.value.model.has_chat}
        text=${bench.state.value.model.has_tokenizer} named=${drafts.length > 1}
        onChange=${(fresh) => setDrafts(replaced(drafts, i, fresh))}
        onRemove=${drafts.length > 1 ? () => setDrafts(without(drafts, i)) : null} />`)}
    </div>
    ${error && html`<p class="wb-error-text" role="alert">${error.message}</p>`}
    <div class="wb-bar-line">
      <${Button} kind="primary" onClick=${run} disabled=${busy} title="Ctrl+Enter">${busy ? "Running…" : "Run"}</${Button}>
      <${Button} onClick=${close} title="Escape">Cancel</${Button}>
      ${drafts.length < 2 && html`<${Button} kind="quiet" onClick=${add}>Add a second prompt to compare</${Button}>`}
      <span class="wb-note">Ctrl+Enter runs</span>
    </div>
  </section>`;
}

function Draft({ draft, chat, text, named, onChange, onRemove }) {
  const kinds = [...(text ? [["text", "text"]] : []), ...(chat ? [["chat", "chat"]] : []), ["tokens", "token ids"]];
  const set = (messages) => onChange({ ...draft, messages });
  const toTokens = draft.kind === "tokens" ? kinds : kinds.filter(([kind]) => kind !== "tokens");
  return html`<div class="wb-draft" role="group" aria-label=${`prompt ${draft.name}`}>
    <div class="wb-bar-line">
      ${named && html`<strong class="wb-strong"><bdi>${draft.name}</bdi></strong>`}
      ${toTokens.length > 1 && html`<${Segmented} label=${`kind of ${draft.name}`} hideLabel value=${draft.kind} options=${toTokens}
        onChange=${(kind) => onChange(withKind(draft, kind))} />`}
      ${onRemove && html`<${Button} kind="quiet" onClick=${onRemove} label=${`Remove prompt ${draft.name}`}>Remove</${Button}>`}
    </div>
    ${draft.kind === "chat"
      ? html`<ol class="wb-messages">
          ${draft.messages.map((each, i) => html`<${Message} key=${i} message=${each} index=${i} count=${draft.messages.length}
            onChange=${(fresh) => set(replaced(draft.messages, i, fresh))} onRemove=${() => set(without(draft.messages, i))}
            onMove=${(by) => set(shifted(draft.messages, i, by))} />`)}
        </ol>
        <${Button} kind="quiet" onClick=${() => set([...draft.messages, message("user")])}>Add a message</${Button}>`
      : html`<textarea class="wb-text" rows=${Math.min(8, Math.max(2, draft.text.split("\n").length))} spellcheck=${false}
          aria-label=${draft.kind === "tokens" ? `token ids of ${draft.name}` : `text of ${draft.name}`} value=${draft.text}
          onInput=${(event) => onChange({ ...draft, text: event.currentTarget.value })} ...${QUIET_KEYS}></textarea>`}
  </div>`;
}
