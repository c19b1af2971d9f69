"""Indirect objects: who receives, when two are named and one of them gives."""

import random

from .document import Document, Question, answer, context, draw
from .words import PEOPLE, PLACES, THINGS

FORMS = (
    "When {a} and {b} went to the {place}, {giver} {gave} a {thing} to",
    "After {a} and {b} came to the {place}, {giver} {gave} the {thing} to",
    "Then {a} and {b} sat in the {place}, and {giver} {gave} a {thing} to",
    "While {a} and {b} were at the {place}, {giver} {gave} the {thing} to",
    "One day {a} and {b} walked to the {place}. Soon {giver} {gave} a {thing} to",
)
GIVING = ("gave", "handed", "passed", "showed")


def _scene(rng: random.Random, held: bool) -> tuple[str, str, str]:
    """(prompt, receiver, giver); in evaluation the two names were never together in training."""
    a, b = draw(lambda: rng.sample(PEOPLE, 2), lambda pair: ("names", *sorted(pair)), held)
    giver, receiver = rng.sample((a, b), 2)
    words = {"place": rng.choice(PLACES), "thing": rng.choice(THINGS), "gave": rng.choice(GIVING)}
    return rng.choice(FORMS).format(a=a, b=b, giver=giver, **words), receiver, giver


def document(rng: random.Random) -> Document:
    """One or two scenes."""
    segments = []
    for i in range(rng.randint(1, 2)):
        prompt, receiver, _ = _scene(rng, held=False)
        segments += [context(" " * bool(i) + prompt), answer(f" {receiver}"), context(".")]
    return Document("names", "indirect object", tuple(segments))


def question(rng: random.Random) -> Question:
    """Who receives? The wrong answer is the giver."""
    prompt, receiver, giver = _scene(rng, held=True)
    return Question("names", "indirect object", prompt, f" {receiver}", f" {giver}")
