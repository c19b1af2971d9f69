/** What the steering view says about its numbers. Pure: no DOM. */

export const DIRECTIONS = [["difference", "difference of means"], ["token", "token"], ["expert", "expert"], ["head", "head"], ["vector", "file or saved"]];
export const SITES = [
  ["resid_pre", "stream before the layer"], ["resid_mid", "stream between attention and experts"], ["resid_post", "stream after the layer"],
  ["attn_out", "what attention writes"], ["mlp_out", "what the experts write"],
]; // prettier-ignore
export const WHERE = [["all", "all tokens"], ["selected", "selected tokens"], ["generated", "last token and generated"]];
export const LENGTHS = [8, 16, 24, 48, 96, 192];
export const TEXTS = [["default", "Default"], ["steered", "Steered"], ["control", "Random direction"]];
export const ENDINGS = ".safetensors,.npy,.json";

/** How long scale × vector is, as a share of what stands at the site. */
export const shareOf = ({ norm, stream }, scale) => (stream > 0 ? (Math.abs(scale) * norm) / stream : NaN);

/** The step of a slider from −reach to reach: a hundredth of it. */
export const stepOf = (reach) => reach / 100;

/** A number that was typed for the scale; null for what is none. */
export function typed(text) {
  const value = Number(text.replace("−", "-").replace(",", ".").trim());
  return text.trim() !== "" && Number.isFinite(value) && Math.abs(value) < 1e9 ? value : null;
}

/** How the vector's KL stands among those of the random directions: their range, and p with one for itself. */
export function against(kl, controls) {
  if (!controls?.length) return null;
  const larger = controls.filter((value) => value >= kl).length;
  return { low: Math.min(...controls), high: Math.max(...controls), p: (1 + larger) / (1 + controls.length), n: controls.length };
}

/** A share of an axis that ends at `most`. */
export const place = (value, most) => (most > 0 ? Math.max(0, Math.min(1, value / most)) : 0);

/** Bytes as base64, in pieces that a call takes. */
export function base64(bytes) {
  let made = "";
  for (let i = 0; i < bytes.length; i += 0x8000) made += String.fromCharCode(...bytes.subarray(i, i + 0x8000));
  return btoa(made);
}

/** How many tokens differ, in words. */
export function differences(differs, total) {
  const n = differs.reduce((sum, one) => sum + one, 0);
  if (!total) return "";
  return n ? `${n} of ${total} tokens differ` : "the same";
}
