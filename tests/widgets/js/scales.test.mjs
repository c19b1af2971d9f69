import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import * as scales from "../../../workbench/widgets/js/src/draw/scales.js";

const STYLE = readFileSync(new URL("../../../workbench/figures/style.py", import.meta.url), "utf8");
const stops = (name) => [...new RegExp(`^${name} = \\[(.*)\\]`, "m").exec(STYLE)[1].matchAll(/#[0-9a-f]{6}/g)].map(([hex]) => hex);

test("light scales are those of the figures", () => {
  assert.deepEqual(scales.sequential("light").stops, stops("SEQUENTIAL"));
  assert.deepEqual(scales.diverging("light").stops, stops("DIVERGING"));
});

test("light roles and experts are those of the figures", () => {
  const [, names, hexes] = /^(BLUE, [A-Z, ]+) = \(([^)]*)\)/m.exec(STYLE);
  const colours = [...hexes.matchAll(/#[0-9a-f]{6}/g)].map(([hex]) => hex);
  const known = Object.fromEntries(names.split(", ").map((name, i) => [name, colours[i]]));
  const value = (text) => known[text] ?? text.replaceAll('"', "");
  for (const [, role, said] of /^ROLES = \{([^}]*)\}/m.exec(STYLE)[1].matchAll(/"([^"]+)": ([^,]+),/g)) {
    assert.equal(scales.roleColour(role, "light"), value(said));
  }
  const experts = /^EXPERTS = \(([^)]*)\)/m.exec(STYLE)[1].split(", ").map(value);
  experts.forEach((hex, i) => assert.equal(scales.expertColour(i, "light"), hex));
  assert.equal(scales.expertColour(experts.length, "light"), experts[0]);
});

test("the ends and the middle of a scale are its own colours, and values beyond it take the ends", () => {
  const scale = scales.sequential("light", 2, 4);
  assert.deepEqual(scale.rgb(2), scales.rgb("#ffffff"));
  assert.deepEqual(scale.rgb(4), scales.rgb("#24679f"));
  assert.deepEqual(scale.rgb(-9), scale.rgb(2));
  assert.deepEqual(scale.rgb(Infinity), scale.rgb(4));
  assert.deepEqual(scale.rgb(NaN), scales.rgb(scales.UNSEEN.light));
  const zero = scales.diverging("dark", 3).rgb(0);
  scales.rgb("#191e24").forEach((part, i) => assert.ok(Math.abs(part - zero[i]) <= 2));
});

test("text reads on every colour of every scale, on each theme", () => {
  for (const theme of ["light", "dark"]) {
    for (const scale of [scales.sequential(theme), scales.diverging(theme)]) {
      for (let i = 0; i <= 200; i++) {
        const colour = scale.rgb(scale.low + ((scale.high - scale.low) * i) / 200);
        assert.ok(scales.contrast(colour, scales.rgb(scales.inkOn(colour))) >= 4.5, `${theme} ${colour}`);
      }
    }
    for (let i = 0; i < 12; i++) {
      const colour = scales.rgb(scales.expertColour(i, theme));
      assert.ok(scales.contrast(colour, scales.rgb(scales.inkOn(colour))) >= 4.5);
    }
    assert.ok(scales.contrast(scales.rgb(scales.SOFT[theme]), scales.rgb(scales.PAPER[theme])) >= 4.5);
  }
});

test("luminance and contrast are those of WCAG", () => {
  assert.equal(scales.luminance([255, 255, 255]), 1);
  assert.equal(scales.luminance([0, 0, 0]), 0);
  assert.ok(Math.abs(scales.contrast([0, 0, 0], [255, 255, 255]) - 21) < 1e-9);
  assert.ok(Math.abs(scales.contrast([119, 119, 119], [255, 255, 255]) - 4.48) < 0.01); // #777, WCAG's own example
});

test("a robust limit ignores a few outliers and is never zero", () => {
  assert.equal(scales.robustLimit(Float32Array.from({ length: 1000 }, (_, i) => (i === 5 ? 1e6 : -1))), 1);
  assert.equal(scales.robustLimit([NaN, 0, 0]), 1);
  assert.equal(scales.robustLimit([]), 1);
});

test("numbers are written short", () => {
  assert.deepEqual([0, 0.12345, -3.14159, 1234.5, 0.00001, NaN, -Infinity].map((value) => scales.short(value)), [
    "0", "0.123", "−3.14", "1230", "1.0e-5", "none", "−∞",
  ]);
  assert.deepEqual([0, 1, 0.5, 0.1234, 0.00001, null].map(scales.percent), ["0%", "100%", "50%", "12.3%", "< 0.01%", "none"]);
  assert.deepEqual([-0, -1e-9, -2, 123456].map((value) => scales.short(value)), ["0", "−1.0e-9", "−2", "123000"]);
});

test("a share short of the whole never reads as all of it, nor one above nothing as none", () => {
  assert.deepEqual([0.99999, 1 - 2 ** -24, 0.9999, 0.99949, -0.99999, 1.00001].map(scales.percent), [
    "> 99.99%", "> 99.99%", "99.99%", "99.9%", "< −99.99%", "100%",
  ]);
  for (let i = 1; i < 2000; i++) {
    const share = i / 2000;
    for (const far of [share, share ** 9, 1 - share ** 9]) {
      if (far <= 0 || far >= 1) continue;
      assert.ok(!["0%", "100%"].includes(scales.percent(far)), `${far}: ${scales.percent(far)}`);
      assert.ok(!["0.000", "1.000"].includes(scales.portion(far)), `${far}: ${scales.portion(far)}`);
    }
  }
  assert.deepEqual([0, 1, 0.25, 0.0004, 0.9996, -0.0001, -0.9999, 2.5, NaN].map((value) => scales.portion(value)), [
    "0.000", "1.000", "0.250", "<0.001", ">0.999", ">−0.001", "<−0.999", "2.500", "none",
  ]);
  assert.deepEqual([0.996, -0.004, 1].map((r) => scales.portion(r, 2)), [">0.99", ">−0.01", "1.00"]);
});
