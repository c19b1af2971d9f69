"""What is true in the microworld: where each person lives, what each does, which pet each has."""

import random
from collections.abc import Mapping
from types import MappingProxyType

from .document import Document, Question, Segment, answer, context, draw, other
from .words import JOBS, PEOPLE, PETS, PLACES

VALUES: Mapping[str, tuple[str, ...]] = MappingProxyType({"home": PLACES, "job": JOBS, "pet": PETS})
PHRASES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "home": ("{} lives in the", "The home of {} is the", "You can find {} in the", "{} sleeps in the"),
        "job": ("{} works as a", "The job of {} is that of a", "{} is a good", "People call {} the"),
        "pet": ("{} has a", "The pet of {} is a", "{} feeds a", "At home {} keeps a"),
    }
)


def _truth() -> dict[tuple[str, str], str]:
    rng = random.Random("the facts of the microworld")
    facts = {}
    for relation, values in VALUES.items():
        pool = [values[i % len(values)] for i in range(len(PEOPLE))]
        rng.shuffle(pool)
        facts |= {(person, relation): value for person, value in zip(PEOPLE, pool, strict=True)}
    return facts


FACTS: Mapping[tuple[str, str], str] = MappingProxyType(_truth())


def _phrase(rng: random.Random, held: bool) -> tuple[str, str, str]:
    """(person, relation, phrase): in evaluation a phrase that was never used for this person in training."""
    return draw(lambda: _any_phrase(rng), lambda drawn: ("fact", *drawn), held)


def _any_phrase(rng: random.Random) -> tuple[str, str, str]:
    relation = rng.choice(tuple(VALUES))
    return rng.choice(PEOPLE), relation, rng.choice(PHRASES[relation])


def document(rng: random.Random) -> Document:
    """Two to five facts in a row."""
    segments: list[Segment] = []
    for i in range(rng.randint(2, 5)):
        person, relation, phrase = _phrase(rng, held=False)
        segments += [
            context(" " * bool(i) + phrase.format(person)),
            answer(f" {FACTS[person, relation]}"),
            context("."),
        ]
    return Document("facts", "facts", tuple(segments))


def question(rng: random.Random) -> Question:
    """One fact after another, the second in a phrase that training never used for that person."""
    person, relation, phrase = _phrase(rng, held=False)
    before = f"{phrase.format(person)} {FACTS[person, relation]}. "
    asked = first_question(rng)
    return Question("facts", "facts", before + asked.prompt, asked.answer, asked.wrong)


def first_question(rng: random.Random) -> Question:
    """The same at the start of a text, where a name is another token (it has no space before it)."""
    person, relation, phrase = _phrase(rng, held=True)
    truth = FACTS[person, relation]
    return Question(
        "facts", "facts, first words", phrase.format(person), f" {truth}", f" {other(rng, VALUES[relation], truth)}"
    )
