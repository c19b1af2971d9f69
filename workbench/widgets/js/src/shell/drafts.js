/** Prompts while they are edited: plain data, no page. */
import { spelled } from "../words.js";

/** A prompt of the state as a draft. */
export function draftOf({ name, kind, text, messages }) {
  return { name, kind, text: text ?? "", messages: structuredClone(messages ?? []) };
}

/** What Python reads: { name, text } or { name, messages } or { name, tokens }. Throws where ids are none. */
export function sent({ name, kind, text, messages }) {
  if (kind === "chat") return { name, messages };
  if (kind === "text") return { name, text };
  const ids = text.trim() === "" ? [] : text.trim().split(/[\s,]+/);
  const wrong = ids.find((id) => !/^\d+$/.test(id));
  if (wrong !== undefined) throw new Error(`token ids are whole numbers, and "${spelled(wrong, 40)}" is none`);
  return { name, tokens: ids.map(Number) };
}

/** The action that brings Python from its prompts to the drafts; null where nothing changed. */
export function actionFor(prompts, drafts) {
  const before = prompts.map((prompt) => JSON.stringify(sent(draftOf(prompt))));
  const changed = drafts.filter((draft, i) => JSON.stringify(sent(draft)) !== before[i]);
  if (!changed.length && prompts.length === drafts.length) return null;
  if (prompts.length === drafts.length && changed.length === 1) return { kind: "prompt", ...sent(changed[0]) };
  return { kind: "pair", prompts: drafts.map(sent) };
}

/** A draft as another kind, with as much of its text as that kind holds. */
export function withKind(draft, kind) {
  if (kind === draft.kind) return draft;
  if (kind === "chat") return { ...draft, kind, messages: draft.messages.length ? draft.messages : [message("system"), message("user", draft.text)] };
  const text = draft.kind === "chat" ? draft.messages.map((each) => each.text ?? "").filter(Boolean).join("\n") : draft.text;
  return { ...draft, kind, text };
}

/** A new message of a role. */
export function message(role, text = "") {
  if (role === "assistant") return { role, text, channel: "final" };
  if (role === "tool") return { role, text, name: "functions.name", channel: "commentary" };
  if (role === "system") return { role, reasoning: "medium" };
  return { role, text };
}

/** A message as another role: what the roles share stays. */
export function withRole(old, role) {
  const made = { ...message(role), ...(role === "system" ? {} : { text: old.text ?? "" }) };
  return old.role === role ? old : made;
}

/** A list with one item changed, moved or taken out. */
export const replaced = (list, at, item) => list.map((old, i) => (i === at ? item : old));
export const without = (list, at) => list.filter((_, i) => i !== at);
export function shifted(list, at, by) {
  const to = at + by;
  if (to < 0 || to >= list.length) return list;
  const made = [...list];
  [made[at], made[to]] = [made[to], made[at]];
  return made;
}

/** A prompt in one line. */
export function summary({ kind, text, messages, length }) {
  const tokens = `${length} token${length === 1 ? "" : "s"}`;
  if (kind === "chat") {
    const said = messages.filter((each) => each.text);
    const last = said.at(-1);
    const count = `${messages.length} message${messages.length === 1 ? "" : "s"}`;
    return { text: last ? spelled(last.text, 400) : "", who: last ? roleName(last) : "", note: `chat, ${count}, ${tokens}` };
  }
  return { text: kind === "tokens" ? "given as token ids" : spelled(text, 400), who: "", note: tokens };
}

export const roleName = ({ role, channel }) => (role === "assistant" && channel ? `${role} · ${channel}` : role);
