"""Token text made safe and visible. Plotly reads ``<b>``, ``<br>``, links, entities and ``$…$`` in every label."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

QUIET = "#9aa1ab"  # marks that stand for white space, position numbers
_MARKS = {" ": "␣", "\n": "¶", "\r": "␍", "\t": "⇥", "\u00a0": "⍽"}
# Invisible, or able to turn the text around them: format, surrogate, private use, unassigned, line separators, control.
_UNSEEN = {"Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Cc"}
_RIGHT_TO_LEFT = {"R", "AL"}
_ISOLATE, _POP = "\u2068", "\u2069"


def visible(token: str, limit: int | None = None) -> str:
    r"""A token as text that shows all that is in it.

    Newline ``¶``, return ``␍``, tab ``⇥``, no-break space ``⍽``; a space at either end ``␣``, and all of two or more in
    a row; invisible characters as ``\u200b``; an accent without its letter on ``◌``; the empty text as ``∅``.

    Args:
        limit: at most this many characters, the last an ellipsis where more were there.
    """
    if not token:
        return "∅"
    # No token need be longer than what is shown of it, but for the marks of its end.
    shown = "".join(_character(token, i) for i in range(len(token) if limit is None else min(len(token), limit + 1)))
    if unicodedata.combining(token[0]):
        shown = "◌" + shown
    return shown if limit is None or len(shown) <= limit else shown[: max(limit - 1, 0)] + "…"


def _character(token: str, i: int) -> str:
    char = token[i]
    if char == " ":
        inside = 0 < i < len(token) - 1 and " " not in (token[i - 1], token[i + 1])
        return " " if inside else _MARKS[" "]
    if char in _MARKS:
        return _MARKS[char]
    if unicodedata.category(char) in _UNSEEN:
        return f"\\u{ord(char):04x}" if ord(char) < 0x10000 else f"\\U{ord(char):08x}"
    return char


def escape(text: str) -> str:
    """Any text as plotly markup that shows just that text: no tag, entity, link, line break or formula in it."""
    for char, entity in (("&", "&#38;"), ("<", "&#60;"), (">", "&#62;"), ("$", "&#36;"), ('"', "&#34;")):
        text = text.replace(char, entity)
    return text


def label(token: str, limit: int | None = 24, quiet_marks: bool = False) -> str:
    """A token as a plotly label: :func:`visible`, escaped, and kept from turning the text beside it around.

    Args:
        quiet_marks: print ``␣`` and ``¶`` in grey.
    """
    text = escape(visible(token, limit))
    if any(unicodedata.bidirectional(char) in _RIGHT_TO_LEFT for char in text):
        text = f"{_ISOLATE}{text}{_POP}"
    if not quiet_marks:
        return text
    for mark in _MARKS.values():
        text = text.replace(mark, f'<span style="color:{QUIET}">{mark}</span>')
    return text


def labels(tokens: Iterable[object], limit: int | None = 24, quiet_marks: bool = False) -> list[str]:
    """:func:`label` of each."""
    return [label(str(token), limit, quiet_marks) for token in tokens]


def position_labels(tokens: Iterable[object], positions: Iterable[object], limit: int = 18) -> list[str]:
    """Labels for an axis of tokens: the token, and its position in quiet small print."""
    return [
        f'{label(str(token), limit)} <span style="color:{QUIET};font-size:9px">{position}</span>'
        for token, position in zip(tokens, positions, strict=True)
    ]


def columns_of(text: str) -> int:
    """How many columns of a fixed-width font a text takes: East Asian characters and emoji two, accents none."""
    return sum(_columns(char) for char in text)


def _columns(char: str) -> int:
    if unicodedata.combining(char) or unicodedata.category(char) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1
