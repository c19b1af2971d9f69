"""Nested, matched brackets of three kinds."""

import random

from .document import Document, Question, Segment, answer, context, draw, other

PAIRS = {"(": ")", "[": "]", "{": "}"}
CLOSERS = tuple(PAIRS.values())


def _walk(rng: random.Random, length: int) -> tuple[str, list[str]]:
    """A random prefix of ``length`` brackets, and the openers still open; at least one is."""
    text, stack = "", []
    for _ in range(length):
        closes = bool(stack) and rng.random() < 0.45
        leaves_one = len(stack) > 1 or len(text) < length - 1
        if len(stack) == 6 or (closes and leaves_one):
            text += PAIRS[stack.pop()]
        else:
            stack.append(rng.choice("([{"))
            text += stack[-1]
    return text, stack


def document(rng: random.Random) -> Document:
    """A few lines of matched brackets, each closing bracket an answer."""
    segments: list[Segment] = []
    for _ in range(rng.randint(1, 4)):
        text, stack = draw(lambda: _walk(rng, rng.randint(2, 20)), lambda walk: ("brackets", walk[0]), False)
        text += "".join(PAIRS[opener] for opener in reversed(stack))
        segments += [answer(c) if c in CLOSERS else context(c) for c in text]
        segments.append(context("\n"))
    return Document("brackets", "brackets", tuple(segments))


def question(rng: random.Random) -> Question:
    """Which bracket closes? Scored among the three closing brackets, since an opening one may always follow."""
    text, stack = draw(lambda: _walk(rng, rng.randint(4, 20)), lambda walk: ("brackets", walk[0]), True)
    right = PAIRS[stack[-1]]
    return Question("brackets", "brackets", text, right, other(rng, CLOSERS, right))
