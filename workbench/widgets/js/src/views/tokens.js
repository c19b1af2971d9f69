/** The text: each token on the colour of its role, or of a number that it has. */
import { html, useMemo } from "../html.js";
import { rgb, roleColour, scaleFor, short, tint } from "../draw/scales.js";
import { useData, useOption, useTheme } from "../hooks.js";
import { Empty, Key, Legend, Ready, Select, TokenStrip } from "../parts/index.js";

const MARKER = /^<\|.*\|>$/s; // harmony's own tokens: small, without a background

/** Is a token one of harmony's markers? One number a token. */
export const markers = (tokens) => Uint8Array.from(tokens, (token) => (MARKER.test(token) ? 1 : 0));

/** The words of one token: text, position, id, role, and each number that it has. */
export function words({ json, arrays }, i) {
  const parts = [`${json.tokens[i]}`, `position ${i}`, `id ${json.ids[i]}`];
  if (json.roles[i]) parts.push(json.roles[i].replaceAll("/", " · "));
  for (const { name, title } of json.values) {
    if (Number.isFinite(arrays[name][i])) parts.push(`${title}: ${short(arrays[name][i])}`);
  }
  return parts.join("\n");
}

/** What shades the tokens: { scale, fill } of a number, or of the roles. */
function shading({ json, arrays }, colour, theme) {
  const value = json.values.find((each) => each.name === colour);
  if (value) {
    const scale = scaleFor(value, theme);
    return { value, scale, fill: (i) => (Number.isNaN(arrays[value.name][i]) ? null : scale.rgb(arrays[value.name][i])) };
  }
  const tints = new Map(json.bands.map(({ name }) => [name, name && tint(rgb(roleColour(name, theme)), theme === "light" ? 0.18 : 0.3, theme)]));
  return { value: null, scale: null, fill: (i) => (MARKER.test(json.tokens[i]) ? null : tints.get(json.roles[i]) || null) };
}

/** The strip itself, linked to the selection. */
export function LinkedStrip({ bench, data, colour, maxHeight }) {
  const theme = useTheme();
  const { json } = data;
  const small = useMemo(() => markers(json.tokens), [json.tokens]);
  const bands = useMemo(() => json.bands.filter((band) => band.name), [json.bands]);
  const { fill } = useMemo(() => shading(data, colour, theme), [data, colour, theme]);
  const describe = useMemo(() => (i) => words(data, i), [data]);
  const { position, span } = bench.selection.value;
  return html`<${TokenStrip} ...${{ small, bands, fill, describe, span, maxHeight }} tokens=${json.tokens}
    label="tokens" selected=${position} hovered=${bench.hover.value?.position ?? null}
    onHover=${(i) => (bench.hover.value = i === null ? null : { position: i })}
    onSelect=${(i) => bench.select({ position: i })} onClear=${() => bench.select({ position: null, span: null })}
    onRange=${(range) => bench.select({ span: range })} />`;
}

/** What the colours stand for, and the choice of them. */
export function Colouring({ bench, data }) {
  const theme = useTheme();
  const [colour, setColour] = useOption(bench, "tokens", "colour", "role");
  const { value, scale } = shading(data, colour, theme);
  const options = [["role", "role and channel"], ...data.json.values.map(({ name, title }) => [name, title])];
  const roles = [...new Set(data.json.bands.map(({ name }) => name).filter(Boolean))];
  return html`<${Select} label="Colour" value=${options.some(([name]) => name === colour) ? colour : "role"} options=${options} onChange=${setColour} />
    ${value
      ? html`<${Legend} scale=${scale} title=${value.title} hideTitle />`
      : html`<${Key} items=${roles.map((name) => ({ name: name.replaceAll("/", " · "), colour: roleColour(name, theme) }))} />`}`;
}

/** The selected token in words. */
function Chosen({ bench, data }) {
  const { position, span } = bench.selection.value;
  const known = position !== null && position < data.json.tokens.length;
  if (!known && !span) return html`<p class="wb-note">Click a token to select it, shift-click for a range; arrow keys move.</p>`;
  return html`<p class="wb-note">
    ${span && html`<span>positions ${span[0]} to ${span[1] - 1}</span>`}
    ${known && words(data, position).split("\n").map((part, i) => html`<span key=${i} class=${i ? "" : "wb-strong"}><bdi>${part}</bdi></span>`)}
  </p>`;
}

/**
 * @param {{ bench: import("../store.js").Bench, compact?: boolean, before?: unknown }} props
 *   compact: above the other views, in the shell, with what stands `before` the choice of colours
 */
function View({ bench, compact = false, before = null }) {
  const got = useData(bench, "tokens", {}, { slot: compact ? "strip" : "view" });
  const [colour] = useOption(bench, "tokens", "colour", "role");
  return html`<div class="wb-tokens">
    <div class="wb-bar-line">${before}${got.data && html`<${Colouring} bench=${bench} data=${got.data} />`}</div>
    <${Ready} got=${got} height=${58}>${(data) =>
      data.json.tokens.length === 0
        ? html`<${Empty}>The text is empty.</${Empty}>`
        : html`<${LinkedStrip} ...${{ bench, data, colour }} maxHeight=${compact ? 166 : 490} />
            ${compact ? null : html`<${Chosen} bench=${bench} data=${data} />`}`}</${Ready}>
  </div>`;
}

export default { name: "tokens", title: "Tokens", View };
