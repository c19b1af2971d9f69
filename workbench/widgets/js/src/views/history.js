/** What was done, step by step: go back to any step, compare any two. */
import "./history.css";
import { html, QUIET_KEYS, useLayoutEffect, useRef, useState } from "../html.js";
import { reveal } from "../draw/ranges.js";
import { percent, short } from "../draw/scales.js";
import { useData, useOption } from "../hooks.js";
import { Button, Distribution, Empty, Panel, Ready, TokenLabel } from "../parts/index.js";
import { chosen, clock, fallen } from "./history/steps.js";

const quiet = () => {};
const go = (bench, id) => bench.act("bench", { kind: "goto", id }).catch(quiet);

/** The strip's keys: up and down move between steps, Enter goes to one, c chooses it for comparing. */
function onKeys(event, { bench, step, toggle, list }) {
  const items = [...list.current.querySelectorAll("[data-step]")];
  const at = items.indexOf(event.currentTarget);
  const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: items.length - 1 }[event.key];
  if (to !== undefined) items[Math.min(Math.max(to, 0), items.length - 1)]?.focus();
  else if (event.key === "Enter") go(bench, step.id);
  else if (event.key === "c") toggle(step.id);
  else return;
  event.preventDefault();
  event.stopPropagation();
}

/** How far a step moved the predictions, as a bar on a scale that all steps share, and in numbers. */
function Moved({ step, most }) {
  if (step.kl === null) return html`<span class="wb-history-moved"><span class="wb-note wb-history-none">${step.n_edits ? "not run" : "unedited"}</span></span>`;
  const width = step.kl > 0 ? Math.max(1, (60 * step.kl) / most) : 0;
  return html`<span class="wb-history-moved" title="mean over positions of KL(unedited ‖ this), and tokens whose likeliest next token changed">
    <span class="wb-history-bar" style=${{ width: `${width}px` }}></span>
    <span class="wb-right">${short(step.kl)} nats</span><span class="wb-note wb-right">${step.flipped} flipped</span>
  </span>`;
}

function Step({ bench, step, current, undone, compared, toggle, most, list }) {
  const keys = (event) => onKeys(event, { bench, step, toggle, list });
  return html`<li class=${`wb-history-step${current ? " wb-history-now" : ""}${undone ? " wb-history-undone" : ""}`}>
    <button type="button" class="wb-history-go" data-step=${step.id} aria-current=${current ? "step" : undefined} onKeyDown=${keys}
      title=${current ? "you are here" : "go to this step"} onClick=${() => go(bench, step.id)} ...${QUIET_KEYS}>
      <span class="wb-history-number">${step.number}</span>
      <span class="wb-history-label"><bdi>${step.label}</bdi></span>
      <span class="wb-note"><bdi>${step.subject}</bdi> · ${step.n_edits} ${step.n_edits === 1 ? "intervention" : "interventions"} · ${clock(step.time)}${
        current ? " · you are here" : undone ? " · undone" : ""}</span>
    </button>
    <${Moved} step=${step} most=${most} />
    <${Button} kind=${compared.includes(step.id) ? "" : "quiet"} pressed=${compared.includes(step.id)} label=${`compare step ${step.number}`} onClick=${() => toggle(step.id)}>Compare</${Button}>
  </li>`;
}

const Specs = ({ title, specs }) => html`<div><span class="wb-label">${title}</span> ${
  specs.length ? specs.map((spec) => html`<code class="wb-history-spec" title=${spec.detail}>${spec.title}</code>`) : html`<span class="wb-note">none of its own</span>`
}</div>`;

/** Positions whose likeliest next token differs; a click selects. */
function Flipped({ bench, flipped, total }) {
  if (!total) return html`<p class="wb-note">The likeliest next token is the same at every position.</p>`;
  const shown = flipped.slice(0, 40);
  return html`<div class="wb-history-flips"><span class="wb-label">${total} flipped:</span>${shown.map(
    ({ position, before, after }) => html`<${Button} key=${position} kind="quiet" title=${`position ${position}: ${before} became ${after}`}
      onClick=${() => bench.select({ position })}><span class="wb-note">${position}</span> <${TokenLabel} text=${before} limit=${16} /> → <${TokenLabel} text=${after} limit=${16} /></${Button}>`,
  )}${total > shown.length && html`<span class="wb-note">… and ${total - shown.length} more</span>`}</div>`;
}

function Comparison({ bench, made }) {
  const names = made.steps.map((number) => `step ${number}`);
  const items = made.tokens.map(({ token, id, before, after }) => ({ key: id, label: token, before, after }));
  const where = made.same_text ? `after position ${made.position}` : "after the last token of each text";
  const measured = made.same_text
    ? `KL ${short(made.kl_here)} nats here, ${short(made.kl)} on average` + (made.n_routes === null ? "" : ` · ${made.n_routes} routes flipped`)
    : "two texts: their positions are not compared";
  return html`<${Panel} title=${`${names[0]} and ${names[1]}`} note=${measured}>
    <${Specs} title=${`Only in ${names[0]}:`} specs=${made.only_before} />
    <${Specs} title=${`Only in ${names[1]}:`} specs=${made.only_after} />
    <p class="wb-note">What comes next, ${where}</p>
    <${Distribution} items=${items} names=${names} format=${percent} label=${`next token ${where}, ${names.join(" and ")}`}
      onPick=${(item) => bench.select({ token: item.key })} picked=${bench.selection.value.token} />
    ${made.same_text && html`<${Flipped} bench=${bench} flipped=${made.flipped} total=${made.n_flipped} />`}
  </${Panel}>`;
}

/** Scrolls a list as far as is needed to show one of its items, and nothing else on the page. */
function inSight(list, button) {
  const item = button?.closest("li");
  if (!item) return;
  const [inner, outer] = [item, list].map((element) => element.getBoundingClientRect());
  const top = inner.top - outer.top - list.clientTop + list.scrollTop;
  list.scrollTop = reveal(list.scrollTop, list.clientHeight, top, top + inner.height);
}

/** Fifty steps at once; what comes before and after them, and that the oldest have fallen off. */
function Steps({ bench, data, compared, setCompared, setFirst }) {
  const list = useRef(null);
  const { steps, at, first, last, most } = data.json;
  // Where one stands is in sight, when the view opens and after each step.
  useLayoutEffect(() => inSight(list.current, list.current.querySelector("[aria-current]")), [at, steps[0].number]);
  const toggle = (id) => setCompared(chosen(compared, id));
  const [from, to] = [steps[0].number, steps.at(-1).number];
  const turn = (by) => html`<${Button} disabled=${by < 0 ? from <= first : to >= last} onClick=${() => setFirst(from + by * steps.length)}>${by < 0 ? "Earlier" : "Later"}</${Button}>`;
  const rows = steps.map((step) => html`<${Step} key=${step.id} current=${step.number === at} undone=${step.number > at} ...${{ bench, step, compared, toggle, most, list }} />`);
  return html`${(first > 1 || last - first >= steps.length) && html`<div class="wb-bar-line">
      <span class="wb-note" role="status">steps ${from} to ${to} of ${last}${first > 1 ? `; ${fallen(first)}` : ""}</span>
      ${last - first >= steps.length && html`${turn(-1)}${turn(1)}<${Button} onClick=${() => setFirst(null)}>Where I am</${Button}>`}
    </div>`}
    <ol class="wb-history-steps" ref=${list} aria-label="steps, oldest first" start=${from}>${rows}</ol>`;
} // prettier-ignore

/** @param {{ bench: import("../store.js").Bench }} props */
function View({ bench }) {
  const [compared, setCompared] = useOption(bench, "history", "compared", []);
  const { ids, now, changes } = bench.state.value.history;
  const [place, setPlace] = useState(null); // the number of the first step on screen, until one goes elsewhere
  const known = compared.filter((id) => ids.includes(id));
  const { position } = bench.selection.value;
  const first = place?.now === now ? place.first : null;
  // The history's own counter is part of the ask: a step's numbers arrive when its run is over.
  const got = useData(bench, "history", { first, changes }, { slot: "steps" });
  const both = known.length === 2 ? { compare: known, position } : null;
  const comparison = useData(bench, "history", both, { slot: "comparison" });
  return html`<div class="wb-history">
    <${Ready} got=${got}>${(data) => html`<${Steps} ...${{ bench, data, setCompared }} compared=${known} setFirst=${(first) => setPlace({ first, now })} />`}</${Ready}>
    ${both
      ? html`<${Ready} got=${comparison}>${(data) => (data.json.comparison ? html`<${Comparison} bench=${bench} made=${data.json.comparison} />` : null)}</${Ready}>`
      : html`<${Empty} title="Nothing compared.">${ids.length < 2 ? "Change something: each change becomes a step here." : `Choose ${2 - known.length} ${known.length ? "more step" : "steps"} with Compare, and see how their predictions differ.`}</${Empty}>`}
  </div>`;
}

export default { name: "history", title: "History", View };
