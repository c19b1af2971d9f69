"""Inputs of all kinds, one after the other, in a process of their own: watched, and with a limit to its memory.

``python -m tests.fuzz.run NUMBER SEED --place FOLDER``: what was found so far stands in FOLDER/so-far.json before each
input, so that the death of the process loses none of it; ``--after KIND I`` goes on behind that input. ``--kind NAME
--only I`` runs input I of a kind again, with its traceback, and prints it.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import os
import shutil
import tempfile
import time
import traceback
import warnings
from pathlib import Path
from random import Random
from typing import Any

from tests.fuzz.case import Case, Kind, put
from tests.fuzz.guard import Guard
from tests.fuzz.kinds import KINDS

MEMORY = 3 * 2**30  # bytes of addresses more than at the start; mapped files and threads count too
HANGS = 60  # seconds after which one input is given up, with the process
MOST = 20_000  # inputs of one process: what libraries keep of each would use up the memory that all of them have
SHOWN = 3000  # characters of an input that failed


class Runner:
    """One folder, one guard, counts."""

    def __init__(self, place: Path, seed: int) -> None:
        self.inside, self.outside = place / "inside", place / "outside"
        self.outside.mkdir()
        self.so_far = place / "so-far.json"
        self.seed = seed
        self.room = MOST
        self.guard = Guard(place, self.outside)
        self.counts: dict[str, dict[str, int]] = {}
        self.failures: list[dict[str, Any]] = []

    def kind(self, kind: Kind, number: int, first: int = 0) -> None:
        """A kind's inputs from the first to so many, and its valid one before, which must be accepted."""
        count = self.counts[kind.name] = {"tried": 0, "accepted": 0, "refused": 0, "failed": 0}
        for i in (-1, *range(first, number)):
            if self.room < 0:
                return
            self.room -= 1
            verdict = self.one(kind, i)
            if i < 0 and verdict == "refused":
                self.fail(kind, i, None, "the valid input was refused")
            elif i >= 0:
                count["tried"] += 1
                count[verdict] += 1

    def one(self, kind: Kind, i: int, loud: bool = False) -> str:
        """An input: "accepted", "refused" or "failed"."""
        self.say(kind.name, i)
        faulthandler.dump_traceback_later(HANGS, exit=True)
        case = kind.make(None if i < 0 else Random(f"{self.seed} {kind.name} {i}"))
        shutil.rmtree(self.inside, ignore_errors=True)
        self.inside.mkdir()
        put(self.inside, case)
        began = time.thread_time()
        verdict, wrong = self._verdict(kind, case, loud)
        took = time.thread_time() - began
        faulthandler.cancel_dump_traceback_later()
        # What a thread that the input started did, is found with the next input.
        if wrong is None and (seen := self.guard.taken()):
            wrong = f"it did what it must not: {seen[:3]}"
        if wrong is None and (left := [*self.outside.iterdir()]):
            wrong = f"it wrote elsewhere: {left[:3]}"
            shutil.rmtree(self.outside)
            self.outside.mkdir()
        if wrong is None and took > kind.seconds:
            wrong = f"it took {took:.1f} s"
        if wrong is not None:
            self.fail(kind, i, case, wrong)
            return "failed"
        return verdict

    def say(self, kind: str | None = None, i: int = -1) -> None:
        """Leave what was found so far, and the input that is next, for whoever began this process."""
        at = {"kind": kind, "input": i, "counts": self.counts, "failures": self.failures}
        fresh = self.so_far.with_suffix(".new")
        fresh.write_text(json.dumps(at))
        fresh.replace(self.so_far)  # never read half-written

    def _verdict(self, kind: Kind, case: Case, loud: bool) -> tuple[str, str | None]:
        try:
            with warnings.catch_warnings(), self.guard.watching(kind.code_of):
                warnings.simplefilter("ignore")
                value = kind.read(self.inside, case)
        except BaseException as error:
            if loud:
                traceback.print_exc()
            if isinstance(error, KeyboardInterrupt):
                raise
            return "refused", kind.complaint(error)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                kind.check(value, self.inside, case)
        except BaseException as error:
            if loud:
                traceback.print_exc()
            where = traceback.extract_tb(error.__traceback__)[-1]
            return (
                "accepted",
                f"accepted, but {type(error).__name__}: {str(error)[:300]} ({where.filename}:{where.lineno})",
            )
        return "accepted", None

    def fail(self, kind: Kind, i: int, case: Case | None, wrong: str) -> None:
        """Keep what is needed to see it again."""
        files = (
            {}
            if case is None
            else {
                name: repr(data[:SHOWN]) for name, data in sorted(case.files.items(), key=lambda each: len(each[1]))[:4]
            }
        )
        again = f"python -m tests.fuzz.run 1 {self.seed} --kind '{kind.name}' --only {i}"
        self.failures.append(
            {
                "kind": kind.name,
                "wrong": wrong,
                "again": again,
                "files": files,
                "about": repr(case and case.about)[:200],
            }
        )


def limit_memory() -> None:
    """From here on the process gets so much more; where the system has no such limit (Windows), none."""
    try:
        import resource

        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except (ImportError, OSError):
        return
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))


def numbers(total: int) -> dict[str, int]:
    """How many of each kind."""
    parts = sum(kind.share for kind in KINDS)
    return {kind.name: max(1, round(total * kind.share / parts)) for kind in KINDS}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("number", type=int)
    parser.add_argument("seed", type=int)
    parser.add_argument("--place", type=Path)
    parser.add_argument("--after", nargs=2, metavar=("KIND", "I"))
    parser.add_argument("--kind")
    parser.add_argument("--only", type=int)
    given = parser.parse_args()
    os.environ["WORKBENCH_RECORDS"] = "off"  # what is read here leaves no records
    with tempfile.TemporaryDirectory(prefix="fuzz-") as place:
        tempfile.tempdir = str(Path(place) / "temp")  # what is put aside for a moment may stand there
        Path(tempfile.tempdir).mkdir()
        runner = Runner(Path(place), given.seed)
        runner.so_far = (given.place or Path(place)) / "so-far.json"
        chosen = [kind for kind in KINDS if given.kind in (None, kind.name)]
        many = numbers(given.number) if given.kind is None else {given.kind: given.number}
        for kind in chosen:  # once before the limit, so that what is imported late is there
            runner.one(kind, -1)
        runner.failures.clear()
        limit_memory()
        if given.only is not None:
            print(runner.one(chosen[0], given.only, loud=True), json.dumps(runner.failures, indent=1))
            return
        name, done = given.after or (chosen[0].name, -1)
        chosen = chosen[[kind.name for kind in chosen].index(name) :]
        for kind in chosen:
            runner.kind(kind, many[kind.name], int(done) + 1 if kind.name == name else 0)
        if runner.room >= 0:
            runner.say()


if __name__ == "__main__":
    main()
