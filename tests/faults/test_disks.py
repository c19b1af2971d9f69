"""A full disk, a journal that cannot be written, bytes that are gone: no finished cell is lost, and none is wrong."""

from __future__ import annotations

import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import warnings
from contextlib import contextmanager
from pathlib import Path

import pytest
import xarray as xr

from tests.faults.kept import names_in
from tests.faults.sweeping import HEADS, value_of
from workbench.sweeps import Grid, sweep
from workbench.sweeps.journal import JournalError

GRID = Grid(row=range(10), head=range(HEADS))


def measure(cells):
    return [value_of(cell["row"], cell["head"]) for cell in cells]


@pytest.fixture(scope="module")
def undisturbed() -> xr.Dataset:
    return sweep(measure, GRID, progress=False).to_xarray()


@pytest.fixture(autouse=True)
def no_records(monkeypatch):
    """They would stand on the full disk too, and say so."""
    monkeypatch.setenv("WORKBENCH_RECORDS", "off")


def swept(journal: Path, batch: int = 3) -> tuple[xr.Dataset, int]:
    """The whole sweep, and how many cells it had to measure."""
    new: list[int] = []
    found = sweep(
        measure, GRID, batch=batch, journal=journal, progress=False, on_result=lambda cell, value: new.append(1)
    )
    return found.to_xarray(), len(new)


# ---------------------------------------------------------------- a full disk


@contextmanager
def limited(folder: Path):
    """No file may grow beyond 4 kB: what a quota does, on any system and without rights."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        yield folder
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def full(folder: Path):
    """A disk of 8 kB: half of it is left for cells."""
    disk = folder / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", disk], check=True)
    try:
        yield disk
        shutil.copytree(disk, folder / "saved")
    finally:
        subprocess.run(["umount", disk], check=True)
    shutil.copytree(folder / "saved", disk, dirs_exist_ok=True)


def mounts() -> bool:
    """Whether a disk can be made here: on Linux, with the right to."""
    if sys.platform != "linux" or os.geteuid():
        return False
    with tempfile.TemporaryDirectory() as place:
        try:
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", place], check=True, capture_output=True)
            subprocess.run(["umount", place], check=True)
        except (OSError, subprocess.CalledProcessError):
            return False
    return True


@pytest.mark.parametrize("disk", [limited, *([full] if mounts() else [])], ids=lambda disk: disk.__name__)
def test_a_disk_that_fills_up_stops_the_sweep_in_words_and_costs_nothing_that_was_finished(tmp_path, undisturbed, disk):
    given: list[tuple[int, ...]] = []
    with (
        disk(tmp_path) as folder,
        pytest.raises(JournalError, match=r"could not be kept.*(No space|too large).*make room"),
    ):
        sweep(
            measure,
            GRID,
            batch=3,
            journal=folder / "journal",
            progress=False,
            on_result=lambda cell, value: given.append(cell.index),
        )
    kept = names_in(folder / "journal")
    assert 0 < len(given) < len(GRID) and len(kept) >= len(given) and set(kept.values()) == {1}
    whole, new = swept(folder / "journal")
    assert new == len(GRID) - len(kept)
    xr.testing.assert_identical(whole, undisturbed)


# ---------------------------------------------------------------- a journal that cannot be written


@contextmanager
def a_file_in_its_place(folder: Path):
    (folder / "journal").write_text("")
    yield folder / "journal"


@contextmanager
def below_a_file(folder: Path):
    (folder / "file").write_text("")
    yield folder / "file" / "journal"


@contextmanager
def read_only_disk(folder: Path):
    """Not even root writes to it."""
    disk = folder / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro,size=8k", "tmpfs", disk], check=True)
    try:
        yield disk / "journal"
    finally:
        subprocess.run(["umount", disk], check=True)


READ_ONLY = [a_file_in_its_place, below_a_file, *([read_only_disk] if mounts() else [])]


@pytest.mark.parametrize("place", READ_ONLY, ids=lambda place: place.__name__)
def test_a_journal_that_cannot_be_written_is_refused_before_anything_is_measured(tmp_path, place):
    with place(tmp_path) as folder, pytest.raises(JournalError, match="give journal= a folder that can be written to"):
        sweep(lambda cells: pytest.fail("measured"), GRID, journal=folder, progress=False)


@pytest.mark.skipif(not mounts(), reason="needs the right to mount a disk")
def test_a_finished_journal_on_a_read_only_disk_still_gives_its_cells_or_says_why_not(tmp_path, undisturbed):
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], check=True)
    try:
        swept(disk / "journal")
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        whole, new = swept(disk / "journal")
        assert new == 0
        xr.testing.assert_identical(whole, undisturbed)
    finally:
        subprocess.run(["umount", disk], check=True)


# ---------------------------------------------------------------- damaged segments


def cut(raw: bytes, chance: random.Random) -> bytes:
    return raw[: chance.randrange(1, len(raw))]


def flipped(raw: bytes, chance: random.Random) -> bytes:
    made = bytearray(raw)
    made[chance.randrange(len(raw))] ^= 1 << chance.randrange(8)
    return bytes(made)


def zeros_at_the_end(raw: bytes, chance: random.Random) -> bytes:
    """What a failure of power leaves on some file systems: the length is there and the bytes are not."""
    n = chance.randrange(1, len(raw))
    return raw[:-n] + bytes(n)


def two_segments(raw: bytes, chance: random.Random) -> bytes:
    """The file twice in one, as a careless copy makes it: each cell is there twice, with one value."""
    return raw + raw


@pytest.mark.parametrize("damage", [cut, flipped, zeros_at_the_end, two_segments], ids=lambda damage: damage.__name__)
def test_a_damaged_segment_costs_what_is_behind_the_damage_and_never_gives_a_wrong_number(
    tmp_path, undisturbed, seed, damage
):
    chance = random.Random(seed)
    for attempt in range(5):
        journal = tmp_path / f"{damage.__name__}-{attempt}"
        swept(journal)
        (path,) = journal.glob("*/*.cells")
        path.write_bytes(damage(path.read_bytes(), chance))
        kept = names_in(journal)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*not written whole.*")
            whole, new = swept(journal)
        assert new == len(GRID) - len(kept)
        xr.testing.assert_identical(whole, undisturbed)
        # The cells that were measured again are in a segment of their own, and whole.
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*not written whole.*")
            again, new = swept(journal)
        assert new == 0
        xr.testing.assert_identical(again, undisturbed)


def test_a_segment_that_is_gone_costs_its_cells_and_no_others(tmp_path, undisturbed):
    asked = iter([False] * 5 + [True] * 9)
    sweep(measure, GRID, batch=3, journal=tmp_path, progress=False, cancel=lambda: next(asked))
    (first,) = tmp_path.glob("*/*.cells")
    swept(tmp_path)
    first.unlink()
    whole, new = swept(tmp_path)
    assert new == 15
    xr.testing.assert_identical(whole, undisturbed)
