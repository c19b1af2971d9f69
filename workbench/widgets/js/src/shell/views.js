/** The views: tabs, or side by side. A view that is not on screen asks for nothing. */
import { QUIET_KEYS, classes, html, useEffect, useId, useRef, useState } from "../html.js";
import { Button, Check, Empty, Guard, Popup, Segmented } from "../parts/index.js";
import { VIEWS } from "../views/index.js";

const ELSEWHERE = new Set(["effect"]); // has a place of its own

/** The views that are open, in order, by name and title. */
export function opened({ open, views }) {
  const titles = new Map(views.map(({ name, title }) => [name, title]));
  return open.filter((name) => titles.has(name) && VIEWS[name] && !ELSEWHERE.has(name)).map((name) => ({ name, title: titles.get(name) }));
}

/** The name of the view in front. */
export function front(bench) {
  const shown = opened(bench.state.value);
  const wanted = bench.active.value;
  return shown.some(({ name }) => name === wanted) ? wanted : (shown[0]?.name ?? null);
}

/** One view, guarded. */
export function Shown({ bench, name }) {
  const { View, title } = VIEWS[name];
  return html`<${Guard} name=${title}><${View} bench=${bench} /></${Guard}>`;
}

/** @param {{ bench: import("../store.js").Bench }} props */
export function Views({ bench }) {
  const { layout } = bench.state.value;
  const shown = opened(bench.state.value);
  const id = useId();
  const active = front(bench);
  const setLayout = (fresh) => bench.change("layout", { kind: "layout", layout: fresh }, (state) => ({ ...state, layout: fresh }));
  const tabs = layout === "tabs";
  return html`<div class="wb-views">
    <div class="wb-views-head">
      ${tabs ? html`<${Tabs} ...${{ bench, shown, active, id }} />` : html`<span class="wb-label">${shown.length} views side by side</span>`}
      <span class="wb-tools">
        <${Choice} bench=${bench} />
        <${Segmented} label="Layout" hideLabel value=${layout} options=${[["tabs", "Tabs"], ["side", "Side by side"]]} onChange=${setLayout} />
      </span>
    </div>
    ${!shown.length && html`<${Empty}>No view is open: choose some under “Views”.</${Empty}>`}
    ${tabs && active && html`<div class="wb-view" role="tabpanel" id=${`${id}-panel`} aria-labelledby=${`${id}-${active}`}>
      <${Shown} key=${active} bench=${bench} name=${active} /></div>`}
    ${!tabs && html`<div class="wb-side">${shown.map(({ name, title }) => html`<${Beside} key=${name} ...${{ bench, name, title }} />`)}</div>`}
  </div>`;
}

/** One of many views side by side; made when it is scrolled near, and kept then. */
function Beside({ bench, name, title }) {
  const box = useRef(null);
  const [near, setNear] = useState(false);
  useEffect(() => {
    const look = (entries) => entries.some((entry) => entry.isIntersecting) && (setNear(true), observer.disconnect());
    const observer = new IntersectionObserver(look, { rootMargin: "300px" });
    observer.observe(box.current);
    return () => observer.disconnect();
  }, []);
  const front = () => (bench.active.value = name);
  return html`<section class="wb-view wb-beside" aria-label=${title} ref=${box} onFocusIn=${front}>
    <h3 class="wb-panel-title">${title}</h3>
    ${near ? html`<${Shown} bench=${bench} name=${name} />` : null}
  </section>`;
}

function Tabs({ bench, shown, active, id }) {
  const list = useRef(null);
  const go = (name) => (bench.active.value = name);
  const key = (event) => {
    const at = shown.findIndex(({ name }) => name === active);
    const last = shown.length - 1;
    const to = { ArrowRight: at === last ? 0 : at + 1, ArrowLeft: at === 0 ? last : at - 1, Home: 0, End: last }[event.key];
    if (to === undefined || !shown.length) return;
    go(shown[to].name);
    list.current.children[to].focus();
    event.preventDefault();
    event.stopPropagation();
  };
  return html`<div class="wb-tabs" role="tablist" aria-label="Views" ref=${list} onKeyDown=${key}>
    ${shown.map(({ name, title }) => html`<button type="button" key=${name} role="tab" id=${`${id}-${name}`}
      class=${classes("wb-tab", name === active && "wb-active")} aria-selected=${name === active ? "true" : "false"}
      aria-controls=${name === active ? `${id}-panel` : undefined} tabindex=${name === active ? 0 : -1} onClick=${() => go(name)} ...${QUIET_KEYS}>${title}</button>`)}
  </div>`;
}

/** Which views are open. */
function Choice({ bench }) {
  const [open, setOpen] = useState(false);
  const anchor = useRef(null);
  const { views, open: names } = bench.state.value;
  const all = views.filter(({ name }) => VIEWS[name] && !ELSEWHERE.has(name));
  const set = (name, on) => {
    const wanted = all.map((view) => view.name).filter((other) => (other === name ? on : names.includes(other)));
    bench.change("open", { kind: "open", views: wanted }, (state) => ({ ...state, open: wanted }));
  };
  return html`<span ref=${anchor}>
    <${Button} kind="quiet" onClick=${() => setOpen(!open)} title="Which views are open">Views</${Button}>
    ${open && html`<${Popup} title="Views" anchor=${() => anchor.current?.getBoundingClientRect() ?? null} onClose=${() => setOpen(false)}>
      <div class="wb-form">${all.map(({ name, title }) => html`<${Check} key=${name} label=${title} checked=${names.includes(name)}
        onChange=${(on) => set(name, on)} />`)}</div>
    </${Popup}>`}
  </span>`;
}
