"""Many inputs in several processes, and what came of them as a table.

A process that is ended by an input (a crash, a hang) is a failure too: the input that it was at is named.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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


def fuzz(total: int, seed: int, processes: int = 1, timeout: float | None = None) -> Report:
    """Run so many inputs.

    Args:
        seed: every input follows from it, its kind and its number.
        timeout: seconds for all.
    """
    report, running = Report(seed), []
    with tempfile.TemporaryDirectory(prefix="fuzzing-") as place:
        # A process of their own also for the folders of what they import: nothing of the user's is read or changed.
        private = {
            "WORKBENCH_RECORDS": str(Path(place) / "records.sqlite"),
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "WORKBENCH_PROGRESS": "off",
        }
        for number in range(processes):
            command = [sys.executable, "-m", "tests.fuzz.run", str(-(-total // processes)), str(seed + number)]
            folder = Path(place) / str(number)
            folder.mkdir()
            env = {**os.environ, **private, "TMPDIR": str(folder), "TEMP": str(folder), "TMP": str(folder)}
            with (folder / "out").open("w") as out, (folder / "err").open("w") as err:
                process = subprocess.Popen(command, stdout=out, stderr=err, env=env, cwd=ROOT)
            running.append((number, folder, process))
        for number, folder, process in running:
            process.wait(timeout)
            said = (folder / "out").read_text(encoding="utf-8")
            if process.returncode:
                report.failures.append(_ended(folder, seed + number, process.returncode))
            else:
                report.add(json.loads(said.splitlines()[-1]))
    return report


def _ended(folder: Path, seed: int, code: int) -> dict[str, Any]:
    last = [json.loads(path.read_text()) for path in folder.glob("fuzz-*/last.json")]
    said = (folder / "err").read_text(encoding="utf-8", errors="replace")[-1500:]
    at = f"python -m tests.fuzz.run 1 {seed} --kind '{last[0]['kind']}' --only {last[0]['input']}" if last else ""
    return {
        "kind": last[0]["kind"] if last else "?",
        "wrong": f"the process ended with {code}",
        "again": at,
        "said": said,
    }
