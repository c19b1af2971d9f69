"""A Dask worker that is killed at any moment, and another, and the next: the sweep does not show it."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter

import xarray as xr

from tests.faults.kept import names_in
from tests.faults.killing import depth
from tests.scale.measures import numbers
from workbench.sweeps import Grid, sweep

KILLS = depth(2, 10)
GRID = Grid(row=range(depth(40, 240)), head=range(8))  # of 10 ms each
WITHIN = depth(0.3, 0.7)  # seconds from one kill to the next, at most


class Killer(threading.Thread):
    """From the first result on, kills one worker after the other, each a process that no kill has met before."""

    def __init__(self, cluster, seed: int) -> None:
        super().__init__(daemon=True)
        self.cluster, self.chance, self.killed = cluster, random.Random(seed), list[int]()

    def run(self) -> None:
        for _ in range(KILLS):
            time.sleep(self.chance.uniform(0, WITHIN))
            while not (alive := self.alive()):  # both may be dead at once
                time.sleep(0.01)
            victim = self.chance.choice(alive)
            os.kill(victim, signal.SIGKILL)
            self.killed.append(victim)

    def alive(self) -> list[int]:
        """The workers that the scheduler knows, by their processes."""
        known = self.cluster.scheduler.workers
        nannies = [nanny for nanny in self.cluster.workers.values() if nanny.worker_address in known]
        return sorted(nanny.pid for nanny in nannies if nanny.pid and nanny.pid not in self.killed)


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
