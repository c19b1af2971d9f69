/** What is on screen: the whole Bench, or one view in a slim frame. */
import { BenchContext, html, useEffect, useState } from "./html.js";
import { Empty, Failure, Guard } from "./parts/index.js";
import { Chips } from "./shell/chips.js";
import { Composer } from "./shell/composer.js";
import { Context } from "./shell/context.js";
import { Status } from "./shell/status.js";
import { Toolbar } from "./shell/toolbar.js";
import { Shown, Views, front } from "./shell/views.js";
import { VIEWS } from "./views/index.js";

/** @param {{ bench: import("./store.js").Bench }} props */
export function App({ bench }) {
  const state = bench.state.value;
  const body = !state ? html`<${Waiting} />` : state.single ? html`<${Single} bench=${bench} />` : html`<${Whole} bench=${bench} />`;
  return html`<${BenchContext.Provider} value=${bench}>
    <div class="wb-app" data-theme=${bench.theme.value} onKeyDown=${(event) => undo(event, bench)}>
      <${Guard} name="Bench">${body}</${Guard}>
    </div>
  </${BenchContext.Provider}>`;
}

/** Ctrl+Z and Ctrl+Shift+Z, but not while somebody writes. */
function undo(event, bench) {
  const writing = event.target.matches?.("textarea, input:not([type=range]):not([type=checkbox])");
  if (!(event.ctrlKey || event.metaKey) || event.altKey || writing) return;
  const key = event.key.toLowerCase();
  const kind = key === "z" ? (event.shiftKey ? "redo" : "undo") : key === "y" ? "redo" : null;
  if (!kind) return;
  event.preventDefault();
  event.stopPropagation();
  const { can_undo, can_redo } = bench.state.value?.history ?? {};
  if (kind === "undo" ? can_undo : can_redo) bench.act("bench", { kind }).catch(() => {});
}

/** Python has not answered yet. */
function Waiting() {
  const [long, setLong] = useState(false);
  useEffect(() => {
    const timer = setTimeout(() => setLong(true), 4000);
    return () => clearTimeout(timer);
  }, []);
  return html`<div class="wb-waiting" role="status">
    ${long
      ? html`<${Empty} title="No answer from Python yet.">Is another cell running? If the kernel was restarted, run this cell again.</${Empty}>`
      : html`<span class="wb-note">Opening the Bench…</span>`}
  </div>`;
}

/** The model, in a few words. */
function Model({ model }) {
  const parts = [`${model.n_layers} layers`, `${model.n_heads} heads`, `${model.n_experts} experts`];
  return html`<span class="wb-model"><strong class="wb-strong"><bdi>${model.name}</bdi></strong>
    <span class="wb-note">${parts.join(" · ")}</span></span>`;
}

function Whole({ bench }) {
  const state = bench.state.value;
  const TokensView = VIEWS.tokens.View;
  return html`<header class="wb-head"><${Model} model=${state.model} /><${Toolbar} bench=${bench} active=${front(bench)} /></header>
    <${Composer} bench=${bench} />
    <${Trouble} bench=${bench} />
    <div class="wb-top-strip"><${Guard} name="tokens">
      <${TokensView} bench=${bench} compact before=${html`<${Context} bench=${bench} />`} />
    </${Guard}></div>
    <${Touched} bench=${bench} />
    <${Views} bench=${bench} />
    <${Status} bench=${bench} />`;
}

/** Why there is no run, and another try; what else one should know of the runs. */
function Trouble({ bench }) {
  const { error, warning } = bench.state.value;
  const again = () => bench.act("bench", { kind: "again" }).catch(() => {});
  return html`${error && html`<${Failure} error=${error} again=${again} first />`}${warning && html`<${Empty} title="Note">${warning}</${Empty}>`}`;
}

/** The interventions and what they did, where there are any. */
function Touched({ bench }) {
  if (!bench.state.value.chips.length) return null;
  return html`<div class="wb-touched"><${Chips} bench=${bench} /><${Shown} bench=${bench} name="effect" /></div>`;
}

/** One view alone. */
function Single({ bench }) {
  const { single, model, views, shown } = bench.state.value;
  const title = views.find(({ name }) => name === single)?.title ?? single;
  return html`<header class="wb-head wb-head-single">
      <span class="wb-model"><strong class="wb-strong">${title}</strong>
      <span class="wb-note"><bdi>${model.name}</bdi> · <bdi>${shown}</bdi></span></span>
    </header>
    <${Trouble} bench=${bench} />
    <${Chips} bench=${bench} />
    <div class="wb-view">${VIEWS[single] ? html`<${Shown} bench=${bench} name=${single} />` : html`<${Failure} error=${`there is no view ${single}`} />`}</div>
    <${Status} bench=${bench} />`;
}
