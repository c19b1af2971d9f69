"""What a lesson says: small panels, the same in every theme, and readable as plain text."""

from __future__ import annotations

import re
from html import escape
from typing import Literal

Tone = Literal["right", "not yet", "note"]

# Colour never says it alone: each has a mark and a word.
COLOURS: dict[Tone, str] = {"right": "#2a9d60", "not yet": "#d97706", "note": "#5b7fbf"}
MARKS: dict[Tone, str] = {"right": "✓", "not yet": "✗", "note": "›"}
BOX = "border-left: 4px solid {}; padding: .35em .9em; margin: .4em 0; max-width: 48em; line-height: 1.45"


class Panel:
    """A headline and some lines under it.

    Args:
        tone: "right", "not yet" or "note".
        head, lines: plain text; `code`, **bold**, *italic* and nothing else is marked up, all else is escaped.
    """

    def __init__(self, tone: Tone, head: str, *lines: str) -> None:
        self.tone: Tone = tone
        self.head, self.lines = head, tuple(line for line in lines if line)

    def _repr_html_(self) -> str:
        head = f'<b style="color: {COLOURS[self.tone]}">{MARKS[self.tone]}</b> <b>{marked_up(self.head)}</b>'
        rest = "".join(f'<div style="margin-top: .2em">{marked_up(line)}</div>' for line in self.lines)
        return f'<div class="wb-lesson" role="status" style="{BOX.format(COLOURS[self.tone])}">{head}{rest}</div>'

    def __repr__(self) -> str:
        return "\n  ".join([f"{MARKS[self.tone]} {self.head}", *self.lines])


def marked_up(text: str) -> str:
    """Escaped, with `code`, **bold**, *italic* and line breaks."""
    text = escape(text)
    text = re.sub(r"`([^`]+)`", r"<code>\1</code>", text)
    text = re.sub(r"\*\*([^*]+)\*\*", r"<b>\1</b>", text)
    text = re.sub(r"(?<![\w*])\*(?=\S)([^*\n]+)(?<=\S)\*(?![\w*])", r"<i>\1</i>", text)
    return text.replace("\n", "<br>")
