"""Who calls the measure. In this process, one batch after the other; another runner may spread them out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol, runtime_checkable

from workbench.sweeps.grid import Cell

Measure = Callable[[list[Cell]], Any]
Outcome = tuple[list[Cell], Any]


@runtime_checkable
class Runner(Protocol):
    """Measures batches and gives (batch, values) as they finish, in any order; values may be the error of a batch.

    It asks ``batches`` for the next one only when it has room for it: the iterator ends when the sweep is cancelled,
    and a batch that failed comes back in parts after its outcome was given. It must give an outcome for every batch
    that it took, unless the whole sweep is interrupted.
    """

    def __call__(self, measure: Measure, batches: Iterator[list[Cell]]) -> Iterator[Outcome]: ...


def in_process(measure: Measure, batches: Iterator[list[Cell]]) -> Iterator[Outcome]:
    """The runner of this process: a batch is asked for when the one before is measured and recorded."""
    for batch in batches:
        try:
            values = measure(batch)
        except Exception as error:  # whatever a measure raises belongs to its cells, not to the sweep
            values = error
        yield batch, values
