/** The interventions that are on the run: each can be switched off, on, and taken away. */
import { QUIET_KEYS, classes, html, useRef } from "../html.js";
import { Button } from "../parts/index.js";

const SHOWN_ELSEWHERE = () => {}; // failures are already in the status line

/** @param {{ bench: import("../store.js").Bench }} props */
export function Chips({ bench }) {
  const chips = bench.state.value?.chips ?? [];
  const list = useRef(null);
  const act = (action) => bench.act("bench", action).catch(SHOWN_ELSEWHERE);
  if (!chips.length) return null;
  const key = (event) => {
    const buttons = [...list.current.querySelectorAll("button")];
    const at = buttons.indexOf(event.target);
    const chip = event.target.closest("[data-chip]");
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (by) buttons[(at + by + buttons.length) % buttons.length].focus();
    else if ((event.key === "Delete" || event.key === "Backspace") && chip) {
      (buttons[at + 2] ?? buttons[at - 2])?.focus();
      act({ kind: "chip_remove", id: Number(chip.dataset.chip) });
    } else return;
    event.preventDefault();
    event.stopPropagation();
  };
  return html`<div class="wb-chips-line">
    <span class="wb-label">Interventions</span>
    <ul class="wb-chips" ref=${list} onKeyDown=${key} aria-label="Interventions">
      ${chips.map((chip) => html`<${Chip} key=${chip.id} chip=${chip} act=${act} />`)}
    </ul>
    ${chips.length > 1 && html`<${Button} kind="quiet" onClick=${() => act({ kind: "chips_clear" })}>Remove all</${Button}>`}
  </div>`;
}

function Chip({ chip, act }) {
  const { id, on, title, detail } = chip;
  return html`<li class=${classes("wb-chip", !on && "wb-off")} data-chip=${id}>
    <button type="button" class="wb-chip-toggle" aria-pressed=${on ? "true" : "false"} title=${`${detail}\n${on ? "on: click to switch it off" : "off: click to switch it on"}`}
      onClick=${() => act({ kind: "chip_toggle", id })} ...${QUIET_KEYS}>
      <span class="wb-chip-state" aria-hidden="true">${on ? "●" : "○"}</span><bdi>${title}</bdi>
    </button>
    <button type="button" class="wb-chip-remove" aria-label=${`Remove ${title}`} onClick=${() => act({ kind: "chip_remove", id })}
      ...${QUIET_KEYS}>×</button>
  </li>`;
}
