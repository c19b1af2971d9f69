"""What the model goes on to say, with the interventions and without them: token by token, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from typing import Any

from workbench.figures.text import visible
from workbench.model import HookedGptOss
from workbench.model.generate import Generation
from workbench.widgets.worker import Job

LONGEST_TOKEN = 200  # characters


@dataclass(eq=False)
class Side:
    """One of the two texts: a greedy generation, and what it gave so far."""

    generation: Generation
    ids: list[int] = field(default_factory=list)
    is_over: bool = False  # it came to its end; not: as long as it was to be

    def step(self, length: int) -> bool:
        """One more token; False where there is none to come."""
        if self.is_over or len(self.ids) >= length:
            return False
        self.generation.max_new_tokens = length
        made = next(self.generation, None)
        if made is None:
            return False
        self.ids.append(made.token)
        self.is_over = bool(made.finished[0])
        return True


@dataclass(eq=False)
class Completion:
    """Two texts of one prompt.

    Attributes:
        of: what they follow from: tokens, interventions and sources, as data that can be compared.
        length: tokens of each, at most.
        job: makes it.
    """

    of: tuple[Any, ...]
    length: int
    before: Side
    after: Side | None = None  # made on the model's thread, with its sources
    job: Job | None = None

    @property
    def steps_left(self) -> int:
        """Tokens still to come, at most."""
        return sum(self._left(side) for side in (self.before, self.after))

    def _left(self, side: Side | None) -> int:
        if side is None:
            return self.length
        return 0 if side.is_over else max(0, self.length - len(side.ids))

    @property
    def is_settled(self) -> bool:
        """Nothing is to be done: it is whole, under way, or was stopped or failed (then somebody may resume it)."""
        return self.is_done or (self.job is not None and self.job.state != "done")

    @property
    def is_done(self) -> bool:
        """Whether both texts are as long as they get."""
        return not self.steps_left

    def said(self, model: HookedGptOss) -> dict[str, Any]:
        """As the browser shows it: the tokens of both, and which of them differ."""
        # A text that was made for a greater length is shown as far as this one goes.
        texts = [[] if side is None else side.ids[: self.length] for side in (self.before, self.after)]
        sides = {}
        marks = differing(*texts, whole=self.is_done)
        for name, ids, marked, side in zip(("before", "after"), texts, marks, (self.before, self.after), strict=True):
            is_over = side is not None and side.is_over and len(ids) == len(side.ids)
            sides[name] = {"tokens": _visible(model, ids), "ids": ids, "differs": marked, "over": is_over}
        return {**sides, "length": self.length, "done": self.is_done, "first": first_difference(*texts)}


def _visible(model: HookedGptOss, ids: Sequence[int]) -> list[str]:
    texts = map(str, ids) if model.tokenizer is None else model.tokenizer.str_tokens(list(ids))
    return [visible(text, LONGEST_TOKEN) for text in texts]


def differing(before: Sequence[int], after: Sequence[int], whole: bool = True) -> tuple[list[int], list[int]]:
    """For each token of both texts, 1 where it has no counterpart in the other.

    Args:
        whole: both are finished; else only as much of each is compared as the other has so far.
    """
    n = max(len(before), len(after)) if whole else min(len(before), len(after))
    one, two = list(before[:n]), list(after[:n])
    marks = [1] * len(one), [1] * len(two)
    for a, b, size in SequenceMatcher(None, one, two, autojunk=False).get_matching_blocks():
        marks[0][a : a + size] = [0] * size
        marks[1][b : b + size] = [0] * size
    return marks[0] + [0] * (len(before) - n), marks[1] + [0] * (len(after) - n)


def first_difference(before: Sequence[int], after: Sequence[int]) -> int | None:
    """The first place at which both texts have a token, and not the same; None as long as there is none."""
    return next((i for i, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), None)
