/** Hooks for views: data from Python, streams, options, sizes. */
import { useContext, useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import { BenchContext } from "./html.js";
import { Dropped } from "./wire.js";

let places = 0;
const NONE = { data: null, error: null, at: null, said: null };

/**
 * What Python's view answers to an ask. Asks again when the ask (by value) or the runs change; meanwhile the old data
 * stay, marked `stale`; `asked` is what they answer. `ask` null asks nothing and keeps nothing.
 * @returns {{ data: import("./wire.js").Data|null, asked: object|null, loading: boolean, stale: boolean, error: Error|null, again(): void }}
 */
export function useData(bench, view, ask, { slot = "main" } = {}) {
  const revision = bench.revision.value;
  const session = bench.session.value;
  const place = useRef("");
  place.current ||= `${view}/${slot}/${++places}`;
  const [tries, setTries] = useState(0);
  const [got, setGot] = useState(NONE);
  const asked = useMemo(() => (got.said === null ? null : JSON.parse(got.said)), [got.said]);
  const said = ask === null || ask === undefined ? null : JSON.stringify(ask);
  const wanted = said === null || revision === null ? null : `${session} ${tries} ${revision} ${view} ${said}`;
  useLayoutEffect(() => {
    if (wanted === null) return setGot(NONE);
    let live = true;
    const take = (change) => live && setGot((old) => ({ ...old, at: wanted, error: null, ...change }));
    bench.wire.ask(view, JSON.parse(said), place.current).then(
      (data) => take({ data, said }),
      (error) => error instanceof Dropped || take({ error }),
    );
    return () => {
      live = false;
      bench.wire.forget(place.current);
    };
  }, [wanted]);
  const loading = said !== null && got.at !== wanted;
  const data = said === null ? null : got.data;
  const error = loading ? null : got.error;
  return { data, asked, loading, stale: data !== null && (loading || error !== null), error, again: () => setTries(tries + 1) };
}

/** Calls `take(key, json, arrays)` for each message that Python streams to a view. */
export function useStream(bench, view, take) {
  const latest = useRef(take);
  latest.current = take;
  useLayoutEffect(() => bench.listen(view, (...message) => latest.current(...message)), [bench, view]);
}

/** One option of a view, kept in Python: [value, set]. */
export function useOption(bench, view, name, fallback) {
  const value = bench.state.value?.options?.[view]?.[name] ?? fallback;
  return [value, (fresh) => bench.option(view, { [name]: fresh })];
}

/** The inner size of an element in whole CSS pixels, kept up to date: { width, height }, 0 before it is laid out. */
export function useSize(ref) {
  const [size, setSize] = useState({ width: 0, height: 0 });
  useLayoutEffect(() => {
    const element = ref.current;
    if (!element) return undefined;
    const measure = () => {
      const fresh = { width: Math.floor(element.clientWidth), height: Math.floor(element.clientHeight) };
      setSize((old) => (old.width === fresh.width && old.height === fresh.height ? old : fresh));
    };
    measure();
    let frame = 0;
    const observer = new ResizeObserver(() => (frame = requestAnimationFrame(measure)));
    observer.observe(element);
    return () => {
      observer.disconnect();
      cancelAnimationFrame(frame);
    };
  }, []);
  return size;
}

/** The bench of this widget, in any component under it. */
export const useBench = () => useContext(BenchContext);

/** "light" or "dark". */
export const useTheme = () => useContext(BenchContext)?.theme.value ?? "light";

/** Device pixels to a CSS pixel: for whatever paints on a canvas. */
export const useSharpness = () => useContext(BenchContext)?.sharpness.value ?? 1;

/** Calls a function at most once in an animation frame, with its newest arguments; nothing after unmounting. */
export function useFrame(work) {
  const latest = useRef(work);
  latest.current = work;
  const frame = useRef(0);
  const ask = useRef(null);
  ask.current ??= () => {
    frame.current ||= requestAnimationFrame(() => {
      frame.current = 0;
      latest.current();
    });
  };
  useEffect(() => () => cancelAnimationFrame(frame.current), []);
  return ask.current;
}
