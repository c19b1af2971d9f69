"""Years that must come later, and small sums."""

import random

from .document import Document, Question, Segment, answer, context, draw, other
from .words import EVENTS, TWO_DIGITS

LARGEST_SUM = 30


def _years(rng: random.Random, held: bool) -> tuple[str, int, int]:
    """(event, century, year in it); in evaluation a combination that training never showed."""
    return draw(
        lambda: (rng.choice(EVENTS), rng.randint(11, 19), rng.randint(2, 97)), lambda drawn: ("years", *drawn), held
    )


def years_document(rng: random.Random) -> Document:
    """One to three events with a first and a last year of one century."""
    segments: list[Segment] = []
    for i in range(rng.randint(1, 3)):
        event, century, start = _years(rng, held=False)
        end = rng.randint(start + 1, 99)
        text = f"The {event} lasted from {century}{start:02d} to {century}"
        segments += [context(" " * bool(i) + text), answer(f"{end:02d}"), context(".")]
    return Document("years", "greater-than", tuple(segments))


def years_question(rng: random.Random) -> Question:
    """Any later year of the century is right: the answer is one of them, the wrong answer an earlier one."""
    event, century, start = _years(rng, held=True)
    text = f"The {event} lasted from {century}{start:02d} to {century}"
    later, earlier = rng.choice(TWO_DIGITS[start + 1 :]), rng.choice(TWO_DIGITS[: start + 1])
    return Question("years", "greater-than", text, later, earlier)


def _sum(rng: random.Random, held: bool) -> tuple[int, int]:
    return draw(lambda: _any_sum(rng), lambda pair: ("sum", *pair), held)


def _any_sum(rng: random.Random) -> tuple[int, int]:
    a = rng.randint(0, LARGEST_SUM)
    return a, rng.randint(0, LARGEST_SUM - a)


def sums_document(rng: random.Random) -> Document:
    """Two to eight sums, one a line."""
    segments: list[Segment] = []
    for _ in range(rng.randint(2, 8)):
        a, b = _sum(rng, held=False)
        segments += [context(f"{a}+{b}="), answer(f"{a + b}"), context("\n")]
    return Document("sums", "sums", tuple(segments))


def sums_question(rng: random.Random) -> Question:
    """A sum of two numbers never added in this order in training."""
    a, b = _sum(rng, held=True)
    wrong = other(rng, [n for n in range(LARGEST_SUM + 1) if (n < 10) == (a + b < 10)], a + b)
    return Question("sums", "sums", f"{a}+{b}=", f"{a + b}", f"{wrong}")
