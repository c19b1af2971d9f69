/** What the panel says, from what Python found. Pure; see the tests. */

/** "3 of 24". */
export const share = (count, of) => `${count} of ${of}`;

/** All flipped routes. */
export const total = (counts) => counts.reduce((sum, count) => sum + count, 0);

/** What the two texts have come to, in words. */
export function verdict({ before, after, first, done }) {
  if (!before.tokens.length && !after.tokens.length) return "";
  if (first !== null) return `they part at token ${first + 1}`;
  if (!done) return "the same so far";
  return before.tokens.length === after.tokens.length ? "both are the same" : "one is longer";
}

/** Pieces of a text for the screen: { text, marker, differs } each, a line ending after each newline. */
export function pieces({ tokens, differs }) {
  return tokens.map((text, i) => ({ text, marker: /^<\|.*\|>$/s.test(text), differs: Boolean(differs[i]), ends: text.endsWith("¶") }));
}

/** Where the numbers are asked for: the end of the span, the position, or null for the last. */
export const positionOf = ({ position, span }) => (span ? span[1] - 1 : position);
