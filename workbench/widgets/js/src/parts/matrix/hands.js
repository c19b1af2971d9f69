/** What the mouse and the keys do in a matrix. */
import { moved, reveal } from "../../draw/ranges.js";
import { cellAt, rectOf } from "./layout.js";

export const same = (a, b) => Boolean(a && b && a.row === b.row && a.col === b.col);
export const scrollOf = ({ scroller }) => ({ left: scroller.scrollLeft, top: scroller.scrollTop });
export const viewOf = ({ scroller }) => ({ width: scroller.clientWidth, height: scroller.clientHeight });

/** Scrolls as far as is needed to show a cell. */
export function scrollTo({ scroller }, place, { row, col }) {
  const [wide, high] = [scroller.clientWidth - place.left, scroller.clientHeight - place.top];
  scroller.scrollLeft = reveal(scroller.scrollLeft, wide, col * place.cw, (col + 1) * place.cw);
  scroller.scrollTop = reveal(scroller.scrollTop, high, row * place.ch, (row + 1) * place.ch);
}

/** What a view may ask of its matrix; null where it is no longer on the page, as a popup's observer may find it. */
export function handleOf(refs, latest) {
  return {
    cellAt: (x, y) => (refs.scroller ? under(refs, latest, { clientX: x, clientY: y }) : null),
    reveal: (row, col) => refs.scroller && scrollTo(refs, latest.current.place, { row, col }),
    rectOf(row, col) {
      if (!refs.scroller) return null;
      const origin = refs.scroller.getBoundingClientRect();
      const rect = rectOf(latest.current.place, scrollOf(refs), row, col);
      return new DOMRect(origin.left + rect.x, origin.top + rect.y, rect.width, rect.height);
    },
  };
}

function under(refs, latest, event) {
  const { left, top } = refs.scroller.getBoundingClientRect();
  const { place, props } = latest.current;
  return cellAt(place, props, scrollOf(refs), event.clientX - left, event.clientY - top);
}

/** What the mouse and the keys do. */
export function actions(refs, latest, { cursor, setCursor }) {
  const hover = (cell) => latest.current.props.onHover?.(cell?.row ?? null, cell?.col ?? null);
  return {
    move(event) {
      const cell = under(refs, latest, event);
      if (same(cell, refs.under) || (!cell && !refs.under)) return;
      refs.under = cell;
      showTip(refs, latest.current, cell);
      hover(cell);
    },
    leave() {
      refs.under = null;
      hideTip(refs);
      hover(null);
    },
    down(event) {
      latest.current.props.onPointer?.(event, under(refs, latest, event));
    },
    click(event) {
      const cell = under(refs, latest, event);
      if (!cell) return;
      setCursor(cell);
      hideTip(refs);
      latest.current.props.onSelect?.(cell.row, cell.col, event);
    },
    key(event) {
      const { props, place } = latest.current;
      if (props.onKey?.(event, cursor)) return taken(event);
      if (event.altKey || event.metaKey) return;
      if (event.key === "Enter" || event.key === " ") {
        props.onSelect?.(cursor.row, cursor.col, event);
        return taken(event);
      }
      const page = Math.max(1, Math.floor((refs.scroller.clientHeight - place.top) / place.ch) - 1);
      const to = moved(cursor, event.key, { ...props, page, ctrl: event.ctrlKey });
      if (!to) return;
      setCursor(to);
      scrollTo(refs, place, to);
      showTip(refs, latest.current, to);
      hover(to);
      taken(event);
    },
  };
}

function taken(event) {
  event.preventDefault();
  event.stopPropagation();
}

export function hideTip({ tip }) {
  if (tip) tip.hidden = true;
}

/** The words of the cell under the mouse as they are now: its number may be another one while the mouse rests. */
export function tellAgain({ tip, told }, { rows, cols, describe }) {
  if (!tip || tip.hidden || !told) return;
  if (told.row >= rows || told.col >= cols) tip.hidden = true;
  else {
    const words = describe(told.row, told.col);
    if (tip.textContent !== words) tip.textContent = words;
  }
}

/** The words of a cell beside it, without rendering anything again. */
function showTip(refs, { props, place }, cell) {
  const { tip } = refs;
  refs.told = cell;
  if (!cell || props.tooltip === false) return hideTip(refs);
  const rect = rectOf(place, scrollOf(refs), cell.row, cell.col);
  const view = viewOf(refs);
  tip.textContent = props.describe(cell.row, cell.col);
  tip.hidden = false;
  const { offsetWidth: wide, offsetHeight: high } = tip;
  const below = rect.y + rect.height + 6;
  const y = below + high <= view.height ? below : rect.y - high - 6 >= 0 ? rect.y - high - 6 : Math.max(0, view.height - high);
  const beside = y !== below && y !== rect.y - high - 6;
  const x = beside ? rect.x + rect.width + 8 : rect.x;
  const room = Math.max(0, view.width - wide);
  tip.style.transform = `translate(${Math.max(0, Math.min(x > room && beside ? rect.x - wide - 8 : x, room))}px, ${y}px)`;
}
