"""A sweep as an experiment's caller watches it: a bar, each result as it comes, cancelled, gone on with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import xarray as xr

from workbench.sweeps import Cell, Grid, Results, sweep

Cancel = Any  # a threading.Event, or a function that gives true


def asked_to_stop(cancel: Cancel) -> bool:
    """Whether someone has cancelled."""
    asked = getattr(cancel, "is_set", cancel)
    return asked is not None and bool(asked())


@dataclass(frozen=True, eq=False)
class Watch:
    """What every experiment that sweeps takes.

    Attributes:
        progress: show a bar.
        cancel: an Event, or a function that gives true: no further pass is begun, and what is done is returned.
        on_result: called with each cell and its value as soon as it is there.
        resume: what the same call returned when it was cancelled; its finished cells are not measured again.
    """

    progress: bool = True
    cancel: Cancel = None
    on_result: Callable[[Cell, Any], None] | None = None
    resume: xr.Dataset | None = None

    def through(
        self,
        measure: Callable[[list[Cell]], Any],
        grid: Grid,
        batches: Callable[[Iterable[Cell]], Iterator[list[Cell]]],
        results: Results,
    ) -> Iterator[tuple[Cell, Any]]:
        """Every finished cell and its value, in the order of the grid. What a measure raises is raised here."""
        sweep(
            measure,
            grid,
            batches=batches,
            progress=self.progress,
            cancel=self.cancel,
            on_result=self._heard,
            results=results,
        )
        return iter(results)

    def _heard(self, cell: Cell, value: Any) -> None:
        if isinstance(value, Exception):
            raise value  # a metric that fails on one cell is wrong: nobody wants a grid with holes
        if self.on_result is not None:
            self.on_result(cell, value)
