"""Several processes that share the tests: one seed, one table of what was measured, names that all of them know."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tables import Table

SHARED = """
import os, time
from pathlib import Path
import pytest
from tests.tables import Table

@pytest.mark.parametrize("number", range(6))
def test_one_of_six(number, seed, tables):
    table = tables.setdefault("what was found", Table("what was found", ["off by"], 0.0, ".1f"))
    table.record("of all", "off by", float(number))
    table.record(os.environ["PYTEST_XDIST_WORKER"], "off by", 0.25)
    (Path(os.environ["SEEN"]) / f"{number} {seed} {os.environ['OMP_NUM_THREADS']}").touch()
    time.sleep(0.2)
"""
BY_ADDRESS = """
import pytest
@pytest.mark.parametrize("thing", [object()], ids=repr)
def test_it(thing): ...
"""


def run(root: Path, folder: Path, text: str, *options: str) -> subprocess.CompletedProcess[str]:
    """pytest on this one file, with our own settings."""
    (folder / "seen").mkdir()
    (folder / "test_shared.py").write_text(text)
    plugins = ["-p", "tests.conftest", "-p", "no:nbmake", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", *plugins, "-c", os.devnull, f"--rootdir={folder}", *options, str(folder)]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "OMP_"))}
    environment = kept | {"PYTHONPATH": str(root), "SEEN": str(folder / "seen")}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


def test_they_have_one_fresh_seed_and_their_part_of_the_cores_and_their_tables_are_put_together(
    root: Path, tmp_path: Path
):
    done = run(root, tmp_path, SHARED, "-n2", "--dist=each")
    assert done.returncode == 0, done.stdout + done.stderr
    numbers, seeds, threads = zip(*(path.name.split() for path in (tmp_path / "seen").iterdir()), strict=True)
    assert sorted(numbers) == list("012345") and len(set(seeds)) == 1
    assert f"seed: {seeds[0]} " in done.stdout
    assert set(threads) == {str(max(1, (os.cpu_count() or 1) // 2))}
    rows = [line.split() for line in done.stdout.partition("= what was found =")[2].splitlines()[2:5]]
    assert rows == [["gw0", "0.2"], ["gw1", "0.2"], ["of", "all", "5.0"]]


def test_a_name_that_is_another_in_each_process_is_refused_in_one_process_too(root: Path, tmp_path: Path):
    done = run(root, tmp_path, BY_ADDRESS, "-n0")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "is named by an address" in done.stderr and "ids=" in done.stderr


def test_a_table_keeps_the_value_farthest_from_perfect_wherever_it_was_recorded():
    one, two = (Table("scores", ["a", "b"], 1.0, ".2f") for _ in range(2))
    for table, column, value in ((one, "a", 0.9), (one, "a", 1.05), (two, "a", 1.2), (two, "b", 1.0), (one, "b", 0.99)):
        table.record("row", column, value)
    one.record("another, share", "b", 0.5)
    one.add(Table(**vars(two)))
    assert one.rows == {"row": {"a": 1.2, "b": 0.99}, "another, share": {"b": 0.5}}
    shown = [["a", "b"], ["another,", "share", "50.00%"], ["row", "1.20", "0.99"]]
    assert [line.split() for line in one.lines()] == shown
    with pytest.raises(ValueError, match="column 'c': expected one of"):
        one.record("row", "c", 1.0)
