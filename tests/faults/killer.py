"""Kills the workers of a Dask cluster, one after the other."""

from __future__ import annotations

import os
import random
import signal
import threading
import time

from distributed import LocalCluster

from tests.faults.killing import depth

KILLS = depth(2, 10)
WITHIN = depth(0.3, 0.7)  # seconds from one kill to the next, at most


class Killer(threading.Thread):
    """Once it is started, kills one worker after the other, each a process that no kill has met before."""

    def __init__(self, cluster: LocalCluster, seed: int) -> None:
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
