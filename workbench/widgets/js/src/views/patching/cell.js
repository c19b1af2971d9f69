/** One patch, carried out: the next token, the text that follows, and the way to the Bench. */
import { html, useEffect, useState } from "../../html.js";
import { short } from "../../draw/scales.js";
import { useData, useStream } from "../../hooks.js";
import { Button, Check, Distribution, Panel, Ready } from "../../parts/index.js";
import { parting, share } from "./grid.js";

/**
 * @param {{ bench: object, choice: object, about: object, cell: { row: number, col: number }|null, words: string,
 *   opened: boolean, onOpen: () => void, text: boolean, onText: (on: boolean) => void }} props
 */
export function CellPanel({ bench, choice, about, cell, words, opened, onOpen, text, onText }) {
  const ask = cell && opened ? { kind: "cell", row: cell.row, column: cell.col, ...choice } : null;
  const got = useData(bench, "patching", ask, { slot: "cell" });
  if (!cell) {
    return html`<${Panel} title="One patch" class="wb-patching-cell">
      <p class="wb-note">Click a cell (or Enter on it) to run that one patch: what it does to the next token and to the text.</p>
    </${Panel}>`;
  }
  const [title, ...rest] = words.split("\n");
  const put = () =>
    bench.act("patching", { kind: "add", row: cell.row, column: cell.col, ...choice }).then(
      () => bench.note(`${title} from ${about.source} is on the Bench, on ${about.target}`),
      () => {},
    );
  return html`<${Panel} title=${title} class="wb-patching-cell"
    tools=${html`<${Button} onClick=${put} title=${`patch ${about.target} with this from ${about.source}, in every view`}>Put it on the Bench</${Button}>`}>
    <p class="wb-note">${(opened ? rest.filter((line) => !line.startsWith("brings back")) : rest).map((line, i) => html`<span key=${i}><bdi>${line}</bdi></span>`)}</p>
    ${opened
      ? html`<${Ready} got=${got} height=${120}>${(data) => html`<${Effect} ...${{ bench, choice, about, cell, text, onText }} json=${data.json} />`}</${Ready}>`
      : html`<p><${Button} kind="primary" onClick=${onOpen}>Run this patch</${Button}></p>`}
  </${Panel}>`;
}

/** The numbers of one patch. */
function Effect({ bench, choice, about, cell, json, text, onText }) {
  const items = json.tokens.map((token) => ({ key: token.id, label: token.text, before: token.target, after: token.patched }));
  const best = json.tokens.reduce((a, b) => (b.source > a.source ? b : a));
  return html`<div class="wb-patching-effect">
    <p class="wb-note">
      <span>brings back <span class="wb-strong">${json.share === null ? "nothing to bring back" : share(json.share)}</span> (${short(json.metric)})</span>
      <span>KL from the unpatched next token ${short(json.kl)} nats</span>
      <span>${json.flipped} of ${json.routes} routes flipped</span>
      <span><bdi>${about.source}</bdi> itself says <bdi class="wb-token-label">${best.text}</bdi></span>
    </p>
    <${Distribution} items=${items} label="next token, before and after the patch" names=${[about.target, "patched"]} />
    <${Check} label=${`the text that follows, ${about.target} patched or not, and ${about.source}`} checked=${text} onChange=${onText} />
    ${text && html`<${Texts} ...${{ bench, choice, about, cell }} />`}
  </div>`;
}

/** What is written after the prompts, word by word. */
function Texts({ bench, choice, about, cell }) {
  const [shown, setShown] = useState(null);
  const key = JSON.stringify([about.id, cell.row, cell.col]);
  useStream(bench, "patching", (name, json) => {
    if (name === "text" && json.row === cell.row && json.column === cell.col && json.part === about.part) setShown(json);
  });
  useEffect(() => {
    setShown(null);
    bench.act("patching", { kind: "text", row: cell.row, column: cell.col, ...choice }).catch(() => {});
  }, [key]);
  const texts = shown?.texts ?? { target: [], patched: [], source: [] };
  const rows = [["target", about.target], ["patched", "patched"], ["source", about.source]]; // prettier-ignore
  return html`<dl class="wb-patching-texts" aria-busy=${shown?.done ? "false" : "true"} aria-label="the text that follows">
    ${rows.map(([name, title]) => html`<div key=${name}><dt class=${`wb-patching-name wb-patching-${name}`}>${title}</dt>
      <dd>${continuation(texts[name], name === "target" ? texts[name] : texts.target)}</dd></div>`)}
  </dl>`;
}

/** Tokens; those after the first that differs from the unpatched text are underlined. */
function continuation(tokens, plain) {
  const at = parting(tokens, plain);
  if (!tokens.length) return html`<span class="wb-soft">…</span>`;
  return [
    html`<bdi key="same">${tokens.slice(0, at).join("")}</bdi>`,
    at < tokens.length && html`<bdi key="other" class="wb-patching-other">${tokens.slice(at).join("")}</bdi>`,
  ];
}
