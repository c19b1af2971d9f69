"""Many inputs in several processes, and what came of them as a table.

A process that is ended by an input (a crash, a hang) is a failure too: the input that it was at is named, what it had
found is kept, and the next process goes on behind it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

ROOT = Path(__file__).absolute().parents[2]
VERDICTS = ("tried", "accepted", "refused", "failed")


@dataclass
class Report:
    """Counts by kind, and every failure with how to see it again."""

    seed: int
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    failures: list[dict[str, Any]] = field(default_factory=list)

    @property
    def tried(self) -> int:
        """Inputs of all kinds."""
        return sum(count["tried"] for count in self.counts.values())

    def add(self, found: dict[str, Any]) -> None:
        """What one process found."""
        for kind, count in found["counts"].items():
            mine = self.counts.setdefault(kind, dict.fromkeys(VERDICTS, 0))
            for verdict in VERDICTS:
                mine[verdict] += count[verdict]
        self.failures += found["failures"]

    def summary(self) -> str:
        """One line of all."""
        all_of = {verdict: sum(count[verdict] for count in self.counts.values()) for verdict in VERDICTS}
        return (
            f"fuzz: {all_of['tried']:,} inputs, {all_of['accepted']:,} accepted and sound, "
            f"{all_of['refused']:,} refused in one clear error, {len(self.failures)} failures; seed {self.seed}"
        )

    def lines(self) -> list[str]:
        """A line for each kind, and the first failures."""
        rows = [f"{'':24}" + "".join(f"{verdict:>10}" for verdict in VERDICTS)]
        rows += [
            f"{kind:24}" + "".join(f"{count[verdict]:>10,}" for verdict in VERDICTS)
            for kind, count in self.counts.items()
        ]
        shown = [json.dumps(failure, indent=1) for failure in self.failures[:10]]
        return [*rows, self.summary(), *shown]


def fuzz(total: int, seed: int, processes: int = 1, timeout: float = 24 * 3600, progress: bool = False) -> Report:
    """Run so many inputs.

    Args:
        seed: every input follows from it, its kind and its number.
        timeout: seconds for all.
        progress: show a bar.
    """
    report, end = Report(seed), time.monotonic() + timeout
    with tempfile.TemporaryDirectory(prefix="fuzzing-") as place, ThreadPoolExecutor(processes) as threads:
        each = -(-total // processes)
        parts = [_Part(Path(place) / str(number), each, seed + number) for number in range(processes)]
        running = [threads.submit(part.run, end) for part in parts]
        with tqdm(total=total, desc="fuzz", unit=" inputs", miniters=1, disable=not progress) as bar:
            while not all(part.done() for part in running):
                time.sleep(0.2)
                bar.update(min(total, sum(part.tried for part in parts)) - bar.n)
        for part in running:
            part.result()
    for part in parts:
        for found in part.found:
            report.add(found)
    return report


class _Part:
    """The inputs of one seed, in one process after the other: one that dies is a failure, and the next goes on.

    Attributes:
        found: what each process found.
    """

    MOST = 40  # processes, after which the rest is given up

    def __init__(self, place: Path, number: int, seed: int) -> None:
        self.place, self.number, self.seed = place, number, seed
        self.found: list[dict[str, Any]] = []
        place.mkdir()

    @property
    def tried(self) -> int:
        """Inputs up to now."""
        return sum(count["tried"] for found in (*self.found, self._so_far()) for count in found["counts"].values())

    def run(self, end: float) -> None:
        """All inputs.

        Raises:
            TimeoutExpired: the time is over.
        """
        after: list[str] = []
        for _ in range(self.MOST):
            code = self._process(after, end)
            found = self._so_far()
            (self.place / "so-far.json").unlink(missing_ok=True)
            self.found.append(found)
            if code:
                found["failures"].append(self._ended(found, code))
            if found["kind"] is None:
                return  # done; or it died before its first input or after its last, as the next would
            after = ["--after", found["kind"], str(found["input"])]

    def _process(self, after: list[str], end: float) -> int:
        # A process of their own also for the folders of what they import: nothing of the user's is read or changed.
        private = {
            "WORKBENCH_RECORDS": str(self.place / "records.sqlite"),
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "WORKBENCH_PROGRESS": "off",
        }
        command = [sys.executable, "-m", "tests.fuzz.run", str(self.number), str(self.seed)]
        command += ["--place", str(self.place), *after]
        env = {**os.environ, **private, **dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(self.place))}
        with (self.place / "said").open("wb") as said:
            left = max(1.0, end - time.monotonic())
            return subprocess.run(
                command, stdout=said, stderr=subprocess.STDOUT, env=env, cwd=ROOT, timeout=left
            ).returncode

    def _so_far(self) -> dict[str, Any]:
        try:
            return json.loads((self.place / "so-far.json").read_text())
        except FileNotFoundError:
            return {"kind": None, "input": -1, "counts": {}, "failures": []}

    def _ended(self, found: dict[str, Any], code: int) -> dict[str, Any]:
        said = (self.place / "said").read_text(encoding="utf-8", errors="replace")[-1500:]
        again = f"python -m tests.fuzz.run 1 {self.seed} --kind '{found['kind']}' --only {found['input']}"
        return {"kind": found["kind"], "wrong": f"the process ended with {code}", "again": again, "said": said}
