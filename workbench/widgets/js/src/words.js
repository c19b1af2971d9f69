/** Words that hide nothing: characters that cannot be seen, or that turn others around, by number. As names.py has it. */

const UNSEEN = /[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff]/gu;

/** @param {unknown} words @param {number} [limit] at most this many characters of them */
export function spelled(words, limit = Infinity) {
  const text = String(words);
  const cut = text.length > limit ? `${text.slice(0, limit)}…` : text;
  return cut.replace(UNSEEN, (char) => `\\u${char.codePointAt(0).toString(16).padStart(4, "0")}`);
}
