"""An exercise: a function that a student writes, tried on fresh inputs, and answered with a hint that helps."""

from __future__ import annotations

import copy
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from workbench.lessons.compare import Compare, close, equal, same_set
from workbench.lessons.diagnose import diagnosis

__all__ = ["Case", "Exercise", "Mistake", "Verdict", "close", "equal", "same_set"]

Kind = Literal["passed", "unfinished", "raised", "mistake", "wrong"]


@dataclass(frozen=True)
class Case:
    """One fresh input.

    Attributes:
        args, kwargs: what the student's function is called with; each call gets its own copy of tensors and arrays.
        about: what is special about it, in words that may stand after "on": "a single token".
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    about: str = ""

    def call(self, function: Callable[..., Any]) -> Any:
        """What a function gives for this input. The input is as before, whatever the function does to its own copy."""
        args, kwargs = _copied((self.args, dict(self.kwargs)))
        return function(*args, **kwargs)


@dataclass(frozen=True)
class Mistake:
    """A typical wrong answer, and the hint that it deserves.

    Attributes:
        what: its name for the teacher: "forgot the sink".
        gives: what code with this mistake would give, called as the student's function is; or None.
        hint: which axis, which term.
        seen: whether an answer shows it: (given, expected, case) → bool; for mistakes that no single code has.
    """

    what: str
    gives: Callable[..., Any] | None
    hint: str
    seen: Callable[[Any, Any, Case], bool] | None = None

    def explains(self, given: Any, expected: Any, case: Case, compare: Compare) -> bool:
        """Whether this mistake is what the student's answer to a case looks like."""
        try:
            if self.seen is not None:
                return bool(self.seen(given, expected, case))
            assert self.gives is not None, f"mistake {self.what!r} needs gives= or seen="
            return compare(given, case.call(self.gives)) is None
        except Exception:  # the wrong way has no answer to this input, or the answer is of another kind
            return False


@dataclass(frozen=True)
class Verdict:
    """What a check found.

    Attributes:
        kind: "passed"; "unfinished" (still `...`); "raised"; "mistake" (a known one); "wrong" (any other).
        hint: what to look at, one or two sentences; how it was tried, where it passed.
        detail: numbers of the first input that shows it, or the error; may be "".
        mistake: which known mistake it was.
    """

    exercise: str
    kind: Kind
    hint: str
    detail: str = ""
    mistake: str | None = None

    @property
    def passed(self) -> bool:
        """Whether the function does what it must."""
        return self.kind == "passed"


@dataclass(frozen=True)
class Exercise:
    """A function to write, and how it is judged.

    Attributes:
        name: the function's.
        task: what it must do, one line, for the teacher's page.
        cases: fresh inputs from a random generator: ordinary ones, and the edges.
        truth: the right answer, from something other than the solution.
        mistakes: typical wrong answers; at least three, each with a hint of its own.
        hints: graded, from a nudge to nearly the code.
        points: its weight in the grade.
        compare: (given, expected) → None where they agree, else how they differ.
    """

    name: str
    task: str
    cases: Callable[[np.random.Generator], Iterable[Case]]
    truth: Callable[..., Any]
    mistakes: tuple[Mistake, ...]
    hints: tuple[str, ...]
    points: int = 1
    compare: Compare = field(default_factory=close)

    def check(self, function: Callable[..., Any], rng: np.random.Generator) -> Verdict:
        """Try a function on fresh inputs. It never raises for what the student's code does, but an interrupt passes."""
        if not callable(function):
            return self._verdict("wrong", f"`{self.name}` is not a function but {type(function).__name__}: define it.")
        trials: list[tuple[Case, Any, Any]] = []
        for case in self.cases(rng):
            expected = case.call(self.truth)
            try:
                given = case.call(function)
            except Exception as error:  # the student's own: it is told, with its line
                return self._raised(error, case)
            if given is ... or (given is None and expected is not None):
                # No hint unasked: who has not begun has not been wrong.
                what = "`...`" if given is ... else "nothing: a `return` is missing, or it is still `...`"
                return self._verdict("unfinished", f"`{self.name}` returns {what}. Write it, then run this cell again.")
            trials.append((case, given, expected))
        return self._judged(trials)

    def _judged(self, trials: list[tuple[Case, Any, Any]]) -> Verdict:
        differences = [_difference(self.compare, given, expected) for _, given, expected in trials]
        if not any(differences):
            return self._verdict("passed", f"Right on {len(trials)} fresh inputs.")
        first = next(i for i, difference in enumerate(differences) if difference)
        where = f" (on {trials[first][0].about})" if trials[first][0].about else ""
        for mistake in self.mistakes:
            # A mistake need not show on every input (one token has no future), but where it differs it must explain it.
            if all(mistake.explains(given, expected, case, self.compare) for case, given, expected in trials):
                return self._verdict("mistake", mistake.hint, f"{differences[first]}{where}", mistake.what)
        _, given, expected = trials[first]
        hint = diagnosis(given, expected) or self.hints[0]
        if first and not any(differences[:first]):
            hint = f"Right on the first {first} input{'s' if first > 1 else ''}, wrong{where}. {hint}"
        return self._verdict("wrong", hint, f"{differences[first]}{where}")

    def _raised(self, error: Exception, case: Case) -> Verdict:
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.name == self.name]
        line = f", at `{frames[-1].line}`" if frames and frames[-1].line else ""
        shapes = ", ".join(_said(value) for value in (*case.args, *case.kwargs.values()))
        about = f"{case.about}: " if case.about else ""
        hint = f"Your code raised {type(error).__name__}{line}: {_short(str(error))}"
        return self._verdict("raised", hint, f"Called with {about}{shapes}.")

    def _verdict(self, kind: Kind, hint: str, detail: str = "", mistake: str | None = None) -> Verdict:
        return Verdict(self.name, kind, hint, detail, mistake)


def _difference(compare: Compare, given: Any, expected: Any) -> str | None:
    try:
        return compare(given, expected)
    except Exception as error:  # an answer of a kind that cannot be compared at all
        return f"your answer cannot be compared: {_short(str(error))}"


def _copied(value: Any) -> Any:
    """A value whose tensors and arrays are its own; models and other large objects are passed as they are."""
    import torch

    if isinstance(value, torch.Tensor):
        return value.detach().clone().requires_grad_(value.requires_grad)
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, dict):
        return {name: _copied(item) for name, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_copied(item) for item in value)
    return copy.copy(value) if isinstance(value, (set, bytearray)) else value


def _said(value: Any) -> str:
    shape = getattr(value, "shape", None)
    if shape is not None and not callable(shape):
        return f"{type(value).__name__} {tuple(shape)}"
    text = repr(value)
    return text if len(text) <= 40 else type(value).__name__


def _short(text: str, most: int = 300) -> str:
    text = " ".join(text.split())
    return text if len(text) <= most else text[: most - 1] + "…"
