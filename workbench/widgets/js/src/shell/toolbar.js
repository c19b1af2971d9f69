/** Undo, redo, code, files. */
import { QUIET_KEYS, html, useRef, useState } from "../html.js";
import { Button, Popup, Select } from "../parts/index.js";
import { spelled } from "../words.js";
import { bytes, copy, download } from "./files.js";

const NOT_HERE = () => {}; // failures are already in the status line

/** @param {{ bench: import("../store.js").Bench, active: string|null }} props active: the view in front */
export function Toolbar({ bench, active }) {
  const [open, setOpen] = useState(null); // "code" | "export"
  const [code, setCode] = useState(null);
  const anchors = { code: useRef(null), export: useRef(null), load: useRef(null) };
  const history = bench.state.value?.history;
  const act = (kind) => () => bench.act("bench", { kind }).catch(NOT_HERE);
  const showCode = async () => {
    const answer = await bench.act("bench", { kind: "code" }).catch(NOT_HERE);
    if (!answer) return;
    setCode({ text: answer.code, copied: await copy(answer.code) });
    setOpen("code");
  };
  const save = async () => {
    const answer = await bench.act("bench", { kind: "save" }).catch(NOT_HERE);
    if (answer) download(answer.name, "application/json", answer.text);
  };
  const close = () => setOpen(null);
  return html`<div class="wb-toolbar" role="toolbar" aria-label="Bench">
    <${Button} kind="quiet" disabled=${!history?.can_undo} onClick=${act("undo")} title="Undo (Ctrl+Z)">Undo</${Button}>
    <${Button} kind="quiet" disabled=${!history?.can_redo} onClick=${act("redo")} title="Redo (Ctrl+Shift+Z)">Redo</${Button}>
    <span class="wb-divider" aria-hidden="true"></span>
    <span ref=${anchors.code}><${Button} kind="quiet" onClick=${showCode} title="A cell of plain Python that gives what is on screen">Copy code</${Button}></span>
    <span ref=${anchors.export}><${Button} kind="quiet" onClick=${() => setOpen("export")} title="HTML, CSV or PNG">Export</${Button}></span>
    <${Button} kind="quiet" onClick=${save} title="The workspace as JSON">Save</${Button}>
    <${Load} bench=${bench} />
    ${open === "code" && html`<${Code} ...${code} anchor=${() => rect(anchors.code)} onClose=${close} />`}
    ${open === "export" && html`<${Export} bench=${bench} active=${active} anchor=${() => rect(anchors.export)} onClose=${close} />`}
  </div>`;
}

const rect = (ref) => ref.current?.getBoundingClientRect() ?? null;

/** Reads a workspace from a file. */
function Load({ bench }) {
  const input = useRef(null);
  const read = async (event) => {
    const [file] = event.currentTarget.files;
    event.currentTarget.value = "";
    if (!file) return;
    const text = await file.text();
    await bench.act("bench", { kind: "load", text }).then(() => bench.note(`loaded ${spelled(file.name, 80)}`), NOT_HERE);
  };
  return html`<${Button} kind="quiet" onClick=${() => input.current.click()} title="A workspace that was saved">Load</${Button}>
    <input ref=${input} type="file" accept=".json,application/json" hidden onChange=${read} aria-label="Workspace file" />`;
}

function Code({ text, copied, anchor, onClose }) {
  return html`<${Popup} title=${copied ? "Copied: this cell gives what is on screen" : "This cell gives what is on screen"}
    anchor=${anchor} onClose=${onClose} width=${560}>
    <pre class="wb-code" tabindex="0" aria-label="Python code" ...${QUIET_KEYS}>${text}</pre>
    ${!copied && html`<p class="wb-note">The browser did not let us copy; select the text and copy it.</p>`}
  </${Popup}>`;
}

function Export({ bench, active, anchor, onClose }) {
  const [format, setFormat] = useState("html");
  const [what, setWhat] = useState(active ?? "all");
  const [busy, setBusy] = useState(false);
  const title = bench.state.value.views.find(({ name }) => name === active)?.title;
  const make = async () => {
    setBusy(true);
    const action = { kind: "export", format, ...(what === "all" ? {} : { view: what }) };
    const made = await bench.act("bench", action).catch(NOT_HERE);
    setBusy(false);
    if (!made) return;
    download(made.name, made.mime, bytes(made.base64));
    bench.note(`exported ${made.name}`);
    onClose();
  };
  const views = active ? [[active, `this view: ${title ?? active}`], ["all", "all open views"]] : [["all", "all open views"]];
  return html`<${Popup} title="Export" anchor=${anchor} onClose=${onClose}>
    <div class="wb-form">
      <${Select} label="What" value=${what} options=${views} onChange=${setWhat} />
      <${Select} label="As" value=${format} options=${[["html", "HTML page"], ["png", "PNG picture"], ["csv", "CSV table"]]} onChange=${setFormat} />
      <${Button} kind="primary" disabled=${busy} onClick=${make}>${busy ? "Making it…" : "Download"}</${Button}>
    </div>
  </${Popup}>`;
}
