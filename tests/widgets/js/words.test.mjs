import assert from "node:assert/strict";
import { test } from "node:test";
import { spelled } from "../../../workbench/widgets/js/src/words.js";

test("characters that hide, or turn others around, are spelled; all others stay", () => {
  assert.equal(spelled("a\u202eb\u200b\u0007\ud800c\ufeff"), "a\\u202eb\\u200b\\u0007\\ud800c\\ufeff");
  for (const text of ["<b>&\"'", "größe 東京 👍 مرحبا", "two\nlines\tand a tab"]) assert.equal(spelled(text), text);
});

test("long words are cut before they are spelled", () => {
  assert.equal(spelled("x".repeat(500), 4), "xxxx…");
  assert.equal(spelled(12), "12");
});
