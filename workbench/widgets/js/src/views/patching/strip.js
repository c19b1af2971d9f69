/** Source and target, token under token; drag from one to the other. */
import { QUIET_KEYS, classes, html, useId, useLayoutEffect, useMemo, useRef, useState } from "../../html.js";
import { reveal, visible } from "../../draw/ranges.js";
import { widthOf } from "../../draw/measure.js";
import { MONO } from "../../draw/paint.js";
import { useSize } from "../../hooks.js";
import { LINE, ROW, columnsOf, placed, stepped } from "./lines.js";

const FONT = `bold 12px ${MONO}`; // tokens that differ are bold: none may be wider than its place
const SIDES = ["source", "target"];
const OVER = 3;
const FAR = 5; // pixels that the mouse moves before it drags

/**
 * @param {{ tokens: [string[], string[]], names: [string, string], pairs: Int32Array, differs: Uint8Array,
 *   position: number|null, hovered: number|null, carried: string, onSelect: (side: number, position: number) => void,
 *   onHover: (position: number|null) => void,
 *   onDrop: (from: { side: number, position: number }, to: { side: number, position: number }) => void }} props
 *   carried: what a drag carries, in words
 */
export function Aligned(props) {
  const { tokens, pairs, names, position, carried } = props;
  const id = useId();
  const [box, scroller] = [useRef(null), useRef(null)];
  const room = useSize(box).width - 12;
  const flowed = useMemo(
    () => (room > 60 ? placed({ pairs, tokens, room, width: (text) => widthOf(text, FONT) }) : null),
    [pairs, tokens, room],
  );
  const columns = useMemo(() => SIDES.map((_, side) => columnsOf(pairs, side, tokens[side].length)), [pairs, tokens]);
  const [top, setTop] = useState(0);
  const [cursor, setCursor] = useState(null);
  const [mark, setMark] = useState(null); // { side, column }
  const [over, setOver] = useState(null); // what a drag is over
  const at = cursor ?? { side: 1, column: position === null ? 0 : Math.max(0, columns[1][position] ?? 0) };
  const height = flowed ? Math.min(flowed.height - 6, 3 * LINE - 6) : LINE;
  useLayoutEffect(() => {
    const to = position !== null ? columns[1][position] : props.differs.indexOf(1);
    if (flowed && to >= 0) show(scroller.current, flowed, to);
  }, [position, flowed]);
  const on = actions({ props, flowed, scroller, at, mark, setCursor, setMark, setOver });
  const window = flowed && visible(top, height, LINE, flowed.starts.length - 1, OVER);
  const said = mark ? `${SIDES[mark.side]} position ${pairs[2 * mark.column + mark.side]} is marked; move to the other prompt and press D to drop it, Escape to let go` : "";
  return html`<div class="wb-patching-strip" ref=${box}>
    <div class="wb-patching-window" ref=${scroller} role="grid" tabindex="0" style=${{ height: `${height + 4}px` }}
      aria-label=${`${names[0]} above ${names[1]}, token under token. M marks a token, D drops it on the other prompt.`}
      aria-activedescendant=${flowed?.count ? `${id}-${at.side}-${at.column}` : undefined} ...${QUIET_KEYS} ...${on}
      onScroll=${(event) => setTop(Math.floor(event.currentTarget.scrollTop / LINE) * LINE)}>
      ${flowed && html`<div role="presentation" class="wb-patching-lines" style=${{ height: `${flowed.height}px` }}>
        ${Lines({ ...window, ...props, flowed, id, at, mark, over })}
      </div>`}
    </div>
    <p class="wb-note"><span>Drag a token onto the other prompt to patch ${carried} from there to here</span><span>keys: arrows, M marks, D drops</span></p>
    <p class="wb-note wb-strong" role="status">${said}</p>
  </div>`;
}

/** Scrolls a column's line into the window. */
function show(element, flowed, column) {
  const line = flowed.lineOf[column];
  element.scrollTop = reveal(element.scrollTop, element.clientHeight, line * LINE, (line + 1) * LINE);
}

/** The lines that are on screen: two rows of tokens each. */
function Lines({ start, stop, flowed, ...rest }) {
  const made = [];
  for (let line = start; line < stop; line++) {
    for (const side of [0, 1]) {
      const row = [];
      for (let i = flowed.starts[line]; i < flowed.starts[line + 1]; i++) row.push(token({ ...rest, flowed, side }, i));
      made.push(html`<div key=${`${line} ${side}`} role="row" class=${`wb-patching-row wb-patching-${SIDES[side]}`}
        style=${{ top: `${line * LINE + side * ROW}px` }}>${row}</div>`);
    }
  }
  return made;
}

function token({ tokens, names, pairs, differs, flowed, side, id, at, mark, over, position, hovered }, i) {
  const own = pairs[2 * i + side];
  const target = pairs[2 * i + 1];
  const is = (place) => Boolean(place && place.side === side && place.column === i);
  const name = classes(
    "wb-patching-token", own < 0 && "wb-patching-gap", differs[i] && "wb-patching-differs", is(at) && "wb-active",
    is(mark) && "wb-patching-marked", is(over) && "wb-patching-over", target >= 0 && target === position && "wb-selected",
    target >= 0 && target === hovered && "wb-hovered",
  ); // prettier-ignore
  const text = own < 0 ? "–" : tokens[side][own];
  const where = own < 0 ? "nothing here" : `position ${own}`;
  const words = `${text}, ${names[side]}, ${where}${differs[i] ? ", differs" : ""}${is(mark) ? ", marked" : ""}`;
  return html`<span key=${i} id=${`${id}-${side}-${i}`} role="gridcell" class=${name} data-side=${side} data-column=${i}
    aria-selected=${target >= 0 && target === position ? "true" : "false"} title=${words} aria-label=${words}
    style=${{ left: `${flowed.lefts[i]}px`, width: `${flowed.widths[i]}px` }}><bdi>${text}</bdi></span>`;
}

const placeOf = (element) => {
  const found = element?.closest?.("[data-column]");
  return found ? { side: Number(found.dataset.side), column: Number(found.dataset.column) } : null;
};

/** What the mouse and the keys do. */
function actions({ props, flowed, scroller, at, mark, setCursor, setMark, setOver }) {
  const { pairs, onSelect, onHover, onDrop } = props;
  const own = ({ side, column }) => ({ side, position: pairs[2 * column + side] });
  const choose = (place) => own(place).position >= 0 && onSelect(place.side, own(place).position);
  const drop = (from, to) => {
    const ends = [own(from), own(to)];
    if (from.side !== to.side && ends.every(({ position }) => position >= 0)) onDrop(...ends);
  };
  const move = (to) => (setCursor(to), show(scroller.current, flowed, to.column));
  return {
    onPointerOver: (event) => {
      const place = placeOf(event.target);
      onHover(place && pairs[2 * place.column + 1] >= 0 ? pairs[2 * place.column + 1] : null);
    },
    onPointerLeave: () => onHover(null),
    onPointerDown(event) {
      const from = placeOf(event.target);
      if (!from || event.button !== 0) return;
      event.preventDefault(); // no text selection
      scroller.current.focus({ preventScroll: true });
      setCursor(from);
      drag(event, from, { setOver, drop, choose, text: event.target.textContent });
    },
    onKeyDown(event) {
      if (!flowed || event.altKey || event.metaKey) return;
      const to = stepped(at, event.key, flowed, event.ctrlKey);
      const key = event.key.toLowerCase();
      if (to) move(to);
      else if (event.key === "Enter" || event.key === " ") choose(at);
      else if (key === "m" && own(at).position >= 0) {
        setMark(at);
        setCursor(at);
      } else if (key === "d" && mark) {
        drop(mark, at);
        if (mark.side !== at.side) setMark(null);
      } else if (event.key === "Escape" && mark) setMark(null);
      else return;
      event.preventDefault();
      event.stopPropagation();
    },
  };
}

/** Follows the mouse from a token to where it is let go; a press that does not move is a click. */
function drag(start, from, { setOver, drop, choose, text }) {
  const root = start.currentTarget.closest(".wb-app") ?? start.currentTarget;
  const page = start.currentTarget.getRootNode();
  const origin = root.getBoundingClientRect();
  let ghost = null;
  const under = (event) => {
    const place = placeOf(page.elementFromPoint(event.clientX, event.clientY));
    return place && place.side !== from.side ? place : null;
  };
  const moved = (event) => {
    if (!ghost && Math.hypot(event.clientX - start.clientX, event.clientY - start.clientY) < FAR) return;
    if (!ghost) {
      ghost = root.ownerDocument.createElement("div");
      ghost.className = `wb-patching-ghost wb-patching-${SIDES[from.side]}`;
      ghost.textContent = text;
      root.append(ghost);
    }
    ghost.style.transform = `translate(${event.clientX - origin.left + 10}px, ${event.clientY - origin.top + 10}px)`;
    setOver(under(event));
  };
  const end = (event) => {
    const to = ghost && event.type === "pointerup" ? under(event) : null;
    if (!ghost && event.type === "pointerup") choose(from);
    if (to) drop(from, to);
    ghost?.remove();
    setOver(null);
    stop.abort();
  };
  const stop = new AbortController();
  const listen = { signal: stop.signal };
  const target = root.ownerDocument;
  target.addEventListener("pointermove", moved, listen);
  target.addEventListener("pointerup", end, listen);
  target.addEventListener("pointercancel", end, listen);
  target.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !ghost) return;
    event.stopPropagation();
    end(event);
  }, { ...listen, capture: true }); // prettier-ignore
}
