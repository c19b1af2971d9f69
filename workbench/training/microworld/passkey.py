"""Passkeys: a number to remember across text that says nothing, near or far."""

import random

from .document import Document, Question, answer, context
from .stories import filler
from .words import TWO_DIGITS

KEYS = TWO_DIGITS[10:]  # 10 … 99: chance is one in ninety
STATEMENTS = (" The passkey is", " Remember that the passkey is", " Keep the passkey, it is")
ASK = " What is the passkey? The passkey is"
ASK_NEAR = " The passkey is"


def prompt(rng: random.Random, key: str, before: int, between: int, ask: str = ASK) -> str:
    """Filler sentences, the passkey, filler sentences, the question: all but the answer."""
    lead = "".join(filler(rng) for _ in range(before)).lstrip() or "Read this."
    gap = "".join(filler(rng) for _ in range(between))
    return f"{lead}{rng.choice(STATEMENTS)} {key}.{gap}{ask}"


def document(rng: random.Random, most: int = 26) -> Document:
    """A passkey asked for again at any distance; ``most`` filler sentences (about seven tokens each) in all."""
    total = rng.randint(0, most)
    between = rng.choice((0, 0, rng.randint(0, total), total))
    key = rng.choice(KEYS)
    ask = rng.choice((ASK, ASK_NEAR))
    return Document(
        "passkey",
        "passkey",
        (context(prompt(rng, key, total - between, between, ask)), answer(f" {key}"), context(".")),
    )


def question(rng: random.Random, far: bool = True) -> Question:
    """Far: 14 to 22 filler sentences between (at least 84 tokens). Near: none between, as many before."""
    key, wrong = rng.sample(KEYS, 2)
    count = rng.randint(14, 22)
    text = prompt(rng, key, 2, count) if far else prompt(rng, key, count, 0, ASK_NEAR)
    return Question("passkey", "passkey far" if far else "passkey near", text, f" {key}", f" {wrong}")


def near_question(rng: random.Random) -> Question:
    """The in-window control."""
    return question(rng, far=False)
