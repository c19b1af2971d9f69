/** A text, token by token: lines that exist only while they are on screen, keys, ranges, roles above the text. */
import { QUIET_KEYS, classes, html, memo, useId, useLayoutEffect, useMemo, useRef, useState } from "../html.js";
import { nearestInLine, reveal, visible } from "../draw/ranges.js";
import { css, inkOn, roleColour } from "../draw/scales.js";
import { useSize, useTheme } from "../hooks.js";
import { GUTTER, LINE_HEIGHT, bandsInLine, flow, step } from "./tokens/flow.js";

/**
 * @typedef {object} TokenStripProps
 * @property {string[]} tokens visible strings
 * @property {string} label what the text is, in words
 * @property {{ start: number, stop: number, name: string }[]} [bands] who speaks: a thin line above, the name at the left
 * @property {ArrayLike<number>} [small] 1 = small print (harmony's markers)
 * @property {(i: number) => number[]|null} [fill] background [r, g, b] of a token; null = paper
 * @property {(i: number) => string} [describe] tooltip and screen reader; the token and its position by default
 * @property {(i: number) => string} [mark] a class for a token: "wb-mark-flip" (double underline), or your own
 * @property {number|null} [selected]
 * @property {[number, number]|null} [span] [start, stop) chosen
 * @property {number|null} [hovered]
 * @property {(i: number|null) => void} [onHover]
 * @property {(i: number, event: Event) => void} [onSelect] click, arrow keys, Enter
 * @property {(span: [number, number]) => void} [onRange] shift-click, shift-arrow
 * @property {() => void} [onClear] Escape
 * @property {number} [maxHeight] 190
 * @property {boolean} [dim] out of date
 */

const OVER = 5; // lines kept beyond the window

/** @param {TokenStripProps} props */
export function TokenStrip(props) {
  const { tokens, bands = [], small, label, maxHeight = 190 } = props;
  const id = useId();
  const box = useRef(null);
  const scroller = useRef(null);
  const room = useSize(box).width;
  const gutter = bands.length && room > 480 ? GUTTER : 0;
  const flowed = useMemo(
    () => (room ? flow({ tokens, small, bands, room: room - 12, gutter }) : null),
    [tokens, small, bands, room, gutter],
  );
  const [top, setTop] = useState(0);
  const active = Math.min(props.selected ?? props.span?.[0] ?? 0, tokens.length - 1);
  useLayoutEffect(() => {
    if (flowed && props.selected !== null && props.selected !== undefined) showLine(scroller.current, flowed.lineOf[active]);
  }, [active, flowed]);
  const on = actions({ props, flowed, scroller, active });
  const most = Math.max(1, Math.floor((maxHeight - 4) / LINE_HEIGHT)) * LINE_HEIGHT + 4; // no line is cut
  const height = flowed ? Math.min(flowed.height + 4, most) : LINE_HEIGHT * 2;
  const window = flowed && visible(top, height, LINE_HEIGHT, flowed.starts.length - 1, OVER);
  return html`<div class=${classes("wb-strip", props.dim && "wb-dim")} ref=${box}>
    <div class="wb-strip-window" ref=${scroller} style=${{ height: `${height}px` }} tabindex="0" role="listbox"
      aria-label=${label} aria-multiselectable="true" aria-activedescendant=${tokens.length ? `${id}-${active}` : undefined}
      ...${QUIET_KEYS} ...${on} onScroll=${(event) => setTop(quantised(event.currentTarget.scrollTop))}>
      ${flowed && html`<div role="presentation" style=${{ height: `${flowed.height}px`, position: "relative" }}>
        <${Lines} ...${window} ...${{ props, flowed, gutter, id, active }} key=${id} />
      </div>`}
    </div>
  </div>`;
}

/** Scroll positions in steps of a few lines: rendering again at each pixel would be for nothing. */
const quantised = (top) => Math.floor(top / (LINE_HEIGHT * 2)) * LINE_HEIGHT * 2;

/** The lines that are on screen. */
function Lines({ start, stop, props, flowed, gutter, id, active }) {
  const theme = useTheme();
  const { tokens, small, fill, mark, describe, bands = [], hovered, span } = props;
  const made = [];
  for (let line = start; line < stop; line++) {
    const [first, end] = [flowed.starts[line], flowed.starts[line + 1]];
    const inside = (i) => (i !== null && i !== undefined && i >= first && i < end ? i : null);
    const common = { tokens, small, fill, mark, describe, bands, flowed, gutter, id, theme };
    const chosen = span && span[0] < end && span[1] > first ? `${span[0]} ${span[1]}` : "";
    made.push(
      html`<${Line} key=${line} ...${common} line=${line} hovered=${inside(hovered)} chosen=${chosen}
        selected=${inside(props.selected)} active=${inside(active)} />`,
    );
  }
  return made;
}

const Line = memo(function Line(props) {
  const { line, flowed, bands, gutter, theme } = props;
  const [first, end] = [flowed.starts[line], flowed.starts[line + 1]];
  const runs = bandsInLine(flowed, bands, line);
  const begins = runs.find((run) => run.begins);
  const made = [];
  for (let i = first; i < end; i++) made.push(token(props, i));
  return html`<div class="wb-line" role="presentation" style=${{ top: `${line * LINE_HEIGHT}px` }}>
    ${gutter && begins
      ? html`<span class="wb-speaker" aria-hidden="true" style=${{ width: `${gutter - 10}px` }}>${begins.name.replaceAll("/", " · ")}</span>`
      : null}
    ${runs.map(
      (run) => html`<span class="wb-band" aria-hidden="true" style=${{
        left: `${gutter + run.left}px`, width: `${run.width}px`, background: roleColour(run.name, theme),
      }}></span>`,
    )}
    ${made}
  </div>`;
});

/** One token. */
function token({ tokens, small, fill, mark, describe, flowed, gutter, id, selected, active, hovered, chosen }, i) {
  const colour = fill?.(i);
  const [start, stop] = chosen ? chosen.split(" ").map(Number) : [0, 0];
  const isChosen = i === selected || (i >= start && i < stop);
  const words = describe ? describe(i) : `${tokens[i]}, position ${i}`;
  const look = { left: `${gutter + flowed.lefts[i]}px`, width: `${flowed.widths[i]}px` };
  if (colour) Object.assign(look, { background: css(colour), color: inkOn(colour) });
  const name = classes(
    "wb-token", small?.[i] && "wb-small", i === hovered && "wb-hovered", i === selected && "wb-selected",
    i >= start && i < stop && "wb-in-span", i === active && "wb-active", mark?.(i),
  );
  return html`<span key=${i} id=${`${id}-${i}`} class=${name} role="option" data-i=${i} style=${look} title=${words}
    aria-label=${words} aria-selected=${isChosen ? "true" : "false"} aria-posinset=${i + 1} aria-setsize=${tokens.length}
  >${tokens[i]}</span>`;
}

/** Scrolls a line into the window. */
function showLine(element, line) {
  const room = element.clientHeight;
  element.scrollTop = reveal(element.scrollTop, room, line * LINE_HEIGHT - 2, (line + 1) * LINE_HEIGHT + 2);
}

const indexOf = (event) => {
  const element = event.target.closest?.("[data-i]");
  return element ? Number(element.dataset.i) : null;
};

/** The span between two tokens, both included. */
const between = (a, b) => [Math.min(a, b), Math.max(a, b) + 1];

/** What the mouse and the keys do. */
function actions({ props, flowed, scroller, active }) {
  const { tokens, span, selected, onHover, onSelect, onRange, onClear } = props;
  const anchor = selected ?? span?.[0] ?? 0;
  const far = span ? (span[0] === anchor ? span[1] - 1 : span[0]) : anchor; // the end that shift-arrow moves
  return {
    onPointerOver: (event) => onHover?.(indexOf(event)),
    onPointerLeave: () => onHover?.(null),
    onPointerDown: (event) => event.shiftKey && event.preventDefault(), // no text selection
    onClick(event) {
      const i = indexOf(event);
      if (i === null) return;
      if (event.shiftKey && onRange) onRange(between(anchor, i));
      else onSelect?.(i, event);
    },
    onKeyDown(event) {
      if (!flowed || event.altKey || event.metaKey) return;
      const page = Math.max(1, Math.floor(scroller.current.clientHeight / LINE_HEIGHT) - 1);
      const ranging = event.shiftKey && onRange;
      const how = { count: tokens.length, page, ctrl: event.ctrlKey, nearest: nearestInLine };
      const to = step(flowed, ranging ? far : active, event.key, how);
      if (to !== null && ranging) onRange(between(anchor, to));
      else if (to !== null || event.key === "Enter" || event.key === " ") onSelect?.(to ?? active, event);
      else if (event.key === "Escape" && onClear) onClear();
      else return;
      if (to !== null && ranging) showLine(scroller.current, flowed.lineOf[to]);
      event.preventDefault();
      event.stopPropagation();
    },
  };
}

/** One token in running text, as in a table or a title: its marks quiet, cut where it is long. */
export function TokenLabel({ text, fill = null, title = undefined, limit = 40 }) {
  const shown = text.length > limit ? `${[...text].slice(0, limit - 1).join("")}…` : text;
  const look = fill ? { background: css(fill), color: inkOn(fill) } : {};
  return html`<span class="wb-token-label" style=${look} title=${title ?? text}><bdi>${shown}</bdi></span>`;
}
