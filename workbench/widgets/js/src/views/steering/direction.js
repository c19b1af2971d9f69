/** Which direction: two lists of texts, a token, what an expert or a head writes, a file. */
import { QUIET_KEYS, html, useEffect, useId, useRef, useState } from "../../html.js";
import { Button, Check, Segmented, Select, TextField, TokenLabel } from "../../parts/index.js";
import { DIRECTIONS, ENDINGS, base64 } from "./words.js";

const VIEW = "steering";
const PAUSE = 500; // ms after the last key
const LARGEST = 4_000_000;

/** @param {{ bench: import("../../store.js").Bench, options: object, setup: object|null }} props */
export function Direction({ bench, options, setup }) {
  const set = (values) => bench.option(VIEW, values);
  const kind = options.direction;
  const Fields = { difference: Texts, token: Token, expert: Place, head: Place, vector: Vector }[kind];
  return html`<div class="wb-steering-direction">
    <${Segmented} label="Direction" value=${kind} options=${DIRECTIONS} onChange=${(direction) => set({ direction, scale: null })} />
    <${Fields} ...${{ bench, options, setup, set }} />
  </div>`;
}

/** Two lists of texts, one a line. */
function Texts({ options, set }) {
  return html`<div class="wb-steering-texts">
      <${Lines} label="Mean of these texts, one a line" value=${options.positive} onChange=${(positive) => set({ positive })} />
      <${Lines} label="less the mean of these" value=${options.negative} onChange=${(negative) => set({ negative })} />
    </div>
    <${Segmented} label="Taken at" value=${options.at} options=${[["last", "last token"], ["mean", "mean of tokens"]]} onChange=${(at) => set({ at })} />`;
}

/** A field of several lines that is sent when the typing pauses. */
function Lines({ label, value, onChange }) {
  const id = useId();
  const [text, setText] = useState(value);
  const timer = useRef(0);
  const sent = useRef(value);
  useEffect(() => {
    // Another hand (undo, a loaded workspace) changed it.
    if (value !== sent.current) setText((sent.current = value));
  }, [value]);
  const send = (fresh) => {
    clearTimeout(timer.current);
    if (fresh !== sent.current) onChange((sent.current = fresh));
  };
  useEffect(() => () => clearTimeout(timer.current), []);
  const type = (event) => {
    const fresh = event.currentTarget.value;
    setText(fresh);
    clearTimeout(timer.current);
    timer.current = setTimeout(() => send(fresh), PAUSE);
  };
  return html`<span class="wb-steering-lines"><label for=${id} class="wb-label">${label}</label>
    <textarea id=${id} class="wb-text" rows="3" value=${text} spellcheck=${false} onInput=${type} onBlur=${(event) => send(event.currentTarget.value)} ...${QUIET_KEYS}></textarea></span>`;
}

/** A row of the unembedding. */
function Token({ bench, options, setup, set }) {
  const [text, setText] = useState("");
  const take = () => text && bench.act(VIEW, { kind: "token", text }).then(() => (setText(""), set({ scale: null })), () => {});
  return html`<div class="wb-bar-line">
    <span class="wb-label">Towards</span> ${setup && html`<${TokenLabel} text=${setup.token.text} />`}
    ${options.token === null ? html`<span class="wb-note">the right answer</span>` : html`<${Button} kind="quiet" onClick=${() => set({ token: null })}>Back to the right answer</${Button}>`}
    <${TextField} label="Another token" value=${text} width=${110} onInput=${setText} onEnter=${take} />
    <${Button} disabled=${!text} onClick=${take}>Take it</${Button}>
  </div>`;
}

/** What an expert puts out, or a head writes, at one token. */
function Place({ bench, options, setup, set }) {
  const { n_layers: layers, n_experts: experts, n_heads: heads } = bench.state.value.model;
  const follows = options.of_layer === null && options.of_index === null && options.of_position === null;
  const { layer, index, position, word } = setup?.place ?? {};
  const kind = options.direction;
  const numbers = (n) => Array.from({ length: n }, (_, i) => [i, String(i)]);
  const pin = (values) => set({ of_layer: layer, of_index: index, of_position: position, ...values });
  return html`<div class="wb-bar-line">
    <${Check} label="follows the selection" checked=${follows} onChange=${(on) => (on ? set({ of_layer: null, of_index: null, of_position: null }) : pin({}))} />
    <${Select} label="layer" value=${layer} options=${numbers(layers)} onChange=${(value) => pin({ of_layer: Number(value) })} />
    <${Select} label=${kind} value=${index} options=${numbers(kind === "expert" ? experts : heads)} onChange=${(value) => pin({ of_index: Number(value) })} />
    <span class="wb-note">at token ${position} ${word !== undefined && html`<${TokenLabel} text=${word} />`}${
      kind === "expert" ? ", before its routing weight, chosen there or not" : ", without b_O"}</span>
  </div>`;
} // prettier-ignore

/** A vector that the Bench has, or one out of a file. */
function Vector({ bench, options, setup, set }) {
  const field = useRef(null);
  const vectors = setup?.vectors ?? [];
  const open = async (event) => {
    const [file] = event.currentTarget.files;
    event.currentTarget.value = "";
    if (!file) return;
    if (file.size > LARGEST) return bench.fail(new Error(`${file.name} is larger than ${LARGEST / 1e6} MB, too large for one vector`));
    const content = base64(new Uint8Array(await file.arrayBuffer()));
    await bench.act(VIEW, { kind: "file", name: file.name, base64: content }).catch(() => {});
    set({ scale: null });
  };
  const none = options.vector === "" || !vectors.some(({ name }) => name === options.vector);
  return html`<div class="wb-bar-line">
    ${vectors.length > 0 && html`<${Select} label="Vector" value=${none ? "" : options.vector} onChange=${(vector) => set({ vector, scale: null })}
      options=${[...(none ? [["", "choose"]] : []), ...vectors.map(({ name, title }) => [name, title])]} />`}
    <${Button} onClick=${() => field.current.click()}>Open a file …</${Button}>
    <input ref=${field} type="file" hidden accept=${ENDINGS} aria-label="vector file" onChange=${open} tabindex="-1" ...${QUIET_KEYS} />
    <span class="wb-note">.safetensors, .npy or .json with ${bench.state.value.model.d_model} numbers</span>
  </div>`;
} // prettier-ignore
