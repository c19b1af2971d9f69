/** The ribbon: tokens down, layers across, in each cell the token's experts as wide as their weights. */
import { html, useMemo, useRef, useState } from "../../html.js";
import { roleColour, sequential, short } from "../../draw/scales.js";
import { useTheme } from "../../hooks.js";
import { Matrix } from "../../parts/index.js";
import { gapOf, slotPainter } from "./paint.js";
import { cellWords, first, largest, slotAt, slotStep } from "./reduce.js";

const HEIGHTS = { overview: 4, fit: 18, numbers: 18 };
const NUMBER = 19; // pixels of a slot in which two figures fit
const ACTS = { b: "ban", z: "zero", n: "renormalise", f: "force" };

/**
 * @param {{ bench: import("../../store.js").Bench, data: import("../../wire.js").Data, routes: import("./reduce.js").Routes,
 *   zoom: string, stale: boolean, onAct: (kind: string) => void, onGo: (what: string) => void }} props
 */
export function Ribbon({ bench, data, routes, zoom, stale, onAct, onGo }) {
  const theme = useTheme();
  const { json } = data;
  const { start } = json;
  const [slot, setSlot] = useState(0);
  const [at, setAt] = useState(null);
  const handle = useRef(null);
  const { position, layer, expert } = bench.selection.value;
  const row = position === null || position < start || position >= start + routes.rows ? null : position - start;
  const cols = routes.layers + (routes.kl ? 1 : 0);
  const most = useMemo(() => (routes.kl ? largest(routes.kl) : 0), [routes]);
  const looks = useLooks({ data, routes, cols, theme });
  const paint = useMemo(
    () => slotPainter({ routes, theme, most, chosen: { layer, expert, row }, cursor: at && { ...at, slot } }),
    [routes, theme, most, layer, expert, row, at, slot],
  );
  const describe = (r, c) => words({ json, routes, r, c, slot: at && at.row === r && at.col === c ? slot : null });
  const choose = (r, c, event) => {
    const isMouse = event.clientX !== undefined && event.detail > 0;
    const s = isMouse ? under(handle.current, routes, r, c, event.clientX) : slot;
    setAt({ row: r, col: c });
    setSlot(s);
    if (c >= routes.layers) return bench.select({ position: start + r });
    return bench.select({ position: start + r, layer: c, expert: routes.chosen[first(routes, r, c) + s] });
  };
  const key = (event, cell) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return false;
    const step = slotStep(slot, event.key, { slots: routes.slots, col: cell.col, cols, single: cell.col >= routes.layers });
    if (step) {
      setSlot(step.slot);
      setAt({ row: cell.row, col: cell.col + (step.leaves ? { ArrowRight: 1, ArrowLeft: -1 }[event.key] : 0) });
      return !step.leaves;
    }
    return letter(event.key, cell);
  };
  const letter = (pressed, cell) => {
    const kind = ACTS[pressed];
    const go = { s: "swap", w: "weight", x: "remove", e: "where" }[pressed];
    if (!kind && !go) {
      const down = { ArrowDown: 1, ArrowUp: -1 }[pressed];
      if (down) setAt({ row: Math.max(0, Math.min(routes.rows - 1, cell.row + down)), col: cell.col });
      return false;
    }
    if (cell.col >= routes.layers) return false;
    const target = { position: start + cell.row, layer: cell.col, expert: routes.chosen[first(routes, cell.row, cell.col) + slot] };
    setAt(cell);
    bench.select(target);
    if (kind) onAct(kind, target);
    else onGo(go, target);
    return true;
  };
  return html`<div class="wb-routing-ribbon" onPointerMove=${(event) => hover(event, { bench, handle, routes, start })}
    onPointerLeave=${() => (bench.hover.value = null)}>
    <${Matrix} rows=${routes.rows} cols=${cols} ...${looks} paint=${paint} describe=${describe} handle=${handle}
      label=${`routes of ${json.n_pos} tokens in ${routes.layers} layers; letters act on the expert under the cursor: b ban, z zero, n renormalise, f force, s swap, w weight, x remove edits, e where edits act`}
      selected=${row === null || layer === null ? null : { row, col: layer }} hovered=${hovered(bench, routes, start)}
      selectedCol=${row === null ? layer : null} onSelect=${choose} onKey=${key} dim=${stale} maxHeight=${460}
      cell=${{ height: HEIGHTS[zoom], width: zoom === "numbers" ? Math.max(44, routes.slots * NUMBER + 6) : "fit" }}
      minCell=${zoom === "overview" ? 3 : 4} maxCell=${150} />
  </div>`;
}

/** What of the grid follows from the data alone. */
function useLooks({ data, routes, cols, theme }) {
  const { tokens, bands, start } = data.json;
  return useMemo(() => {
    const values = new Uint8Array(routes.rows * cols);
    const layers = Array.from({ length: routes.layers }, (_, i) => `L${i}`);
    return {
      values,
      colour: sequential(theme, 0, 1),
      rowLabels: tokens,
      rowNotes: tokens.map((_, i) => start + i),
      colLabels: routes.kl ? [...layers, "KL"] : layers,
      rowBands: bands.filter(({ name }) => name).map((band) => ({ ...band, colour: roleColour(band.name, theme) })),
      colRules: routes.kl ? [routes.layers] : [],
    };
  }, [tokens, bands, start, routes.rows, routes.layers, cols, theme]);
}

/** The words of a cell. */
function words({ json, routes, r, c, slot }) {
  const head = `${json.tokens[r]}  position ${json.start + r}`;
  if (c < routes.layers) return `${head}, layer ${c}\n${cellWords(routes, r, c, slot)}`;
  const flipped = routes.flipped[r] ? "; the likeliest next token changed" : "";
  return `${head}\nKL to the unedited run ${short(routes.kl[r])} nats${flipped}`;
}

/** The slot of a cell under a point of the page. */
function under(handle, routes, row, col, clientX) {
  if (col >= routes.layers) return 0;
  const rect = handle.rectOf(row, col);
  const gap = gapOf(rect.width);
  return slotAt(routes.weight, first(routes, row, col), routes.slots, rect.width - 2 * gap, clientX - rect.left - gap);
}

/** Tells every view what the mouse is on. */
function hover(event, { bench, handle, routes, start }) {
  const cell = handle.current?.cellAt(event.clientX, event.clientY);
  const old = bench.hover.peek();
  if (!cell) return old && (bench.hover.value = null);
  const isLayer = cell.col < routes.layers;
  const slot = isLayer ? under(handle.current, routes, cell.row, cell.col, event.clientX) : 0;
  const fresh = { position: start + cell.row };
  if (isLayer) Object.assign(fresh, { layer: cell.col, expert: routes.chosen[first(routes, cell.row, cell.col) + slot] });
  if (old?.position === fresh.position && old?.layer === fresh.layer && old?.expert === fresh.expert) return undefined;
  return (bench.hover.value = fresh);
}

/** The cell that the mouse is on, here or in another view. */
function hovered(bench, routes, start) {
  const on = bench.hover.value;
  const row = (on?.position ?? -1) - start;
  if (!on || row < 0 || row >= routes.rows) return null;
  return { row, col: on.layer ?? bench.selection.value.layer ?? 0 };
}
