/** A table that sorts, and that holds any number of rows: only those on screen exist. */
import { QUIET_KEYS, classes, html, useId, useLayoutEffect, useMemo, useRef, useState } from "../html.js";
import { reveal, visible } from "../draw/ranges.js";
import { css, inkOn } from "../draw/scales.js";

export const ROW = 24; // the head is as tall
const OVER = 8;

/** Rows in the order of a column; NaN and null last, either way. Ties keep their order. */
export function sorted(rows, column, down) {
  if (!column) return rows;
  const value = column.value ?? ((row) => row[column.key]);
  const gone = (x) => x === null || x === undefined || Number.isNaN(x);
  return [...rows].sort((a, b) => {
    const [x, y] = [value(a), value(b)];
    if (gone(x) || gone(y)) return Number(gone(x)) - Number(gone(y));
    const order = typeof x === "string" ? x.localeCompare(String(y)) : x - y;
    return down ? -order : order;
  });
}

/**
 * @typedef {object} Column
 * @property {string} key
 * @property {string} title
 * @property {(row: object) => number|string|null} [value] what it sorts by: row[key] by default
 * @property {(row: object) => unknown} [cell] what is shown: text or vnodes
 * @property {(row: object) => number[]|null} [fill] background [r, g, b]
 * @property {"left"|"right"|"center"} [align] left; numbers want right
 * @property {string} [width] of CSS grid, as "80px" or "minmax(60px, 1fr)"
 * @property {boolean} [sortable] true
 * @property {string} [hint] tooltip of the head
 *
 * @param {{ columns: Column[], rows: object[], label: string, rowKey: (row: object) => string|number,
 *   sort?: { key: string, down: boolean }, onSort?: (sort: { key: string, down: boolean }) => void, selected?: unknown,
 *   onSelect?: (row: object, event: Event) => void, onHover?: (row: object|null) => void, onKey?: (event: KeyboardEvent,
 *   row: object) => boolean|void, maxHeight?: number, dim?: boolean }} props
 */
export function SortableTable(props) {
  const { columns, rows, label, rowKey, selected, onSelect, onHover, maxHeight = 380, dim } = props;
  const [own, setOwn] = useState(props.sort ?? null);
  const sort = props.onSort ? props.sort : own;
  const order = useMemo(
    () => sorted(rows, columns.find((column) => column.key === sort?.key), sort?.down),
    [rows, sort?.key, sort?.down],
  );
  const id = useId();
  const scroller = useRef(null);
  const [top, setTop] = useState(0);
  const [cursor, setCursor] = useState(null);
  const at = useMemo(() => Math.max(0, order.findIndex((row) => rowKey(row) === (cursor ?? selected))), [order, cursor, selected]);
  const room = Math.min(maxHeight - ROW, order.length * ROW);
  const { start, stop } = visible(top, room, ROW, order.length, OVER);
  useLayoutEffect(() => {
    // Chosen here or in another view: the keys go on from there.
    const index = order.findIndex((row) => rowKey(row) === selected);
    if (index < 0) return;
    setCursor(selected);
    show(scroller.current, index);
  }, [selected]);
  const go = (to) => {
    setCursor(rowKey(order[to]));
    show(scroller.current, to);
    onHover?.(order[to]);
  };
  const key = (event) => {
    if (!order.length || event.altKey || event.metaKey || event.target.closest?.("button, input, select")) return;
    const page = Math.max(1, Math.floor(room / ROW) - 1);
    const by = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -order.length, End: order.length }[event.key];
    if (by) go(Math.max(0, Math.min(order.length - 1, at + by)));
    else if ((event.key === "Enter" || event.key === " ") && onSelect) onSelect(order[at], event);
    else if (!props.onKey?.(event, order[at])) return;
    event.preventDefault();
    event.stopPropagation();
  };
  const change = (column) => {
    const fresh = { key: column.key, down: sort?.key === column.key ? !sort.down : column.align === "right" };
    setOwn(fresh);
    scroller.current.scrollTop = 0; // who sorts wants to see the first rows
    props.onSort?.(fresh);
  };
  const template = { gridTemplateColumns: columns.map((column) => column.width ?? "minmax(56px, 1fr)").join(" ") };
  const common = { columns, template, rowKey, onSelect, onHover, setCursor, id };
  return html`<div class=${classes("wb-table", dim && "wb-dim")} role="grid" aria-label=${label} tabindex="0" onKeyDown=${key} ref=${scroller}
    style=${{ maxHeight: `${maxHeight}px` }} onScroll=${(event) => setTop(event.currentTarget.scrollTop)}
    aria-activedescendant=${at >= start && at < stop ? `${id}-${at}` : undefined} ...${QUIET_KEYS} aria-rowcount=${order.length + 1} aria-colcount=${columns.length}>
    <div class="wb-table-head" role="row" aria-rowindex="1" style=${template}>
      ${columns.map((column, i) => html`<${Head} key=${column.key} ...${{ column, sort, change, index: i }} />`)}
    </div>
    <div class="wb-table-body" role="rowgroup" style=${{ height: `${order.length * ROW}px` }} onPointerLeave=${() => onHover?.(null)}>
        ${order.slice(start, stop).map((row, i) => html`<${Row} key=${rowKey(row)} ...${common} row=${row} index=${start + i}
          isSelected=${selected !== undefined && selected !== null && rowKey(row) === selected} isCursor=${start + i === at} />`)}
    </div>
  </div>`;
}

function show(element, index) {
  if (element) element.scrollTop = reveal(element.scrollTop, element.clientHeight - ROW, index * ROW, (index + 1) * ROW);
}

function Head({ column, sort, change, index }) {
  const way = sort?.key === column.key ? (sort.down ? "descending" : "ascending") : "none";
  const align = { textAlign: column.align ?? "left" };
  if (column.sortable === false) {
    return html`<span role="columnheader" class="wb-table-title" style=${align} title=${column.hint}>${column.title}</span>`;
  }
  return html`<span role="columnheader" aria-sort=${way} aria-colindex=${index + 1} style=${align}>
    <button type="button" class="wb-table-title" title=${column.hint} onClick=${() => change(column)} ...${QUIET_KEYS}>
      ${column.title}<span aria-hidden="true" class="wb-sort">${{ descending: "▾", ascending: "▴", none: "" }[way]}</span>
    </button>
  </span>`;
}

function Row({ columns, template, row, index, isSelected, isCursor, rowKey, onSelect, onHover, setCursor, id }) {
  const pick = (event) => {
    setCursor(rowKey(row));
    onSelect?.(row, event);
  };
  return html`<div role="row" id=${`${id}-${index}`} aria-rowindex=${index + 2} aria-selected=${isSelected ? "true" : "false"}
    class=${classes("wb-row", isSelected && "wb-selected", isCursor && "wb-cursor")} onClick=${pick}
    onPointerEnter=${() => onHover?.(row)} style=${{ ...template, top: `${index * ROW}px` }}>
    ${columns.map((column) => {
      const fill = column.fill?.(row);
      const look = { textAlign: column.align ?? "left", ...(fill ? { background: css(fill), color: inkOn(fill) } : {}) };
      return html`<span key=${column.key} role="gridcell" class="wb-cell" style=${look}>${column.cell ? column.cell(row) : row[column.key]}</span>`;
    })}
  </div>`;
}
