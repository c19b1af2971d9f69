"""Sweeps: one measure over many cells, batched, resumable, and stopped without loss. No torch in here."""

from workbench.sweeps.engine import sweep, sweep_iter
from workbench.sweeps.grid import Cell, Grid
from workbench.sweeps.plan import batched
from workbench.sweeps.results import Failure, Interrupted, Results
from workbench.sweeps.runner import Runner, in_process

__all__ = [
    "Cell",
    "Failure",
    "Grid",
    "Interrupted",
    "Results",
    "Runner",
    "batched",
    "in_process",
    "sweep",
    "sweep_iter",
]
