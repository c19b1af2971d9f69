/** Small controls. Each has a name, answers to keys, and keeps JupyterLab's shortcuts away. */
import { QUIET_KEYS, classes, html, useId, useRef, useState } from "../html.js";

/** @param {{ onClick: Function, kind?: ""|"primary"|"quiet"|"danger", pressed?: boolean, title?: string, label?: string }} props */
export function Button({ children, kind = "", pressed, label, class: name, ...rest }) {
  return html`<button type="button" class=${classes("wb-button", kind && `wb-${kind}`, name)} aria-label=${label}
    aria-pressed=${pressed === undefined ? undefined : String(pressed)} ...${QUIET_KEYS} ...${rest}>${children}</button>`;
}

/** @param {{ label: string, value: string, options: ([string, string]|string)[], onChange: (value: string) => void }} props */
export function Select({ label, value, options, onChange, hideLabel = false, ...rest }) {
  const id = useId();
  return html`<span class="wb-field">
    <label for=${id} class=${hideLabel ? "wb-unseen" : "wb-label"}>${label}</label>
    <select id=${id} class="wb-select" value=${value} onChange=${(event) => onChange(event.currentTarget.value)}
      ...${QUIET_KEYS} ...${rest}>
      ${options.map((option) => {
        const [key, title] = Array.isArray(option) ? option : [option, option];
        return html`<option key=${key} value=${key} selected=${String(key) === String(value)}>${title}</option>`;
      })}
    </select>
  </span>`;
}

const LONG = 20; // characters of a segment that may not all be seen

/** One of a few, all visible. @param {{ label: string, value: string, options: ([string, string]|string)[], onChange: Function }} props */
export function Segmented({ label, value, options, onChange, hideLabel = false }) {
  const id = useId();
  const group = useRef(null);
  const pairs = options.map((option) => (Array.isArray(option) ? option : [option, option]));
  const move = (event) => {
    const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!by) return;
    const at = pairs.findIndex(([key]) => key === value);
    const to = (at + by + pairs.length) % pairs.length;
    onChange(pairs[to][0]);
    group.current.children[to].focus();
    event.preventDefault();
    event.stopPropagation();
  };
  return html`<span class="wb-field">
    <span id=${id} class=${hideLabel ? "wb-unseen" : "wb-label"}>${label}</span>
    <span class="wb-segmented" role="radiogroup" aria-labelledby=${id} ref=${group} onKeyDown=${move}>
      ${pairs.map(
        ([key, title], i) => html`<button type="button" key=${key} class="wb-segment" role="radio"
          aria-checked=${key === value ? "true" : "false"} onClick=${() => onChange(key)} ...${QUIET_KEYS}
          title=${title.length > LONG ? title : undefined}
          tabindex=${key === value || (i === 0 && !pairs.some(([other]) => other === value)) ? 0 : -1}>${title}</button>`,
      )}
    </span>
  </span>`;
}

/** @param {{ label: string, value: number, min: number, max: number, step?: number, onInput?: (value: number) => void,
 *   onChange?: (value: number) => void, format?: (value: number) => string }} props onChange: when it is let go */
export function Slider({ label, value, min, max, step = 1, onInput, onChange, format = String, disabled, hideLabel = false, width }) {
  const id = useId();
  const [dragged, setDragged] = useState(null); // what is under the hand: the number beside it is never an older one
  const shown = dragged ?? value;
  const read = (event) => Number(event.currentTarget.value);
  const input = (event) => (setDragged(read(event)), onInput?.(read(event)));
  const change = (event) => (setDragged(null), onChange?.(read(event)));
  return html`<span class="wb-field">
    <label for=${id} class=${hideLabel ? "wb-unseen" : "wb-label"}>${label}</label>
    <input id=${id} class="wb-slider" type="range" min=${min} max=${max} step=${step} value=${shown} disabled=${disabled}
      aria-valuetext=${format(shown)} style=${width ? { width: `${width}px` } : {}} ...${QUIET_KEYS}
      onInput=${input} onChange=${change} />
    <output class="wb-number" for=${id}>${format(shown)}</output>
  </span>`;
}

/** @param {{ label: string, checked: boolean, onChange: (checked: boolean) => void }} props */
export function Check({ label, checked, onChange, hideLabel = false, ...rest }) {
  return html`<label class="wb-field wb-check">
    <input type="checkbox" checked=${checked} ...${QUIET_KEYS} ...${rest}
      aria-label=${hideLabel ? label : undefined} onChange=${(event) => onChange(event.currentTarget.checked)} />
    ${hideLabel ? null : html`<span>${label}</span>`}
  </label>`;
}

/** @param {{ label: string, value: string, onInput?: (value: string) => void, onEnter?: (value: string) => void }} props */
export function TextField({ label, value, onInput, onEnter, hideLabel = false, width, ...rest }) {
  const id = useId();
  const key = (event) => {
    if (event.key === "Enter" && onEnter) {
      event.preventDefault();
      onEnter(event.currentTarget.value);
    }
  };
  return html`<span class="wb-field">
    <label for=${id} class=${hideLabel ? "wb-unseen" : "wb-label"}>${label}</label>
    <input id=${id} class="wb-input" type="text" value=${value} spellcheck=${false} autocomplete="off" onKeyDown=${key}
      style=${width ? { width: `${width}px` } : {}} onInput=${(event) => onInput?.(event.currentTarget.value)}
      ...${QUIET_KEYS} ...${rest} />
  </span>`;
}

/** A titled part of a view. @param {{ title?: string, tools?: unknown, note?: string }} props */
export function Panel({ title, tools, note, children, class: name }) {
  return html`<section class=${classes("wb-panel", name)} aria-label=${title}>
    ${(title || tools) && html`<div class="wb-panel-head">
      ${title && html`<h3 class="wb-panel-title">${title}</h3>`}${note && html`<span class="wb-note">${note}</span>`}
      ${tools && html`<span class="wb-tools">${tools}</span>`}
    </div>`}
    ${children}
  </section>`;
}
