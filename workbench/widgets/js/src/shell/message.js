/** One message of a chat, as a row of the editor. */
import { QUIET_KEYS, html } from "../html.js";
import { roleColour } from "../draw/scales.js";
import { useTheme } from "../hooks.js";
import { Button, Select, TextField } from "../parts/index.js";
import { roleName, withRole } from "./drafts.js";

const ROLES = ["system", "developer", "user", "assistant", "tool"];
const CHANNELS = ["analysis", "commentary", "final"];

/** @param {{ message: object, index: number, count: number, onChange: Function, onRemove: Function, onMove: Function }} props */
export function Message({ message, index, count, onChange, onRemove, onMove }) {
  const theme = useTheme();
  const { role, channel, recipient, name, text } = message;
  const set = (fields) => onChange({ ...message, ...fields });
  const numbered = (what) => `${what} of message ${index + 1}`;
  const colour = roleColour(roleName(message).replace(" · ", "/"), theme);
  return html`<li class="wb-message-row" style=${{ borderColor: colour }}>
    <div class="wb-message-head">
      <${Select} hideLabel label=${numbered("role")} value=${role} options=${ROLES} onChange=${(fresh) => onChange(withRole(message, fresh))} />
      ${role === "assistant" && html`<${Select} hideLabel label=${numbered("channel")} value=${channel ?? "final"} options=${CHANNELS}
        onChange=${(fresh) => set({ channel: fresh })} />`}
      ${role === "assistant" && recipient && html`<${TextField} label="to" value=${recipient} width=${110}
        onInput=${(fresh) => set({ recipient: fresh || null })} />`}
      ${role === "tool" && html`<${TextField} label="name" value=${name ?? ""} width=${130} onInput=${(fresh) => set({ name: fresh })} />`}
      <span class="wb-tools">
        <${Button} kind="quiet" disabled=${index === 0} onClick=${() => onMove(-1)} label=${`Move message ${index + 1} up`}>↑</${Button}>
        <${Button} kind="quiet" disabled=${index === count - 1} onClick=${() => onMove(1)} label=${`Move message ${index + 1} down`}>↓</${Button}>
        <${Button} kind="quiet" onClick=${onRemove} label=${`Remove message ${index + 1}`}>×</${Button}>
      </span>
    </div>
    ${role === "system" && text === undefined
      ? html`<${SystemFields} message=${message} set=${set} numbered=${numbered} />`
      : html`<textarea class="wb-text" aria-label=${numbered("text")} value=${text ?? ""} spellcheck=${false}
          rows=${Math.min(8, Math.max(1, (text ?? "").split("\n").length))} ...${QUIET_KEYS}
          onInput=${(event) => set({ text: event.currentTarget.value })}></textarea>`}
  </li>`;
}

/** Harmony's system message is made of fields, not of free text. */
function SystemFields({ message, set, numbered }) {
  return html`<div class="wb-bar-line">
    <${Select} label="Reasoning" value=${message.reasoning ?? "medium"} options=${["low", "medium", "high"]}
      onChange=${(reasoning) => set({ reasoning })} />
    <${TextField} label="Identity" value=${message.identity ?? ""} width=${260} title=${numbered("identity")}
      onInput=${(identity) => set({ identity: identity || null })} placeholder="the model's own" />
  </div>`;
}
