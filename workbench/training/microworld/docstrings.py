"""Python-like functions whose docstring lists the arguments in order."""

import random
from itertools import pairwise

from .document import Document, Question, Segment, answer, context, held_out, other
from .words import ADJECTIVES, ARGUMENTS, FUNCTIONS, THINGS


def _arguments(rng: random.Random, held: bool) -> tuple[list[str], int]:
    """Four argument names, and the place of the one to tell.

    In training no two held-out neighbours stand side by side; in evaluation that one and the one before it do."""
    while True:
        names: list[str] = rng.sample(ARGUMENTS, 4)
        place = rng.randint(1, 3)
        unseen = [held_out("args", *pair) for pair in pairwise(names)]
        if unseen[place - 1] if held else not any(unseen):
            return names, place


def _header(rng: random.Random, names: list[str]) -> str:
    about = f"{rng.choice(FUNCTIONS)} the {rng.choice(ADJECTIVES)} {rng.choice(THINGS)}"
    return f'def {rng.choice(FUNCTIONS)}(self, {", ".join(names)}):\n    """ {about}\n'


def _line(rng: random.Random) -> str:
    return f": the {rng.choice(ADJECTIVES)} {rng.choice(THINGS)}"


def document(rng: random.Random) -> Document:
    """A function, its docstring, and a return line."""
    names, _ = _arguments(rng, held=False)
    names = names[: rng.randint(2, 4)]
    segments: list[Segment] = [context(_header(rng, names))]
    for name in names:
        segments += [context("    :param"), answer(f" {name}"), context(_line(rng) + "\n")]
    segments.append(context(f'    """\n    return {rng.choice(names)}\n'))
    return Document("code", "docstring", tuple(segments))


def question(rng: random.Random) -> Question:
    """Which argument comes next in the docstring? The wrong answer is another argument of the function."""
    names, place = _arguments(rng, held=True)
    text = _header(rng, names) + "".join(f"    :param {name}{_line(rng)}\n" for name in names[:place])
    wrong = other(rng, names, names[place])
    return Question("code", "docstring", text + "    :param", f" {names[place]}", f" {wrong}")
