"""Subjects side by side: every round gives each of them a turn at the same work, so that noise hits all alike."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.bench.common.machine import environment
from tests.bench.common.process import Failed, Process
from tests.bench.common.results import Cell, Part

SEED = 0


@dataclass(frozen=True)
class Subject:
    """One column of the table.

    Attributes:
        name: of the column.
        kind: its module in ``subjects``.
        how: arguments of its Subject.
        before: (question, arguments) asked before each turn: how one process plays two columns.
        process: the name of the column whose process this one shares; its own if None.
        python: the interpreter; this one if None.
        loads: whether its load time and its memory are its own.
        environment: variables beside those that all have.
    """

    name: str
    kind: str
    how: dict[str, Any]
    before: dict[str, Any] = field(default_factory=dict)
    process: str | None = None
    python: str | None = None
    loads: bool = True
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Work:
    """One row of the table: a method of the subjects, and how many tokens it gets.

    Attributes:
        only: the subjects that take part; all columns of the table if None.
        memory: measure the peak memory too, apart from the timed runs.
        rounds: fewer than the part's, for long work.
        answer: the method whose answers are compared before the clock runs; none if None.
        warm: run it once before the first turn that counts.
    """

    name: str
    tokens: int
    only: tuple[str, ...] | None = None
    memory: bool = False
    rounds: int | None = None
    answer: str | None = None
    warm: bool = True


class Bench:
    """The processes of one part, alive together; what they measure goes into a :class:`Part`."""

    def __init__(
        self, part: Part, subjects: Sequence[Subject], threads: int, malloc: str, say: Callable[[str], None]
    ) -> None:
        self.part, self.subjects, self.say = part, list(subjects), say
        self._environment = environment(threads, malloc)
        self._processes: dict[str, Process] = {}

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes.values():
            process.close()

    def load(self, rounds: int) -> None:
        """Start and load each in turn, ``rounds`` times over; the last ones stay. With several rounds the first one,
        which may read from the disk, is not counted."""
        for number in range(rounds):
            for subject in [s for s in self.subjects if s.process is None]:
                self._load(subject, counted=number > 0 or rounds == 1)

    def _load(self, subject: Subject, counted: bool) -> None:
        if subject.name in self._processes:
            self._processes.pop(subject.name).close()
        its_own = self._environment | subject.environment
        process = Process(subject.kind, its_own, *([subject.python] if subject.python else []))
        self._processes[subject.name] = process
        cell = self.part.cell("load", 0, subject.name)
        try:
            answer = process.do("load", **subject.how)
        except Failed as failure:
            cell.error = str(failure)
            self.say(f"  {subject.name}: not loaded: {failure}")
            return
        self.part.about[subject.name] = {
            key: value for key, value in answer.items() if key not in ("seconds", "resident", "private")
        }
        if not subject.loads:
            cell.error = "its weights come from another model"
        elif counted:
            cell.rounds.append([answer["seconds"]])
            cell.see_memory(answer)

    def compare(self, work: Work, how: dict[str, Any]) -> None:
        """How far the answers to this work are from ours, in the part's record."""
        if work.answer is None:
            return
        import numpy as np

        answers = {}
        with tempfile.TemporaryDirectory() as folder:
            for subject in self._taking_part(work):
                file = str(Path(folder) / "answer.npy")
                try:
                    self._ask(subject, "answer", work=work.answer, file=file, **how)
                    answers[subject.name] = np.load(file).astype(np.float64)
                except Failed as failure:
                    self.part.agreement[f"{work.name} {work.tokens} {subject.name}"] = {"error": str(failure)}
        ours = answers.pop("ours", None)
        if ours is None:
            return
        for name, answer in answers.items():
            self.part.agreement[f"{work.name} {work.tokens} {name}"] = _distance(ours, answer)

    def measure(self, work: Work, how: dict[str, Any], rounds: int, quiet: bool = False) -> None:
        """All rounds of one work; rounds of an earlier call are kept."""
        turns = self._taking_part(work)
        if not turns:
            return
        cells = {subject.name: self.part.cell(work.name, work.tokens, subject.name) for subject in turns}
        for number in range(min(rounds, work.rounds or rounds)):
            for subject in turns[number % len(turns) :] + turns[: number % len(turns)]:
                self._turn(subject, cells[subject.name], work, how)
        for subject in turns if work.memory else ():
            cell = cells[subject.name]
            if cell.error is None and subject.process is None and subject.loads:
                with suppress(Failed):
                    cell.see_memory(self._ask(subject, "memory", work=work.name, **how))
        if not quiet:
            self.say("  " + self.part.line(work.name, work.tokens))

    def _turn(self, subject: Subject, cell: Cell, work: Work, how: dict[str, Any]) -> None:
        if cell.error is not None:
            return
        try:
            answer = self._ask(subject, "time", work=work.name, warm=work.warm, **how)
            cell.rounds.append(answer["seconds"])
            cell.processor.append(answer["processor_seconds"])
        except Failed as failure:
            cell.error = str(failure)

    def question(self, name: str, question: str, **how: Any) -> dict[str, Any]:
        """Anything that a subject can tell.

        Raises:
            Failed: as of a process.
        """
        if name not in self._processes:
            raise Failed(f"{name} is not there")
        return self._processes[name].do("ask", question=question, **how)

    def _ask(self, subject: Subject, command: str, **how: Any) -> dict[str, Any]:
        process = self._processes[subject.process or subject.name]
        if subject.before:
            process.do("ask", **subject.before)
        return process.do(command, **how)

    def _taking_part(self, work: Work) -> list[Subject]:
        chosen = self.part.subjects if work.only is None else work.only
        return [s for s in self.subjects if s.name in chosen and self._is_loaded(s)]

    def _is_loaded(self, subject: Subject) -> bool:
        owner = subject.process or subject.name
        return owner in self._processes and owner in self.part.about


def _distance(ours: Any, theirs: Any) -> dict[str, Any]:
    import numpy as np

    if ours.shape != theirs.shape:
        return {"error": f"shapes differ: {ours.shape} and {theirs.shape}"}
    same = float((ours.argmax(-1) == theirs.argmax(-1)).mean())
    return {
        "largest": float(np.abs(ours - theirs).max()),
        "scale": float(ours.std()),
        "correlation": float(np.corrcoef(ours.ravel(), theirs.ravel())[0, 1]),
        "same_argmax": same,
    }


def draw(count: int, d_vocab: int, seed: int = SEED, lowest: int = 16) -> list[int]:
    """Random tokens; the lowest ids are special in nano, and are left out."""
    chooser = random.Random(seed)
    return [chooser.randrange(lowest, d_vocab) for _ in range(count)]
