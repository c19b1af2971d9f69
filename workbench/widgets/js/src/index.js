/** What anywidget loads: one store for each widget, one tree for each place on the page where it is shown. */
import "./style.css";
import { App } from "./app.js";
import { html, render } from "./html.js";
import { Bench } from "./store.js";
import { watchSharpness, watchTheme } from "./theme.js";

/** While the live view is there, the static one beside it hides. */
function hideStatic(model) {
  const id = String(model.get("_static_id") ?? "");
  if (!/^[\w-]+$/.test(id)) return () => {};
  const style = document.createElement("style");
  style.textContent = `.wb-static-${id} { display: none }`;
  document.head.append(style);
  return () => style.remove();
}

/** anywidget calls this once for each widget. */
export default function widget() {
  /** @type {Bench|null} */
  let bench = null;
  return {
    initialize({ model }) {
      bench = new Bench(model);
      return () => bench?.close();
    },
    render({ model, el }) {
      bench ??= new Bench(model);
      const root = document.createElement("div");
      root.className = "wb-root";
      el.append(root);
      const showStatic = hideStatic(model);
      // Jupyter puts `el` on the page after this call: only then can the background round it be seen.
      const unwatch = watchTheme(root, (theme) => (bench.theme.value = theme));
      const unlook = watchSharpness(root, (sharpness) => (bench.sharpness.value = sharpness));
      const frame = requestAnimationFrame(() => unwatch.look());
      render(html`<${App} bench=${bench} />`, root);
      return () => {
        cancelAnimationFrame(frame);
        unwatch();
        unlook();
        render(null, root);
        root.remove();
        showStatic();
      };
    },
  };
}
