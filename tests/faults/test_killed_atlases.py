"""An atlas whose process is killed at any moment, as often as you like, ends byte for byte as an undisturbed one."""

from __future__ import annotations

import json
import resource
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

import workbench as wb
from tests.atlases.conftest import contents
from tests.faults.killing import live
from tests.faults.mapping import SETTINGS, SITES, corpus, lines_of
from tests.faults.test_disks import mounts
from tests.small import as_in_a_notebook  # noqa: F401
from workbench.atlases import AtlasError
from workbench.atlases.folder import Folder

SCRIPT = Path(__file__).with_name("mapping.py")
N = 500  # documents
# Checking types at each call takes most of the time, and is done in the tests of atlases.
pytestmark = pytest.mark.usefixtures("as_in_a_notebook")
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "WORKBENCH_RECORDS": "off"}


def built(folder: Path, n: int) -> Path:
    """In this process."""
    wb.atlas(wb.load("nano"), corpus(n), folder, sites=SITES, **SETTINGS)
    return folder


def undisturbed(folder: Path, n: int) -> Path:
    """In this process, with as many threads as the script has: sums are then the same to the last bit."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return built(folder, n)
    finally:
        torch.set_num_threads(before)


@contextmanager
def full(disk: Path, n_bytes: int) -> Iterator[None]:
    """A disk of so many bytes, where one can be made; else files may not grow beyond a fraction of it."""
    if mounts():
        disk.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={n_bytes}", "tmpfs", disk], check=True)
        try:
            yield
        finally:
            subprocess.run(["umount", disk], check=True)
    else:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes // 4, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture(scope="module")
def killed(tmp_path_factory, seed) -> tuple[Path, list[dict], str]:
    """Where the atlases are, what was said of each life, and the errors."""
    folder = tmp_path_factory.mktemp("killed")
    kills = 20
    life = live(SCRIPT, (folder, N, kills, seed), None, ENVIRONMENT)
    assert life.status == 0, life.errors
    found = [json.loads(line) for line in life.lines]
    assert len(found) == kills + 2
    return folder, found, life.errors


def test_an_atlas_killed_at_random_moments_loses_and_repeats_nothing_and_ends_the_same(killed, tmp_path):
    folder, said, errors = killed
    *lives, last, _ = said
    assert {life["status"] for life in lives} == {-signal.SIGKILL} and last["status"] == 0
    assert "is not whole" not in errors  # a kill leaves no part torn
    before: dict[str, int] = {}
    for life in lives:
        assert before.items() <= life["parts"].items()  # what was finished stays
        before = life["parts"]
    whole = wb.atlas.open(folder / "killed")
    assert whole.complete and 0 < len(before) < len(whole.parts)  # the kills fell into the work
    ran = lines_of(folder / "passes")[lives[-1]["passes"] :]
    few = wb.atlas.open(folder / "both")
    # What was not finished is run once, and nothing else; then the two that were at it together.
    assert sum(ran) == whole.n_tokens - sum(before.values()) + few.n_tokens
    assert not list(folder.rglob("*.aside"))
    assert contents(folder / "killed") == contents(undisturbed(tmp_path / "b", N))


def test_two_processes_on_one_folder_leave_one_whole_atlas(killed, tmp_path):
    folder, said, errors = killed
    # One was refused, unless it came when the other was done and found it whole.
    assert sorted(said[-1]["both"]) in ([0, 0], [0, 3]) and (
        said[-1]["both"] == [0, 0] or errors.count("another build is at work") == 1
    )
    assert wb.atlas.open(folder / "both").complete
    assert contents(folder / "both") == contents(undisturbed(tmp_path / "b", 120))


@pytest.mark.parametrize("limit", (40_000, 150_000))
def test_a_disk_that_fills_up_is_said_and_costs_no_finished_part(tmp_path, limit):
    disk, n = tmp_path / "disk", 120
    with full(disk, limit):
        with pytest.raises(AtlasError, match=r"cannot be (written|made).*(No space|too large)|make room"):
            built(disk / "a", n)
        parts = Folder(disk / "a").parts(whole=True)
        shutil.copytree(disk / "a", tmp_path / "a")
    built(tmp_path / "a", n)
    whole = wb.atlas.open(tmp_path / "a")
    assert parts.items() <= {part.number: part for part in whole.parts}.items()
    assert contents(tmp_path / "a") == contents(undisturbed(tmp_path / "b", n))
