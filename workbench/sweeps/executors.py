"""A sweep on any ``concurrent.futures.Executor``: threads, processes, or a Dask cluster's ``client.get_executor()``.

What travels is the measure, the model's recipe and the cells of a batch; never weights. A worker loads the model once.
"""

from __future__ import annotations

import itertools
import pickle
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future
from dataclasses import dataclass
from typing import Any

from workbench.sweeps.cluster import Pool, workers_of
from workbench.sweeps.flight import LOST, Flight
from workbench.sweeps.grid import Cell
from workbench.sweeps.runner import Measure, Outcome
from workbench.sweeps.workers import LATER, UNABLE, Task, WorkerError, alone, measured, packed, pickler

__all__ = ["LOST", "ExecutorError", "OnExecutor", "WorkerError"]

KEPT = "what is finished is kept. Make a new executor and run the sweep again with the same journal= or results="


class ExecutorError(RuntimeError):
    """The executor is gone, or a worker cannot begin. No cell has failed: those that are left are merely unmeasured."""


@dataclass(frozen=True)
class OnExecutor:
    """The runner that hands batches to an executor.

    Attributes:
        ahead: how many tasks are under way at once; by default twice the executor's workers.
    """

    executor: Executor
    ahead: int | None = None

    def __call__(self, measure: Measure, batches: Iterator[list[Cell]]) -> Iterator[Outcome]:
        """Batches as they finish. One that is lost with its worker is sent again; the error of its measure is given.

        After a cancel, those that a worker has are waited for. Where no worker has any, none is.

        Raises:
            ExecutorError: the executor takes no more work, or a worker cannot load the measure or the model.
            TypeError: the measure cannot travel.
        """
        return _Batches(packed(measure), batches, workers_of(self.executor, "sweep"), self.ahead).outcomes()


@dataclass
class _Batch:
    cells: list[Cell]
    sent: int = 0


class _Batches:
    """The batches of a sweep: how often each was sent, and what came of it."""

    def __init__(self, task: Task, batches: Iterator[list[Cell]], workers: Pool, ahead: int | None) -> None:
        self._task, self._batches, self._workers = task, batches, workers
        self._flight = Flight[list[_Batch]](workers, self._next, self._send, _stopped_of(batches), ahead)
        self._again: deque[_Batch] = deque()
        # Cells that stood beside one that kills its worker look like it. They are tried again with nothing beside them.
        self._suspects: deque[_Batch] = deque()
        self._tried_alone: set[tuple[int, ...]] = set()

    def outcomes(self) -> Iterator[Outcome]:
        """The runner's."""
        for batches, future in self._flight.landed():
            yield from self._outcomes(future, batches)
        if (over := self._flight.over) is not None:
            raise ExecutorError(f"{over}; {KEPT}") from over.__cause__

    def _next(self) -> list[_Batch] | None:
        """What goes into one task: first what was lost, alone; last a suspect, when nothing else is under way."""
        if self._again:
            return [self._again.popleft()]
        batches = [_Batch(cells) for cells in itertools.islice(self._batches, self._workers.at_once)]
        if not batches and self._suspects and self._flight.empty:
            return [self._suspects.popleft()]
        return batches or None

    def _send(self, batches: list[_Batch]) -> Future[Any]:
        cells = [pickler()([alone(cell) for cell in batch.cells]) for batch in batches]
        future = self._workers.submit(measured, self._task, cells, seconds=self._workers.seconds)
        for batch in batches:
            batch.sent += 1
        return future

    def _outcomes(self, future: Future[Any], batches: list[_Batch]) -> Iterator[Outcome]:
        try:
            answers, seconds = future.result()
        except (CancelledError, BrokenExecutor) as error:  # says nothing about the cells
            self._flight.lost("a batch", max(batch.sent for batch in batches), error)
            self._again.extend(batches)
        except Exception as error:  # not of the measure, which is caught where it runs: the worker or the way to it
            yield from ((batch.cells, error) for batch in batches if not self._sent_again(batch, len(batches), error))
        else:
            if answers[0][0] == UNABLE:
                error = pickle.loads(answers[0][1])
                self._flight.end(f"a worker cannot begin: {error}", error)
                return
            self._workers.took(seconds)
            for batch, (kind, found) in zip(batches, answers, strict=True):
                if kind == LATER:
                    self._again.append(_Batch(batch.cells))
                else:
                    yield batch.cells, pickle.loads(found)

    def _sent_again(self, batch: _Batch, n: int, error: Exception) -> bool:
        """Whether a batch that was lost among n of one task gets another try."""
        if type(error).__name__ != "KilledWorker":
            again = self._flight.lost("a batch", batch.sent, error)
        elif n > 1:
            again = True
        else:  # Dask has tried it on several workers, and all were killed: the engine tries it in parts
            if suspect := len(batch.cells) == 1 and batch.cells[0].index not in self._tried_alone:
                self._tried_alone.add(batch.cells[0].index)
                self._suspects.append(batch)
            return suspect
        if again:
            self._again.append(batch)
        return again


def _stopped_of(batches: Any) -> Callable[[], bool]:
    """A plan says whether it was cancelled without giving a batch; other iterators end when they are."""
    return getattr(batches, "stopped", lambda: False)
