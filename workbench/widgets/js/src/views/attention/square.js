/** One head's pattern in large: a row for each query, a column for each key, the sink apart at the left. */
import { QUIET_KEYS, html, useId, useLayoutEffect, useMemo, useRef, useState } from "../../html.js";
import { widest } from "../../draw/measure.js";
import { short } from "../../draw/scales.js";
import { useFrame, useSharpness, useSize, useTheme } from "../../hooks.js";
import { SINK, blocksOf, cellAt, layout, moved, positionsOf, rectOf, unseen } from "./geometry.js";
import { isDelete } from "./mosaic.js";
import { LABEL_FONT, image, paintMarks, paintSquare } from "./painting.js";

/** The words of one cell. */
export function cellWords({ about, values, sink, hidden, tokens, change }, { row, col }) {
  const blocks = blocksOf(about);
  const name = (i) => {
    const [first, last] = positionsOf(i, about);
    return first === last ? `${first} “${tokens[first] ?? ""}”` : `${first}–${last}`;
  };
  const most = about.block > 1 ? (change ? "largest change " : "largest ") : change ? "change " : "";
  const number = (value) => (change && value > 0 ? "+" : "") + short(value);
  if (col === SINK) return `query ${name(row)} → sink\n${most}${number(sink[row])}`;
  const at = row * blocks + col;
  const state = hidden[at];
  const said = state === 1 ? "not seen: it comes later" : state === 2 ? `outside the window of ${about.window}` : most + number(values[at]);
  return `query ${name(row)} → key ${name(col)}\n${said}`;
}

/** Labels: tokens where each cell is one and has room, else positions. */
function useLabels(tokens, about) {
  return useMemo(() => {
    const blocks = blocksOf(about);
    const words = about.block === 1 && blocks <= 64;
    const made = Array.from({ length: blocks }, (_, i) => (words ? (tokens[i] ?? "").slice(0, 24) : `${i * about.block}`));
    return { names: made, label: widest(made, LABEL_FONT), numbers: !words };
  }, [tokens, about.n, about.block]);
}

/**
 * @param {{ about: { n: number, block: number, window: number, layer: number, head: number }, values: Float32Array,
 *   sink: Float32Array, colour: object, tokens: string[], change: boolean, cut: [number|null, number, string|null][],
 *   selected: { row: number, col: number }|null, row: number|null, hovered: { row: number, col?: number }|null,
 *   onHover(cell: object|null): void, onSelect(cell: object): void, onDelete(cell: object): void, label: string }} props
 */
export function Square(props) {
  const { about, values, sink, colour, tokens } = props;
  const theme = useTheme();
  const box = useRef(null);
  const room = useSize(box).width;
  const blocks = blocksOf(about);
  const hidden = useMemo(() => unseen(about), [about.n, about.block, about.window]);
  const { names, label, numbers } = useLabels(tokens, about);
  const place = useMemo(
    () => (room ? layout({ blocks, room, maxHeight: 580, label, numbers }) : null),
    [blocks, room, label, numbers],
  );
  const pictures = useMemo(
    () => ({ pattern: image(values, blocks, colour, theme), sink: image(sink, 1, colour, theme) }),
    [values, sink, colour, theme],
  );
  const shared = { ...props, theme, blocks, hidden, names, numbers, place, pictures };
  return html`<div class="wb-attention-square" ref=${box}>${place && html`<${Canvas} ...${shared} />`}</div>`;
}

function Canvas(props) {
  const { place, blocks, theme, selected, pictures, hidden, about, names, label, row, hovered, cut } = props;
  const id = useId();
  const [refs] = useState(() => ({ box: null, cells: null, marks: null, tip: null, under: null }));
  const [cursor, setCursor] = useState(null);
  const [focused, setFocused] = useState(false);
  const at = within(cursor ?? selected ?? { row: row ?? blocks - 1, col: 0 }, blocks);
  const latest = useRef(null);
  latest.current = { props, at };
  const cells = useFrame(() => {
    if (!refs.cells) return;
    const { props: now } = latest.current;
    paintSquare(refs.cells, { ...now, rowLabels: now.names, colLabels: now.names });
  });
  const sharpness = useSharpness();
  useLayoutEffect(cells, [place, pictures, hidden, names, theme, about, sharpness]);
  const marks = useFrame(() => {
    if (refs.marks) paintMarks(refs.marks, { ...latest.current.props, cursor: refs.focused ? latest.current.at : null });
  });
  refs.focused = focused && cursor !== null;
  useLayoutEffect(marks, [place, theme, selected?.row, selected?.col, row, hovered?.row, hovered?.col, cut, at.row, at.col, refs.focused, sharpness]);
  useLayoutEffect(() => tellAgain(refs, props)); // its number may be another one while the mouse rests
  const on = actions(refs, latest, setCursor);
  const focus = (is) => () => (setFocused(is), is || hideTip(refs));
  return html`<div class="wb-attention-window" role="grid" tabindex="0" aria-label=${label} aria-rowcount=${blocks}
    aria-colcount=${blocks + 1} aria-activedescendant=${id} ...${QUIET_KEYS}
    style=${{ width: `${place.width}px`, height: `${place.height}px` }} ref=${(element) => void (refs.box = element)}
    onPointerMove=${on.move} onPointerLeave=${on.leave} onClick=${on.click} onKeyDown=${on.key}
    onFocus=${focus(true)} onBlur=${focus(false)}>
    <canvas aria-hidden="true" ref=${(element) => void (refs.cells = element)}></canvas>
    <canvas aria-hidden="true" ref=${(element) => void (refs.marks = element)}></canvas>
    <div class="wb-tip" aria-hidden="true" hidden ref=${(element) => void (refs.tip = element)}></div>
    <div role="row" class="wb-unseen" aria-rowindex=${at.row + 1}>
      <div role="gridcell" id=${id} aria-colindex=${at.col + 2} aria-selected=${same(at, selected) ? "true" : "false"}>${cellWords(props, at)}</div>
    </div>
  </div>`;
}

const same = (a, b) => Boolean(a && b && a.row === b.row && a.col === b.col);
const within = ({ row, col }, blocks) => ({ row: Math.min(row, blocks - 1), col: Math.min(col ?? 0, blocks - 1) });

/** What the mouse and the keys do. */
function actions(refs, latest, setCursor) {
  const under = (event) => {
    const { left, top } = refs.box.getBoundingClientRect();
    const { place, blocks } = latest.current.props;
    return cellAt(place, blocks, event.clientX - left, event.clientY - top);
  };
  const go = (cell) => {
    showTip(refs, latest.current.props, cell);
    latest.current.props.onHover(cell);
  };
  return {
    move(event) {
      const cell = under(event);
      if (same(cell, refs.under) || (!cell && !refs.under)) return;
      refs.under = cell;
      go(cell);
    },
    leave() {
      refs.under = null;
      go(null);
    },
    click(event) {
      const cell = under(event);
      if (!cell) return;
      setCursor(cell);
      latest.current.props.onSelect(cell);
    },
    key(event) {
      const { props, at } = latest.current;
      if (event.altKey || event.metaKey) return;
      const to = moved(at, event.key, props.blocks, event.ctrlKey);
      if (to) {
        setCursor(to);
        go(to);
      } else if (event.key === "Enter" || event.key === " ") props.onSelect(at);
      else if (isDelete(event)) props.onDelete(at);
      else return;
      event.preventDefault();
      event.stopPropagation();
    },
  };
}

function hideTip({ tip }) {
  if (tip) tip.hidden = true;
}

function tellAgain({ tip, told }, props) {
  if (!tip || tip.hidden || !told) return;
  const there = told.row < props.blocks && told.col < props.blocks;
  if (there) tip.textContent = cellWords(props, told);
  else tip.hidden = true;
}

/** The words of a cell beside it, inside the square. */
function showTip(refs, props, cell) {
  const { tip } = refs;
  refs.told = cell;
  if (!cell) return hideTip(refs);
  tip.textContent = cellWords(props, cell);
  tip.hidden = false;
  const rect = rectOf(props.place, cell.row, cell.col);
  const right = rect.x + rect.width + 10;
  const x = right + tip.offsetWidth <= props.place.width ? right : Math.max(0, rect.x - tip.offsetWidth - 10);
  const y = Math.max(0, Math.min(rect.y + rect.height + 6, props.place.height - tip.offsetHeight));
  tip.style.transform = `translate(${x}px, ${y}px)`;
}
