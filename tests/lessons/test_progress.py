"""Progress outlives the kernel, and nothing that happens to its file costs the student work."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from workbench.lessons.progress import Progress


@pytest.fixture
def path(tmp_path):
    return tmp_path / "lesson-progress.json"


def test_a_second_kernel_reads_what_the_first_wrote(path):
    Progress("04_attention", path).prediction("sink", "half", False)
    Progress("04_attention", path).attempt("pattern", "passed", "def pattern(): ...")
    Progress("05_induction", path).attempt("copying", "mistake", None)
    code = f"from workbench.lessons.progress import Progress; print(Progress('04_attention', {str(path)!r}).read())"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "'half'" in found and "'passed': True" in found and "def pattern()" in found
    assert "copying" not in found


def test_the_first_prediction_stays(path):
    progress = Progress("04_attention", path)
    progress.prediction("sink", "half", False)
    progress.prediction("sink", "all of it", True)
    assert progress.read()["predictions"]["sink"]["value"] == "half"


def test_what_passed_once_stays_passed_and_tries_are_counted(path):
    progress = Progress("04_attention", path)
    for kind in ("unfinished", "mistake", "passed", "wrong"):
        progress.attempt("pattern", kind, f"# {kind}")
    record = progress.read()["exercises"]["pattern"]
    assert (record["passed"], record["attempts"], record["source"]) == (True, 3, "# passed")


def test_a_file_that_cannot_be_read_is_kept_aside_and_said(path):
    path.write_text('{"lessons": {"04_att')
    with pytest.warns(UserWarning, match="cannot be read"):
        Progress("04_attention", path).attempt("pattern", "passed", None)
    assert [aside.read_text() for aside in path.parent.glob("*.broken-*.json")] == ['{"lessons": {"04_att']
    assert json.loads(path.read_text())["lessons"]["04_attention"]["exercises"]["pattern"]["passed"]


def test_where_nothing_can_be_written_it_is_kept_in_memory_and_said_once(tmp_path):
    progress = Progress("04_attention", tmp_path / "no such folder" / "p.json")
    with pytest.warns(UserWarning, match="in memory only") as warned:
        progress.attempt("pattern", "passed", None)
        progress.attempt("second", "passed", None)
    assert len(warned) == 1
    assert set(progress.read()["exercises"]) == {"pattern", "second"}


def test_a_write_that_fails_leaves_the_old_file_whole(path, monkeypatch):
    Progress("04_attention", path).attempt("pattern", "passed", None)
    before = path.read_text()
    monkeypatch.setattr("os.replace", lambda *names: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.warns(UserWarning, match="disk full"):
        Progress("04_attention", path).attempt("second", "passed", None)
    assert path.read_text() == before
