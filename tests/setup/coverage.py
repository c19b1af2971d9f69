"""The lines that the tests run, by folder: ``make coverage``.

The tests of browsers, documentation and packaging are left out: they run the same Python again, slowly. So are those of
interrupts: an interrupt between two lines leaves coverage's own lock taken, and the process waits for ever. A test that
measures time or memory may fail here: whether tests pass is what ``make test`` says.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[2]
ELSEWHERE = ("browser", "docs", "fuzz", "bench", "robust", "setup/test_wheel.py", "setup/test_bench.py")
ASKED = 90  # per cent of lines, in every folder
# Processes that tests begin are counted too: commands, workers of a cluster, children that are killed (up to then).
SETTINGS = """[run]
source = workbench
parallel = true
patch = subprocess
data_file = {folder}/data
"""


def main(arguments: list[str]) -> int:
    """Run the tests under coverage (arguments go to pytest) and print the share of each folder and its worst files."""
    with TemporaryDirectory() as made:
        settings, report = Path(made) / "settings", Path(made) / "report.json"
        settings.write_text(SETTINGS.format(folder=Path(made).as_posix()))
        left_out = [f"--ignore=tests/{name}" for name in ELSEWHERE]
        tests = ["tests", *left_out, "-q", "-n", "auto", "--maxprocesses=4", "--dist=worksteal", *arguments]
        _python("pytest", "--cov", f"--cov-config={settings}", "--cov-report=", *tests)
        _python("coverage", "json", "-q", f"--rcfile={settings}", f"--data-file={made}/data", "-o", str(report))
        by_folder = folders(json.loads(report.read_text())["files"])
    print(table(by_folder))
    return int(any(share(files) < ASKED for files in by_folder.values()))


def _python(*command: str) -> int:
    return subprocess.run([sys.executable, "-m", *command], cwd=ROOT).returncode


Files = dict[str, tuple[int, int]]  # path → lines that ran, lines


def folders(files: dict[str, dict]) -> dict[str, Files]:
    """Folder of workbench/ → its files."""
    found: dict[str, Files] = defaultdict(dict)
    for path, report in files.items():
        parts = Path(path).as_posix().split("/")
        inside = parts[parts.index("workbench") + 1 :]
        counts = report["summary"]
        found[inside[0] if len(inside) > 1 else "."]["/".join(inside)] = (
            counts["covered_lines"],
            counts["num_statements"],
        )
    return dict(sorted(found.items()))


def share(files: Files) -> float:
    """Per cent of the lines that ran; 100 of none."""
    ran, lines = (sum(counts[i] for counts in files.values()) for i in (0, 1))
    return 100 * ran / lines if lines else 100.0


def table(by_folder: dict[str, Files]) -> str:
    """A line for each folder, with the three files that leave most lines out."""
    lines = [f"{'folder':16}{'lines':>8}{'run':>8}   most left out"]
    for folder, files in by_folder.items():
        worst = sorted(files.items(), key=lambda item: item[1][0] - item[1][1])[:3]
        said = ", ".join(f"{path} {lines - ran} of {lines}" for path, (ran, lines) in worst if ran < lines)
        lines.append(f"{folder:16}{sum(n for _, n in files.values()):8}{share(files):7.1f}%   {said}")
    total = {path: counts for files in by_folder.values() for path, counts in files.items()}
    lines.append(f"{'all':16}{sum(n for _, n in total.values()):8}{share(total):7.1f}%")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
