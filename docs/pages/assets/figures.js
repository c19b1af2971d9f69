// Draw a figure when it comes into view. Plotly lies beside this file and is loaded with the first figure.
"use strict";
const beside = new URL(".", document.currentScript.src);
let library = null;

function plotly() {
  library ??= new Promise((done, failed) => {
    const script = document.createElement("script");
    script.src = new URL("plotly.min.js", beside);
    script.onload = () => done(window.Plotly);
    script.onerror = failed;
    document.head.append(script);
  });
  return library;
}

async function draw(place) {
  const source = place.querySelector("script[type='application/json']");
  if (!source) return;
  const { data, layout } = JSON.parse(source.textContent);
  source.remove();
  const Plotly = await plotly();
  await Plotly.newPlot(place, data, layout, { displayModeBar: false, responsive: false });
}

const seen = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (!entry.isIntersecting) continue;
    seen.unobserve(entry.target);
    draw(entry.target);
  }
}, { rootMargin: "600px" });
document.querySelectorAll(".wb-plot").forEach((place) => seen.observe(place));
window.addEventListener("beforeprint", () => document.querySelectorAll(".wb-plot").forEach(draw));
