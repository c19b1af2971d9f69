/** Stands in for a view that is not in this bundle (see build.mjs --only). */
import { html } from "./html.js";
import { Empty } from "./parts/messages.js";

/** @returns {{ name: string, title: string, View: Function }} */
export function placeholder(name) {
  const words = name.replaceAll("_", " ");
  const title = words[0].toUpperCase() + words.slice(1);
  return { name, title, View: () => html`<${Empty}>The ${words} view is not in this bundle.</${Empty}>` };
}
