/** The text under the pattern: where one token looks, or who looks at it. */
import { html, useMemo } from "../../html.js";
import { css, inkOn, percent, short } from "../../draw/scales.js";
import { useData } from "../../hooks.js";
import { Failure, Segmented, TokenLabel, TokenStrip } from "../../parts/index.js";
import { SINK } from "./geometry.js";
import { largest, lineOf, markers } from "./numbers.js";

/** The line: worked out here where the whole pattern is here, else asked for. */
function useLine(bench, { about, values, sink, position, direction, change }) {
  const whole = about.block === 1;
  const { layer, head, n } = about;
  const ask = whole ? null : { what: "line", layer, head, position, direction, change };
  const got = useData(bench, "attention", ask, { slot: "line" });
  const mine = useMemo(() => {
    if (!whole) return null;
    const line = lineOf(values, n, position, direction);
    return { position, values: line, top: largest(line), sink: direction === "out" ? sink[position] : null };
  }, [whole, values, position, direction]);
  // Meanwhile the line of the token before stands there, under its own name; never another head's.
  const same = got.asked && ["layer", "head", "direction", "change"].every((name) => got.asked[name] === ask?.[name]);
  const asked = got.data && same ? { ...got.data.json, values: got.data.arrays.values } : null;
  return { line: mine ?? asked, error: got.error, again: got.again };
}

/** A change of a share, from −1 to 1. */
const signed = (value) => (value > 0 ? "+" : "") + (value ? short(value, 2) : "0");

/** The strongest of a line, to choose. */
function Strongest({ line, tokens, colour, direction, amount, choose }) {
  const others = direction === "out" ? "keys" : "queries";
  return html`<div class="wb-attention-top"><span class="wb-label">Top ${others}</span>
    ${line.sink !== null && html`<button type="button" class="wb-attention-key" data-lm-suppress-shortcuts="true" onClick=${() => choose(SINK)}
      title="the sink"><i>sink</i> <span class="wb-number">${amount(line.sink)}</span></button>`}
    ${line.top.map(({ position, value }) => html`<button type="button" key=${position} class="wb-attention-key" data-lm-suppress-shortcuts="true"
      onClick=${() => choose(position)} title=${`${tokens[position]}, position ${position}`}>
      <${TokenLabel} text=${tokens[position] ?? ""} limit=${14} /> <span class="wb-label">${position}</span>
      <span class="wb-attention-share" style=${{ background: css(colour.rgb(value)), color: inkOn(colour.rgb(value)) }}>${amount(value)}</span></button>`)}
  </div>`;
} // prettier-ignore

/**
 * @param {{ bench: object, about: object, values: Float32Array, sink: Float32Array, tokens: string[], colour: object,
 *   direction: string, setDirection(value: string): void, position: number, change: boolean, chooseEdge(query: number, key: number): void }} props
 */
export function Line(props) {
  const { bench, tokens, colour, direction, setDirection, change, chooseEdge, about } = props;
  const { line, error, again } = useLine(bench, props);
  const position = line?.position ?? props.position;
  const amount = change ? signed : percent;
  const small = useMemo(() => markers(tokens), [tokens]);
  const fill = useMemo(() => {
    const values = line?.values;
    return (i) => (values && values[i] ? colour.rgb(values[i]) : null);
  }, [line, colour]);
  const describe = useMemo(() => {
    const what = change ? "change of attention" : "attention";
    const side = direction === "out" ? `from ${position}` : `to ${position}`;
    return (i) => `${tokens[i]}\nposition ${i}${line ? `\n${what} ${side}: ${amount(line.values[i])}` : ""}`;
  }, [line, tokens, direction, change, position]);
  const chosen = bench.selection.value.position;
  const words = direction === "out" ? "looks at" : "is looked at by";
  return html`<div class="wb-attention-line">
    <div class="wb-bar-line">
      <${Segmented} label="Attention" value=${direction} options=${[["out", "out of"], ["in", "into"]]} onChange=${setDirection} />
      <span class="wb-note wb-attention-of"><span><${TokenLabel} text=${tokens[position] ?? ""} /> at position ${position} ${words} the coloured tokens</span>
        ${direction === "out" && line && html`<span>${change ? `the sink’s share changes by ${amount(line.sink)}` : `${amount(line.sink)} on the sink`}</span>`}</span>
    </div>
    ${error && html`<${Failure} error=${error} again=${again} />`}
    <${TokenStrip} tokens=${tokens} small=${small} fill=${fill} describe=${describe} maxHeight=${166}
      label=${`attention ${direction === "out" ? "out of" : "into"} token ${position}, head ${about.head} of layer ${about.layer}`}
      selected=${chosen} hovered=${bench.hover.value?.position ?? null}
      onHover=${(i) => (bench.hover.value = i === null ? null : { position: i })}
      onSelect=${(i) => bench.select({ position: i, key: null })} onClear=${() => bench.select({ position: null, key: null })} />
    ${line && (chosen !== null || about.n <= 64) && html`<${Strongest} ...${{ line, tokens, colour, direction, amount }}
      choose=${(other) => (direction === "out" ? chooseEdge(line.position, other) : chooseEdge(other, line.position))} />`}
  </div>`;
} // prettier-ignore
