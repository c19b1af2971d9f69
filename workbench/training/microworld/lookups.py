"""Lookups: who has what and where things are, asked about in any order, outside a chat."""

import random

from .document import Document, Question, Segment, answer, context, held_out
from .words import PEOPLE, PLACES, THINGS

# Kind → what is told, the question, the answer before and after its deciding word.
FORMS = {
    "who": ("{value} has the {thing}.", "Who has the {thing}?", "It is"),
    "where": ("The {thing} is in the {value}.", "Where is the {thing}?", "In the"),
}
VALUES = {"who": PEOPLE, "where": PLACES}


def _key(kind: str, thing: str, value: str) -> tuple[str, str, str]:
    """As in ``chats.py``, so that a pair asked about in evaluation is new to all of training."""
    return (kind, value, thing) if kind == "who" else (kind, thing, value)


def _tell(kind: str, pairs: list[tuple[str, str]], rng: random.Random) -> str:
    told = [FORMS[kind][0].format(thing=thing, value=value) for thing, value in pairs]
    return " ".join(rng.sample(told, len(told)))


def document(rng: random.Random) -> Document:
    """Two to five pairs; everything told is asked about, in another order."""
    kind = rng.choice(tuple(FORMS))
    pairs: list[tuple[str, str]] = []
    for thing in rng.sample(THINGS, rng.randint(2, 5)):
        taken = [value for _, value in pairs]
        free = [v for v in VALUES[kind] if v not in taken and not held_out(*_key(kind, thing, v))]
        pairs.append((thing, rng.choice(free)))
    segments: list[Segment] = [context(_tell(kind, pairs, rng))]
    for thing, value in rng.sample(pairs, len(pairs)):
        segments.append(context(f" {FORMS[kind][1].format(thing=thing)} {FORMS[kind][2]}"))
        segments += [answer(f" {value}"), context(".")]
    return Document("lookups", "lookups", tuple(segments))


def question(rng: random.Random) -> Question:
    """One question, on a pair that training never asked about. The wrong answer is another value that was told."""
    kind = rng.choice(tuple(FORMS))
    thing, value = rng.choice([(t, v) for t in THINGS for v in VALUES[kind] if held_out(*_key(kind, t, v))])
    things = rng.sample([t for t in THINGS if t != thing], rng.randint(1, 4))
    values = rng.sample([v for v in VALUES[kind] if v != value], len(things))
    text = _tell(kind, [(thing, value), *zip(things, values, strict=True)], rng)
    prompt = f"{text} {FORMS[kind][1].format(thing=thing)} {FORMS[kind][2]}"
    return Question("lookups", "lookups", prompt, f" {value}", f" {rng.choice(values)}")
