"""Three dialects with the same words and different grammars.

| dialect | order               | adjective       | last word agrees with            |
|---------|---------------------|-----------------|----------------------------------|
| north   | subject verb object | before its noun | the subject                      |
| south   | subject object verb | after its noun  | the object                       |
| east    | verb subject object | after its noun  | the subject, one class further   |

No word tells the dialect (a header does in one document of five): the order does.
"""

import random
from collections.abc import Sequence

from .document import Document, Question, Segment, answer, context, draw, other
from .words import DIALECT_ADJECTIVES, DIALECT_NOUNS, DIALECT_PARTICLES, DIALECT_VERBS

DIALECTS = ("north", "south", "east")
_NOUNS = tuple((noun, kind) for kind, nouns in enumerate(DIALECT_NOUNS) for noun in nouns)


def _nouns(rng: random.Random, held: bool) -> Sequence[tuple[str, int]]:
    return draw(lambda: rng.sample(_NOUNS, 2), lambda pair: ("dialect", pair[0][0], pair[1][0]), held)


def _phrase(rng: random.Random, noun: str, dialect: str) -> str:
    if rng.random() < 0.7:
        return f" {noun}"
    adjective = rng.choice(DIALECT_ADJECTIVES)
    return f" {adjective} {noun}" if dialect == "north" else f" {noun} {adjective}"


def sentence(rng: random.Random, dialect: str, held: bool = False) -> tuple[str, str]:
    """(all but the last word, the particle that must end it), both with leading spaces."""
    (subject, subject_class), (thing, object_class) = _nouns(rng, held)
    s, o, v = _phrase(rng, subject, dialect), _phrase(rng, thing, dialect), f" {rng.choice(DIALECT_VERBS)}"
    text = {"north": s + v + o, "south": s + o + v, "east": v + s + o}[dialect]
    kind = {"north": subject_class, "south": object_class, "east": (subject_class + 1) % 3}[dialect]
    return text, f" {DIALECT_PARTICLES[kind]}"


def _opening(rng: random.Random, dialect: str) -> str:
    return f"Say as in the {dialect}:" if rng.random() < 0.2 else "Say:"


def document(rng: random.Random) -> Document:
    """Two to six sentences of one dialect."""
    dialect = rng.choice(DIALECTS)
    segments: list[Segment] = [context(_opening(rng, dialect))]
    for _ in range(rng.randint(2, 6)):
        text, particle = sentence(rng, dialect)
        segments += [context(text), answer(particle), context(".")]
    return Document(f"dialect {dialect}", f"dialect {dialect}", tuple(segments))


def question(rng: random.Random, dialect: str | None = None) -> Question:
    """The agreeing particle of a sentence whose two nouns never met in training; no header."""
    dialect = dialect or rng.choice(DIALECTS)
    text = "Say:"
    for _ in range(rng.randint(0, 3)):
        text += "".join(sentence(rng, dialect)) + "."
    last, particle = sentence(rng, dialect, held=True)
    wrong = other(rng, DIALECT_PARTICLES, particle.strip())
    return Question(f"dialect {dialect}", f"dialect {dialect}", text + last, particle, f" {wrong}")
