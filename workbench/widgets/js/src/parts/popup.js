/** A small window that stays beside a cell, a token or a button. */
import { QUIET_KEYS, html, useEffect, useId, useLayoutEffect, useRef } from "../html.js";

const AIR = 6;

/** Where a box of a size stands beside an anchor, inside the bounds; all in the same pixels. */
export function beside(anchor, { width, height }, bounds) {
  const fitsBelow = anchor.bottom + AIR + height <= bounds.bottom;
  const fitsAbove = anchor.top - AIR - height >= bounds.top;
  const top = fitsBelow || !fitsAbove ? anchor.bottom + AIR : anchor.top - AIR - height;
  const left = Math.max(bounds.left + AIR, Math.min(anchor.left, bounds.right - width - AIR));
  return { left, top };
}

/** The part of the page that is seen, and of the widget: a popup may hang below the widget but not beside it. */
function boundsOf(root) {
  const { left, right, bottom, top } = root.getBoundingClientRect();
  return { left, right, top: Math.max(top, 0), bottom: Math.max(Math.min(bottom, innerHeight), top + 200) };
}

/**
 * @param {{ anchor: Element | (() => DOMRect|null), onClose: () => void, title: string, children: unknown,
 *   focus?: boolean, width?: number }} props
 *   anchor: what it follows; focus: take the focus when opened (and give it back when closed; true by default)
 */
export function Popup({ anchor, onClose, title, children, focus = true, width }) {
  const id = useId();
  const box = useRef(null);
  const place = () => {
    const element = box.current;
    const rect = typeof anchor === "function" ? anchor() : anchor?.getBoundingClientRect();
    if (!element || !rect) return;
    const root = element.closest(".wb-root");
    const origin = (element.offsetParent ?? root).getBoundingClientRect();
    const { left, top } = beside(rect, { width: element.offsetWidth, height: element.offsetHeight }, boundsOf(root));
    element.style.left = `${left - origin.left}px`;
    element.style.top = `${top - origin.top}px`;
  };
  useLayoutEffect(place);
  useFollow(box, place);
  useReturn(box, focus);
  const key = (event) => {
    if (event.key !== "Escape") return;
    event.preventDefault();
    event.stopPropagation();
    onClose();
  };
  return html`<div class="wb-popup" role="dialog" aria-labelledby=${id} tabindex="-1" ref=${box} onKeyDown=${key}
    style=${width ? { width: `${width}px` } : {}} ...${QUIET_KEYS}>
    <div class="wb-popup-head">
      <strong id=${id} class="wb-popup-title"><bdi>${title}</bdi></strong>
      <button type="button" class="wb-close" aria-label="Close" onClick=${onClose} ...${QUIET_KEYS}>×</button>
    </div>
    ${children}
  </div>`;
}

/** Stays beside its anchor while something scrolls or changes its size. */
function useFollow(box, place) {
  const latest = useRef(place);
  latest.current = place;
  useEffect(() => {
    const root = box.current.closest(".wb-root");
    const follow = () => latest.current();
    root.addEventListener("scroll", follow, true);
    const observer = new ResizeObserver(follow);
    observer.observe(root);
    observer.observe(box.current);
    return () => {
      root.removeEventListener("scroll", follow, true);
      observer.disconnect();
    };
  }, []);
}

/** Takes the focus, and gives it back to where it was; also where somebody went into a popup that had not taken it. */
function useReturn(box, focus) {
  useLayoutEffect(() => {
    const element = box.current;
    const page = element.ownerDocument;
    const before = page.activeElement;
    if (focus) element.focus({ preventScroll: true });
    return () => {
      const lost = focus && page.activeElement === page.body;
      if (lost || element.contains(page.activeElement)) before?.focus?.({ preventScroll: true });
    };
  }, []);
}
