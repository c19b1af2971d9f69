/** All that a view needs of Preact, in one import. */
import { Component, createContext, h } from "preact";
import htm from "htm";

export { Component, createContext, Fragment, h, render } from "preact";
export {
  useCallback,
  useContext,
  useEffect,
  useId,
  useLayoutEffect,
  useMemo,
  useReducer,
  useRef,
  useState,
} from "preact/hooks";
export { batch, computed, effect, signal, untracked, useComputed, useSignal, useSignalEffect } from "@preact/signals";

/** Tagged template → vnodes. Text in `${…}` becomes text nodes, never markup. */
export const html = htm.bind(h);

/** The bench of this widget, for parts that need its theme or its root. */
export const BenchContext = createContext(null);

/** Class names, without the false ones. */
export const classes = (...names) => names.filter(Boolean).join(" ");

/** On every element that takes the focus: JupyterLab's own shortcuts (`a`, `b`, `d d`) keep away from it. */
export const QUIET_KEYS = { "data-lm-suppress-shortcuts": "true" };

/** Are two objects equal, field by field? */
export function shallowEqual(a, b) {
  const keys = Object.keys(a);
  return keys.length === Object.keys(b).length && keys.every((key) => Object.is(a[key], b[key]));
}

/** A component that renders again only when a prop changed (compared by identity, or by `equal`). */
export function memo(render, equal = shallowEqual) {
  return class Memo extends Component {
    shouldComponentUpdate(next) {
      return !equal(this.props, next);
    }
    render(props) {
      return h(render, props);
    }
  };
}
