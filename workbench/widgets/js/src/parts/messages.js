/** What stands where data would: nothing yet, on the way, gone wrong. */
import { BenchContext, Component, QUIET_KEYS, html, useContext } from "../html.js";

/** Why there is nothing here, and what to do about it. */
export function Empty({ children, title }) {
  return html`<div class="wb-message" role="note">
    ${title && html`<strong>${title}</strong>`}<span>${children}</span>
  </div>`;
}

/** Whether this is why there is no run at all: the shell says so once, at the top, for every view. */
function useSaidAbove(error) {
  const bench = useContext(BenchContext);
  return Boolean(error) && bench?.state.value?.error === (error.message ?? error);
}

/** What went wrong, in words. @param {{ error: Error|string, again?: () => void, first?: boolean }} props first: the shell's own */
export function Failure({ error, again, first = false }) {
  const above = useSaidAbove(error);
  if (above && !first) return html`<${Empty}>There is no run to show: why is said at the top.</${Empty}>`;
  return html`<div class="wb-message wb-failure" role="alert">
    <span><strong>Error:</strong> ${typeof error === "string" ? error : error.message}</span>
    ${again && html`<button type="button" class="wb-button" onClick=${again} ...${QUIET_KEYS}>Try again</button>`}
  </div>`;
}

/** On its way. Appears only after a moment, so that quick answers do not flicker. */
export function Loading({ children = "Computing…", height }) {
  return html`<div class="wb-message wb-loading" role="status" style=${height ? { minHeight: `${height}px` } : {}}>
    <span class="wb-spinner" aria-hidden="true"></span><span>${children}</span>
  </div>`;
}

/**
 * The usual frame of a view's data: Loading, Failure or its content; the content dims while it is out of date.
 * @param {{ got: ReturnType<typeof import("../hooks.js").useData>, children: (data: object) => unknown }} props
 */
export function Ready({ got, children, height }) {
  const { data, error, again, stale } = got;
  const gone = useSaidAbove(error); // then what was there is of another run
  if (!data || gone) return error ? html`<${Failure} error=${error} again=${again} />` : html`<${Loading} height=${height} />`;
  return html`<div class=${stale ? "wb-ready wb-stale" : "wb-ready"} aria-busy=${got.loading ? "true" : "false"}>
    ${error && html`<${Failure} error=${error} again=${again} />`}${children(data)}
  </div>`;
}

/** Keeps a mistake in one view from taking down the others. */
export class Guard extends Component {
  state = { error: null };
  componentDidCatch(error) {
    console.error(error);
    this.setState({ error });
  }
  render({ children, name }, { error }) {
    if (!error) return children;
    const words = `the ${name} view stopped: ${error.message}`;
    return html`<${Failure} error=${words} again=${() => this.setState({ error: null })} />`;
  }
}
