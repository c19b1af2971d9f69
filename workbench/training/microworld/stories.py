"""Small stories: people, places and things, with a last sentence that follows from the story."""

import random

from .document import Document, Question, answer, context, draw, other
from .words import ADJECTIVES, PEOPLE, PLACES, THINGS

OPENINGS = (
    "One day {a} went to the {place}.",
    "In the morning {a} walked to the {place}.",
    "Once {a} was at the {place}.",
)
FINDS = ("There {a} found a {adjective} {thing}.", "There {a} saw a {adjective} {thing}.")
MEETINGS = ("Then {b} came to the {place} too.", "Soon {b} met {a} at the {place}.", "There {a} met {b}.")
MOOD_WORDS = ("warm", "cold", "bright", "quiet", "long")
MOODS = ("The day was {mood}.", "The way was {mood}.", "The morning was {mood}.", "The house was {mood}.")
HAND_OVERS = (
    "{a} gave the {thing} to {b}.",
    "{b} asked for the {thing}, and {a} gave it to {b}.",
    "{a} and {b} took the {thing} home, and {b} kept it.",
)
END = "In the end {b} had the"


def filler(rng: random.Random) -> str:
    """A sentence that says nothing about anyone, with a leading space: distance for the long tasks."""
    noun = rng.choice(PLACES + THINGS)
    form = rng.choice((" The {n} is {a}.", " The {n} was {a} and {b}.", " There is a {a} {n} here."))
    return form.format(n=noun, a=rng.choice(ADJECTIVES), b=rng.choice(ADJECTIVES))


def _cast(rng: random.Random, held: bool) -> dict[str, str]:
    a, b = rng.sample(PEOPLE, 2)
    adjective, thing = draw(lambda: (rng.choice(ADJECTIVES), rng.choice(THINGS)), lambda pair: ("story", *pair), held)
    mood = rng.choice(MOOD_WORDS)
    return {"a": a, "b": b, "place": rng.choice(PLACES), "thing": thing, "adjective": adjective, "mood": mood}


def _body(rng: random.Random, cast: dict[str, str]) -> str:
    forms = [rng.choice(OPENINGS), rng.choice(FINDS), rng.choice(MEETINGS), rng.choice(HAND_OVERS)]
    if rng.random() < 0.6:
        forms.insert(rng.randrange(1, 4), rng.choice(MOODS))
    return " ".join([*forms, END]).format(**cast)


def document(rng: random.Random) -> Document:
    """One story."""
    cast = _cast(rng, held=False)
    ending = f" {cast['adjective']} {cast['thing']}"
    return Document("story", "story", (context(_body(rng, cast)), answer(ending), context(".")))


def question(rng: random.Random) -> Question:
    """Which thing does the story end with? (An adjective and thing never seen together in training.)"""
    cast = _cast(rng, held=True)
    wrong = f" {other(rng, ADJECTIVES, cast['adjective'])} {cast['thing']}"
    return Question("story", "story", _body(rng, cast), f" {cast['adjective']} {cast['thing']}", wrong)
