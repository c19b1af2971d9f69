import assert from "node:assert/strict";
import { test } from "node:test";
import * as drafts from "../../../workbench/widgets/js/src/shell/drafts.js";

const text = (name, said) => ({ name, kind: "text", text: said, messages: [], length: 3 });
const chat = (name, messages) => ({ name, kind: "chat", text: "", messages, length: 9 });

test("nothing is sent when nothing was changed", () => {
  const prompts = [text("clean", "a"), chat("corrupt", [{ role: "user", text: "b" }])];
  assert.equal(drafts.actionFor(prompts, prompts.map(drafts.draftOf)), null);
});

test("one changed prompt is sent alone, two changed or another number as all", () => {
  const prompts = [text("clean", "a"), text("corrupt", "b")];
  const [one, two] = prompts.map(drafts.draftOf);
  assert.deepEqual(drafts.actionFor(prompts, [one, { ...two, text: "c" }]), { kind: "prompt", name: "corrupt", text: "c" });
  assert.equal(drafts.actionFor(prompts, [{ ...one, text: "x" }, { ...two, text: "c" }]).kind, "pair");
  assert.deepEqual(drafts.actionFor(prompts, [one]), { kind: "pair", prompts: [{ name: "clean", text: "a" }] });
});

test("a system message keeps the fields that the editor does not show", () => {
  const system = { role: "system", identity: null, reasoning: "low", date: "2025-01-01", channels: ["final"], tools: [] };
  const draft = drafts.draftOf(chat("prompt", [system]));
  assert.deepEqual(drafts.sent(draft), { name: "prompt", messages: [system] });
});

test("editing a draft does not touch the state it came from", () => {
  const prompt = chat("prompt", [{ role: "user", text: "b" }]);
  drafts.draftOf(prompt).messages[0].text = "changed";
  assert.equal(prompt.messages[0].text, "b");
});

test("token ids are whole numbers or an error that names the one that is not", () => {
  assert.deepEqual(drafts.sent({ name: "p", kind: "tokens", text: " 1 2,3\n4 " }), { name: "p", tokens: [1, 2, 3, 4] });
  assert.throws(() => drafts.sent({ name: "p", kind: "tokens", text: "1 x" }), /"x"/);
});

test("text becomes a user's message and messages become text", () => {
  assert.deepEqual(drafts.withKind(drafts.draftOf(text("p", "Hi")), "chat").messages, [
    { role: "system", reasoning: "medium" }, // what the model is used to; a chat without one can be had by removing it
    { role: "user", text: "Hi" },
  ]);
  assert.equal(drafts.withKind(drafts.draftOf(chat("p", [{ role: "user", text: "Hi" }, { role: "assistant", text: "Yes" }])), "text").text, "Hi\nYes");
});

test("messages change their role, their place, and go", () => {
  assert.equal(drafts.withRole({ role: "user", text: "a" }, "assistant").channel, "final");
  assert.equal(drafts.withRole({ role: "user", text: "a" }, "tool").text, "a");
  assert.deepEqual(drafts.shifted([1, 2, 3], 0, 1), [2, 1, 3]);
  assert.deepEqual(drafts.shifted([1, 2, 3], 0, -1), [1, 2, 3]);
  assert.deepEqual(drafts.without([1, 2, 3], 1), [1, 3]);
});
