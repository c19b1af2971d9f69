"""What a lesson's notebook calls: predict, check, hint, solution."""

from __future__ import annotations

import inspect
import json
import os
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from workbench.lessons.exercise import Verdict
from workbench.lessons.names import next_of, outline
from workbench.lessons.outline import Outline
from workbench.lessons.panel import Panel
from workbench.lessons.prediction import Prediction, ask
from workbench.lessons.progress import Progress

MODE = "WORKBENCH_LESSONS"  # environment; "reveal": nobody is there to answer, so show what came out
VERDICTS = "WORKBENCH_VERDICTS"  # environment: a file that gets one JSON line for each check (for graders)
Function = TypeVar("Function", bound=Callable[..., Any])


class CheckFailed(Exception):
    """A check that did not pass, in a class set: it stops "Run All" at the exercise to do."""

    def _render_traceback_(self) -> list[str]:
        # The panel above has said what there is to say: no frames of ours under it.
        return [str(self)]


class Lesson:
    """One lesson in one kernel. ``lessons.start`` makes it.

    Attributes:
        outline: what it is about, with its exercises.
        seed: of this class's variant; fresh inputs and what ``rng`` picks depend on it.
        verdicts: the newest of each exercise, by name.
        predictions: by key.
    """

    def __init__(
        self, outline: Outline, *, solutions: bool = True, seed: int = 0, progress: Progress | None = None
    ) -> None:
        self.outline, self.solutions, self.seed = outline, solutions, int(seed)
        self.revealing = os.environ.get(MODE) == "reveal"
        self.progress = progress or Progress(outline.name)
        if self.revealing and progress is None:
            self.progress.path = None  # nobody's progress
        self.verdicts: dict[str, Verdict] = {}
        self.predictions: dict[str, Prediction] = {}
        self._passed: dict[str, Callable[..., Any]] = {}
        self._tries: dict[str, int] = {}

    # ------------------------------------------------------------ what the notebook calls

    def rng(self, key: str) -> np.random.Generator:
        """Random numbers that depend on the class's seed and on what they are for, and on nothing else."""
        return np.random.default_rng([self.seed, zlib.crc32(f"{self.outline.name}/{key}".encode())])

    def predict(
        self,
        key: str,
        question: str,
        *,
        answer: Any,
        choices: Sequence[str] | None = None,
        number: Sequence[int | float] | None = None,
        selection: tuple[Any, Sequence[str]] | None = None,
        reveal: Callable[[], Any] | None = None,
        because: str = "",
        tolerance: int | float | None = None,
        unit: str = "",
    ) -> None:
        """Ask for a prediction, and show what comes out once it is committed; ``predictions[key]`` is it in Python.

        Args:
            key: one of the outline's predictions.
            choices, number, selection: exactly one: the possible answers; the lowest and highest number; a Bench or
                view and the fields of its selection that count, as (bench, ("layer", "head")).
            answer: what comes out, or a function that computes it.
            reveal: gives the figure that then appears.
            because: what to say beside it; Markdown.
            tolerance: how far a number may be off and be called close; a tenth of the range by default.

        Raises:
            ValueError: for an unknown key, or an answer that is none of the choices.
        """
        if key not in self.outline.predictions:
            raise ValueError(
                f"lesson {self.outline.name} has no prediction {key!r}; it has {list(self.outline.predictions)}"
            )
        asked = ask(
            key,
            question,
            choices=choices,
            number=number,
            selection=selection,
            answer=answer,
            tolerance=tolerance,
            unit=unit,
        )
        made = Prediction(asked, reveal, because, self.progress.prediction)
        self.predictions[key] = made
        if self.revealing:
            made.show_answered()
            return
        earlier = self.progress.read()["predictions"].get(key)
        if earlier is not None:
            made.restore(earlier.get("value"))
        made.show()

    def check(self, function: Callable[..., Any]) -> None:
        """Try a function on fresh inputs and show what was found; ``verdicts[name]`` is the same as a value.

        Raises:
            CheckFailed: in a class set, when it does not pass; elsewhere the notebook goes on.
            ValueError: for a function that is no exercise of this lesson.
        """
        name = getattr(function, "__name__", str(function))
        verdict = self._judge(name, function)
        self.verdicts[name] = verdict
        self._record(name, verdict, function)
        _display(_panel(verdict))
        if verdict.passed:
            self._passed[name] = function
        elif not self.solutions:
            raise CheckFailed(f"{name} is not done yet: {verdict.hint}")

    def solution(self, function: Function) -> Function:
        """Decorator of a folded solution. It must pass its own check; a student's function that passed stays in use.

        Raises:
            AssertionError: the solution is wrong, which is our mistake and not the student's.
        """
        name = function.__name__
        verdict = self._judge(name, function)
        assert verdict.passed, f"the solution of {name} does not pass its own check: {verdict.hint} {verdict.detail}"
        self._report(verdict, of="solution")
        mine = self._passed.get(name)
        if mine is not None:
            _display(Panel("right", f"{name}: yours passed and is used from here on."))
            return mine  # pyright: ignore[reportReturnType]
        _display(Panel("note", f"{name}: until yours passes, the solution is used from here on."))
        return function

    def hint(self, name: str | Callable[..., Any]) -> None:
        """The next hint of an exercise; after the last, the last again."""
        exercise = self.outline.exercise(name if isinstance(name, str) else name.__name__)
        at = min(self.progress.hint(exercise.name), len(exercise.hints) - 1)
        _display(Panel("note", f"{exercise.name}, hint {at + 1} of {len(exercise.hints)}", exercise.hints[at]))

    def say(self, markdown: str) -> None:
        """Show Markdown: sentences whose numbers were computed a line above."""
        from IPython.display import Markdown

        _display(Markdown(markdown))

    def finish(self) -> None:
        """What is done, what is open, and which lesson comes next."""
        done, still = self._done()
        after = next_of(self.outline.name)
        follows = f"Next: `{after}.ipynb`." if after else "This was the last lesson."
        open_ = f"Still open: {', '.join(f'`{name}`' for name in still)}." if still else "Every exercise is passed."
        _display(Panel("note" if still else "right", f"{self.outline.title}: {done}", open_, follows))

    # ------------------------------------------------------------ within

    def greet(self) -> None:
        """Where one stands."""
        done, still = self._done()
        where = f"Kept in {self.progress.path.name}." if self.progress.path is not None else ""
        goes_on = f"Go on at `{still[0]}`." if still and len(still) < len(self.outline.exercises) else ""
        _display(
            Panel("note", f"Lesson {self.outline.number} · {self.outline.title}", f"{done} {goes_on} {where}".strip())
        )

    def _done(self) -> tuple[str, list[str]]:
        kept = self.progress.read()
        passed = [e.name for e in self.outline.exercises if kept["exercises"].get(e.name, {}).get("passed")]
        said = [key for key in self.outline.predictions if key in kept["predictions"]]
        still = [e.name for e in self.outline.exercises if e.name not in passed]
        return (
            f"{len(passed)} of {len(self.outline.exercises)} exercises and {len(said)} of "
            f"{len(self.outline.predictions)} predictions done.",
            still,
        )

    def _judge(self, name: str, function: Callable[..., Any]) -> Verdict:
        exercise = self.outline.exercise(name)
        self._tries[name] = self._tries.get(name, -1) + 1
        return exercise.check(function, self.rng(f"{name}/{self._tries[name]}"))

    def _record(self, name: str, verdict: Verdict, function: Callable[..., Any]) -> None:
        try:
            source = inspect.getsource(function)
        except (OSError, TypeError):
            source = None
        self.progress.attempt(name, verdict.kind, source)
        self._report(verdict, of="answer")

    def _report(self, verdict: Verdict, of: str) -> None:
        if path := os.environ.get(VERDICTS):
            line = {"lesson": self.outline.name, "of": of, **vars(verdict)}
            with Path(path).open("a", encoding="utf-8") as file:
                file.write(json.dumps(line, ensure_ascii=False) + "\n")


def start(name: str | int, *, solutions: bool = True, seed: int = 0) -> Lesson:
    """Begin a lesson, or go on with it: what was done before is in the progress file beside the notebook.

    Args:
        name: "04_attention", "attention" or 4.
        solutions: whether the notebook has its solutions; a class set has not, and a failing check stops "Run All".
        seed: of a class's variant.

    Raises:
        ValueError: for no lesson's name.
    """
    lesson = Lesson(outline(name), solutions=solutions, seed=seed)
    lesson.greet()
    return lesson


def _panel(verdict: Verdict) -> Panel:
    heads = {
        "passed": f"{verdict.exercise}: right",
        "unfinished": f"{verdict.exercise}: not written yet",
        "raised": f"{verdict.exercise}: it raised an error",
    }
    head = heads.get(verdict.kind, f"{verdict.exercise}: not yet")
    more = "" if verdict.passed else f"Another hint: `lesson.hint({verdict.exercise!r})`".replace("'", '"')
    tone = "right" if verdict.passed else "note" if verdict.kind == "unfinished" else "not yet"
    return Panel(tone, head, verdict.hint, verdict.detail, more)


def _display(shown: Any) -> None:
    from IPython.display import display

    display(shown)
