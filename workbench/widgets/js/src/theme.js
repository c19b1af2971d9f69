/** Light or dark: asks the notebook around us, never the operating system. */

/** Relative luminance of a CSS colour "rgb(…)", 0 black to 1 white; null where it is see-through or unreadable. */
export function luminanceOf(css) {
  const parts = /^rgba?\(([\d.]+)[ ,]+([\d.]+)[ ,]+([\d.]+)(?:[ ,/]+([\d.]+))?/.exec(css ?? "");
  if (!parts || (parts[4] !== undefined && Number(parts[4]) < 0.5)) return null;
  const [red, green, blue] = parts.slice(1, 4).map((part) => {
    const share = Number(part) / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}

/** The first background that is not see-through, from an element outwards. */
function background(element) {
  for (let at = element; at; at = at.parentElement) {
    const light = luminanceOf(getComputedStyle(at).backgroundColor);
    if (light !== null) return light;
  }
  return 1;
}

/** @returns {"light"|"dark"} */
export function themeOf(/** @type {Element} */ element) {
  const { body, documentElement } = element.ownerDocument;
  const lab = body.dataset.jpThemeLight; // JupyterLab, Notebook 7
  if (lab) return lab === "true" ? "light" : "dark";
  const colab = documentElement.getAttribute("theme");
  if (colab) return colab === "dark" ? "dark" : "light";
  const code = `${body.dataset.vscodeThemeKind ?? ""} ${body.className}`;
  if (/vscode-high-contrast-light|vscode-light/.test(code)) return "light";
  if (/vscode-(dark|high-contrast)/.test(code)) return "dark";
  return background(element.parentElement ?? element) < 0.25 ? "dark" : "light";
}

/**
 * Calls `change` with the number of device pixels to a CSS pixel, now and whenever it becomes another: the page is
 * zoomed, or dragged to another screen. Returns a function that stops it.
 */
export function watchSharpness(element, change) {
  const view = element.ownerDocument.defaultView;
  let query = null;
  const look = () => {
    query?.removeEventListener("change", look);
    query = view.matchMedia(`(resolution: ${view.devicePixelRatio}dppx)`);
    query.addEventListener("change", look);
    change(view.devicePixelRatio || 1);
  };
  look();
  view.addEventListener("resize", look); // a zoom is always one; a query alone is not told of every change
  return () => {
    query.removeEventListener("change", look);
    view.removeEventListener("resize", look);
  };
}

/** Calls `change` with the theme now and whenever the notebook's changes. Returns a function that stops it; its `look`
 * looks again. */
export function watchTheme(element, change) {
  const { body, documentElement } = element.ownerDocument;
  const look = () => change(themeOf(element));
  const observer = new MutationObserver(look);
  observer.observe(body, { attributes: true });
  observer.observe(documentElement, { attributes: true });
  look();
  return Object.assign(() => observer.disconnect(), { look });
}
