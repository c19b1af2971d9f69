"""Repeats: words in a random order, told again (the token form, over the whole vocabulary, is in ``encoding.py``)."""

import random

from .document import Document, Question, answer, context, other
from .words import ADJECTIVES, ARGUMENTS, PLACES, THINGS

WORDS = PLACES + THINGS + ADJECTIVES + ARGUMENTS


def document(rng: random.Random, most: int = 30) -> Document:
    """A list of four to ``most`` words, twice."""
    words = "".join(f" {rng.choice(WORDS)}" for _ in range(rng.randint(4, most)))
    first, rest = words[1:].split(" ", 1)
    return Document(
        "repeats",
        "repeated words",
        (context(f"List: {first} {rest}. Again: {first}"), answer(f" {rest}"), context(".")),
    )


def question(rng: random.Random) -> Question:
    """The next word of a list told again."""
    words = rng.sample(WORDS, rng.randint(6, 30))
    cut = rng.randrange(1, len(words))
    prompt = f"List: {' '.join(words)}. Again: {' '.join(words[:cut])}"
    return Question("repeats", "repeated words", prompt, f" {words[cut]}", f" {other(rng, words, words[cut])}")
