"""A script that is killed at random moments, begun again, and at last left to end.

The script prints a line when its work begins, and then whatever it likes: each moment after that line is one at which
it may be killed. It should flush what it prints.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FULL = os.environ.get("WORKBENCH_FAULTS") == "full"
TOO_LONG = 300.0  # seconds after which a script is stuck


@dataclass(frozen=True)
class Life:
    """One start of a script.

    Attributes:
        lines: what it printed, whole lines only: the last one may have been cut by the kill.
        after: seconds from the line that was waited for to the kill; None for one that was left to end.
        status: as of subprocess: 0, or minus the signal.
    """

    lines: list[str]
    after: float | None
    status: int
    errors: str

    @property
    def killed(self) -> bool:
        """Whether the kill met it alive."""
        return self.status == -signal.SIGKILL


def depth(short: int, full: int) -> int:
    """How many kills: the short number in every run of the tests, the full one in ``make faults``."""
    return full if FULL else short


def lives(
    script: str | Path,
    arguments: Sequence[object],
    *,
    kills: int,
    within: float,
    seed: int,
    lines: int = 0,
    between: Callable[[Life], None] | None = None,
    environment: dict[str, str] | None = None,
) -> list[Life]:
    """Start a script ``kills`` times, each killed at a random moment, and once more to its end.

    Args:
        script: a file of Python.
        arguments: of its command line.
        within: seconds after a line in which the moment lies, each as likely as the others.
        lines: that line is the first, or any of so many after it, each as likely as the others: a slow machine is then
            as far with its work as a quick one.
        seed: of the moments; it is printed.
        between: called after each kill.
        environment: besides this process's.

    Raises:
        AssertionError: one ended before it was killed (make its work longer), or the last one failed.
    """
    moments = random.Random(seed)
    print(f"{kills} kills within {within} s of one of the first {1 + lines} lines, seed {seed}")
    found = []
    for _ in range(kills):
        after, skipped = moments.uniform(0, within), moments.randint(0, lines)
        life = live(script, arguments, after, environment, skipped)
        assert life.killed, f"ended with {life.status} before it was killed after {life.after:.3f} s:\n{life.errors}"
        found.append(life)
        if between is not None:
            between(life)
    last = live(script, arguments, None, environment)
    assert last.status == 0, last.errors
    return [*found, last]


def live(
    script: str | Path,
    arguments: Sequence[object] = (),
    after: float | None = None,
    environment: dict[str, str] | None = None,
    skipped: int = 0,
) -> Life:
    """Start a script, and kill it so many seconds after its first line and those that are skipped, or not."""
    paths = os.pathsep.join([str(ROOT), *filter(None, sys.path)])
    with subprocess.Popen(
        [sys.executable, str(script), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": paths} | (environment or {}),
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        said = _Reader(process.stderr)
        stuck = threading.Timer(TOO_LONG, process.kill)
        stuck.start()
        try:
            lines = [process.stdout.readline() for _ in range(1 + skipped)]
            if after is not None and lines[-1]:
                time.sleep(after)
                process.kill()
            lines += process.stdout.read().splitlines(keepends=True)
        finally:
            stuck.cancel()
            process.kill()
        status = process.wait()
        said.join()
    return Life([line[:-1] for line in lines if line.endswith("\n")], after, status, said.text)


class _Reader(threading.Thread):
    """Reads a pipe to its end, so that nobody waits for room in it."""

    def __init__(self, pipe) -> None:
        super().__init__(daemon=True)
        self.pipe, self.text = pipe, ""
        self.start()

    def run(self) -> None:
        self.text = self.pipe.read()
