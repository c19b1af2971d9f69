"""A Dask worker that is killed at any moment, and another, and the next: the sweep does not show it."""

from __future__ import annotations

from collections import Counter

import xarray as xr

from tests.faults.kept import names_in
from tests.faults.killer import KILLS, Killer
from tests.faults.killing import depth
from tests.scale.measures import numbers
from workbench.sweeps import Grid, sweep

GRID = Grid(row=range(depth(40, 240)), head=range(8))  # of 10 ms each


def test_workers_killed_at_random_moments_cost_no_cell_and_change_none(client, tmp_path, seed):
    killer, given = Killer(client.cluster, seed), Counter()

    def look(cell, value):
        given[cell.index] += 1
        if len(given) == 1:
            killer.start()

    made = sweep(
        numbers, GRID, batch=4, executor=client.get_executor(), journal=tmp_path, progress=False, on_result=look
    )
    assert len(killer.killed) == KILLS  # all of them in the middle of the sweep
    assert set(given.values()) == {1} and len(given) == len(GRID) and not made.failures
    assert set(names_in(tmp_path).values()) == {1}
    xr.testing.assert_identical(made.to_xarray(), sweep(numbers, GRID, batch=4, progress=False).to_xarray())
