/** A grid of coloured cells on a canvas: any size, any speed, with keys and words. */
import { QUIET_KEYS, classes, html, useEffect, useId, useLayoutEffect, useRef, useState } from "../html.js";
import { widest, widthOf } from "../draw/measure.js";
import { useFrame, useSharpness, useSize, useTheme } from "../hooks.js";
import { actions, handleOf, hideTip, same, tellAgain, scrollOf, scrollTo, viewOf } from "./matrix/hands.js";
import { layout } from "./matrix/layout.js";
import { LABEL_FONT, paintCells, paintOutlines } from "./matrix/painting.js";

/**
 * @typedef {{ row: number, col: number }} Cell
 * @typedef {object} MatrixProps
 * @property {number} rows
 * @property {number} cols
 * @property {ArrayLike<number>} values one a cell, row after row; NaN = nothing there. May be changed in place: then
 *   also pass a new `version`
 * @property {import("../draw/scales.js").Scale | ((value: number, i: number) => number[])} colour a scale (fastest), or a
 *   function that gives [r, g, b]
 * @property {(row: number, col: number) => string} describe the words of a cell: tooltip and screen reader
 * @property {string} label what the whole grid is, in words
 * @property {(row: number, col: number) => string} [text] what is written in a cell, where there is room
 * @property {string[]} [rowLabels]
 * @property {(string|number)[]} [rowNotes] small print after a row's label, such as its position
 * @property {string[]} [colLabels]
 * @property {{ start: number, stop: number, colour: string }[]} [rowBands] thin bars beside the labels, as of roles
 * @property {{ start: number, stop: number, colour: string }[]} [colBands]
 * @property {number[]} [rowRules] rows with a line before them
 * @property {number[]} [colRules]
 * @property {Uint8Array} [hatch] 1 = not run yet
 * @property {Uint8Array} [grey] 1 = inside the noise
 * @property {Uint8Array} [faded] 1 = only an estimate
 * @property {Cell|null} [selected]
 * @property {Cell|null} [hovered] what the mouse is on here or in another view
 * @property {number|null} [selectedRow] a whole row outlined
 * @property {number|null} [selectedCol]
 * @property {(row: number|null, col: number|null) => void} [onHover] both null when the mouse leaves
 * @property {(row: number, col: number, event: Event) => void} [onSelect]
 * @property {(event: PointerEvent, cell: Cell|null) => void} [onPointer] pointerdown, for dragging
 * @property {(event: KeyboardEvent, cell: Cell) => boolean|void} [onKey] other keys; true = taken
 * @property {"fit"|{ width?: number|"fit", height?: number|"fit" }} [cell]
 * @property {number} [minCell] 4 · @property {number} [maxCell] 64 · @property {number} [maxHeight] 420
 * @property {boolean} [square]
 * @property {boolean} [tooltip] true
 * @property {boolean} [dim] the data are out of date
 * @property {unknown} [version] changes when values, hatch, grey or faded changed in place
 * @property {(context: CanvasRenderingContext2D, geometry: object) => void} [paint] draws over the cells
 * @property {{ current: object }} [handle] gets { cellAt(x, y), rectOf(row, col), reveal(row, col) } in client pixels
 */

const AGAIN = [
  "rows", "cols", "values", "colour", "text", "hatch", "grey", "faded", "rowLabels", "rowNotes", "colLabels", "rowBands",
  "colBands", "rowRules", "colRules", "version", "theme", "sharpness", "paint",
];

/** The widest label, with its small print. */
function labelWidths({ rowLabels, rowNotes, colLabels }) {
  const notes = rowNotes?.length ? widthOf(String(rowNotes.at(-1)), "9px monospace") + 6 : 0;
  const row = rowLabels?.length ? widest(rowLabels, LABEL_FONT) + notes + 4 : 0;
  return { rowLabel: Math.ceil(row), colLabel: colLabels?.length ? Math.ceil(widest(colLabels, LABEL_FONT)) : 0 };
}

/** @param {MatrixProps} given */
export function Matrix(given) {
  const theme = useTheme();
  const props = { ...given, theme, sharpness: useSharpness() };
  const box = useRef(null);
  const room = useSize(box).width;
  const labels = useLabels(props);
  const place = room && props.rows && props.cols ? layout({ ...props, room, ...labels }) : null;
  return html`<div class=${classes("wb-matrix", props.dim && "wb-dim")} ref=${box}>
    ${place && html`<${Window} ...${props} place=${place} />`}
  </div>`;
}

/** labelWidths, measured again only when the labels are others. */
function useLabels(props) {
  const known = useRef({ of: [], widths: null });
  const of = [props.rowLabels, props.rowNotes, props.colLabels];
  if (!known.current.widths || of.some((labels, i) => labels !== known.current.of[i])) {
    known.current = { of, widths: labelWidths(props) };
  }
  return known.current.widths;
}

/** The scrolling window on the cells. */
function Window(props) {
  const { place } = props;
  const id = useId();
  const [refs] = useState(() => ({ scroller: null, cells: null, outlines: null, tip: null, painted: null }));
  const [cursor, setCursor] = useState(null);
  const [focused, setFocused] = useState(false);
  const latest = useRef(null);
  latest.current = { props, place, cursor: focused && cursor ? within(cursor, props) : null };
  const paint = useFrame(() => paintAll(refs, latest.current));
  useLayoutEffect(() => {
    paint();
  });
  useReveal(refs, props);
  useEffect(() => {
    if (props.selected) setCursor(props.selected); // chosen here or in another view: the keys go on from there
  }, [props.selected?.row, props.selected?.col]);
  useEffect(() => () => refs.under && latest.current.props.onHover?.(null, null), []);
  useEffect(() => {
    if (!props.handle) return;
    props.handle.current = handleOf(refs, latest);
  });
  const at = within(cursor ?? props.selected ?? { row: 0, col: 0 }, props);
  const on = actions(refs, latest, { cursor: at, setCursor });
  const focus = (is) => () => (setFocused(is), is || hideTip(refs));
  return html`<div
    class="wb-matrix-window" role="grid" tabindex="0" aria-label=${props.label} aria-rowcount=${props.rows}
    aria-colcount=${props.cols} aria-activedescendant=${id} ...${QUIET_KEYS}
    style=${{ height: `${place.boxHeight}px` }}
    ref=${(element) => void (refs.scroller = element)}
    onScroll=${() => (hideTip(refs), paint())} onKeyDown=${on.key} onFocus=${focus(true)} onBlur=${focus(false)}
    onPointerMove=${on.move} onPointerLeave=${on.leave} onPointerDown=${on.down} onClick=${on.click}
  >
    <div class="wb-matrix-all" role="presentation" style=${{ width: `${place.width}px`, height: `${place.height}px` }}>
      <div class="wb-matrix-sticky" role="presentation">
        <canvas aria-hidden="true" ref=${(element) => void (refs.cells = element)}></canvas>
        <canvas aria-hidden="true" ref=${(element) => void (refs.outlines = element)}></canvas>
        <div class="wb-tip" aria-hidden="true" hidden ref=${(element) => void (refs.tip = element)}></div>
      </div>
    </div>
    <div role="row" class="wb-unseen" aria-rowindex=${at.row + 1}>
      <div role="gridcell" id=${id} aria-colindex=${at.col + 1} aria-selected=${same(at, props.selected) ? "true" : "false"}>
        ${props.describe(at.row, at.col)}
      </div>
    </div>
  </div>`;
}

/** A cell of a grid that was larger a moment ago, in the one that there is now. */
const within = ({ row, col }, { rows, cols }) => ({ row: Math.min(row, rows - 1), col: Math.min(col, cols - 1) });

/** Paints the cells where something about them changed, and the outlines. */
function paintAll(refs, { props, place, cursor }) {
  if (!refs.scroller || !refs.cells) return;
  const [scroll, view] = [scrollOf(refs), viewOf(refs)];
  const now = [...AGAIN.map((name) => props[name]), ...Object.values(place), ...Object.values(scroll), ...Object.values(view)];
  if (!refs.painted || now.some((value, i) => !Object.is(value, refs.painted[i]))) {
    paintCells(refs.cells, props, place, scroll, view);
    refs.painted = now;
  }
  paintOutlines(refs.outlines, props, place, scroll, view, cursor);
  tellAgain(refs, props);
}

/** Scrolls to what was selected, here or elsewhere. */
function useReveal(refs, { selected, place }) {
  useLayoutEffect(() => {
    if (selected) scrollTo(refs, place, selected);
  }, [selected?.row, selected?.col, place.cw, place.ch]);
}
