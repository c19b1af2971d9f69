"""A sweep whose process is killed at any moment, as often as you like, ends as one that nobody disturbed."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import xarray as xr

from tests.faults.kept import lines_of, names_in
from tests.faults.killing import FULL, depth, live, lives
from tests.faults.sweeping import HEADS
from workbench.sweeps import Grid
from workbench.sweeps.study import name_of

SCRIPT = Path(__file__).with_name("sweeping.py")
# (what is asked, rows of 8 cells, kills, cells after any of which a kill may come): more work than there are kills for.
NUMBERS = ((), depth(45, 150), depth(4, 20), 40)
NANO = (("nano",), 40, 3, 80)
WITHIN = 0.05  # seconds after that cell

CASES = {"numbers": NUMBERS} | ({"nano": NANO} if FULL else {})


@pytest.mark.parametrize("how", CASES.values(), ids=CASES)
def test_a_sweep_killed_at_random_moments_loses_and_repeats_nothing_and_ends_the_same(tmp_path, seed, how):
    of_model, rows, kills, cells = how
    names = {name_of(cell): str(number) for number, cell in enumerate(Grid(row=range(rows), head=range(HEADS)))}
    journal, measured = tmp_path / "journal", tmp_path / "measured"
    finished: list[set[str]] = [set()]
    begun = [0]  # of the lines in `measured`, where each life began

    def look(life) -> None:
        kept = {names[name]: times for name, times in names_in(journal).items()}
        assert set(kept.values()) <= {1}  # none is doubled
        assert set(life.lines[1:]) <= set(kept)  # what was given is kept
        assert finished[-1] <= set(kept)  # and stays
        finished.append(set(kept))
        begun.append(len(lines_of(measured)))

    whole = tmp_path / "whole.nc"
    found = lives(
        SCRIPT,
        (journal, measured, whole, rows, *of_model),
        kills=kills,
        within=WITHIN,
        lines=cells,
        seed=seed,
        between=look,
        environment={"OMP_NUM_THREADS": "1"},
    )
    assert 0 < len(finished[-1]) < len(names)  # the kills fell into the work
    look(found[-1])
    assert sum(life.killed for life in found) == kills
    lines = lines_of(measured)
    for before, start, end in zip(finished, begun, begun[1:], strict=False):
        assert not before & set(lines[start:end])  # nothing that was finished is measured again
        assert max(Counter(lines[start:end]).values(), default=0) <= 1
    assert finished[-1] == set(names.values())
    undisturbed = tmp_path / "undisturbed.nc"
    alone = live(SCRIPT, ("none", tmp_path / "other", undisturbed, rows, *of_model), None, {"OMP_NUM_THREADS": "1"})
    assert alone.status == 0, alone.errors
    with xr.open_dataset(whole) as one, xr.open_dataset(undisturbed) as other:
        xr.testing.assert_identical(one.load(), other.load())


def test_two_processes_that_sweep_with_one_journal_at_once_both_end_whole(tmp_path):
    rows = 12
    arguments = [(tmp_path / "journal", tmp_path / f"measured-{i}", tmp_path / f"{i}.nc", rows) for i in range(2)]
    with ThreadPoolExecutor(2) as both:
        found = list(both.map(lambda given: live(SCRIPT, given), arguments))
    assert [life.status for life in found] == [0, 0], found
    names = {name_of(cell) for cell in Grid(row=range(rows), head=range(HEADS))}
    assert set(names_in(tmp_path / "journal")) == names
    # A third finds every cell, and gives what the two did.
    third = live(SCRIPT, (tmp_path / "journal", tmp_path / "measured-third", tmp_path / "third.nc", rows))
    assert third.status == 0 and third.lines == ["ready"] and not (tmp_path / "measured-third").exists()
    with xr.open_dataset(tmp_path / "third.nc") as expected:
        for i in range(2):
            with xr.open_dataset(tmp_path / f"{i}.nc") as made:
                xr.testing.assert_identical(made, expected)
