"""A sweep on any ``concurrent.futures.Executor``: threads, processes, or a Dask cluster's ``client.get_executor()``.

What travels is the measure, the model's recipe and the cells of a batch; never weights. A worker loads the model once.
"""

from __future__ import annotations

import hashlib
import pickle
import traceback
from collections import deque
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, CancelledError, Executor, Future, wait
from dataclasses import dataclass
from functools import cache
from typing import Any

from workbench.sweeps.grid import Cell
from workbench.sweeps.runner import Measure, Outcome

LOST = 3  # how often a batch may be lost with its worker before that is its result


class ExecutorError(RuntimeError):
    """The executor is gone: it was shut down, or broke with one of its processes."""


class WorkerError(RuntimeError):
    """What a measure raised in a worker, where the error itself cannot travel; holds its traceback as text."""


@dataclass(frozen=True)
class OnExecutor:
    """The runner that hands batches to an executor.

    Attributes:
        ahead: how many batches are under way at once; by default twice the executor's workers, or 8.
    """

    executor: Executor
    ahead: int | None = None

    def __call__(self, measure: Measure, batches: Iterator[list[Cell]]) -> Iterator[Outcome]:
        """Batches as they finish. One that is lost with its worker is sent again; the error of its measure is given."""
        task = packed(measure)
        most = self.ahead or 2 * (getattr(self.executor, "_max_workers", 0) or 4)
        under_way: dict[Future[Any], tuple[list[Cell], int]] = {}
        again: deque[tuple[list[Cell], int]] = deque()
        try:
            while True:
                self._fill(task, batches, under_way, again, most)
                if not under_way:
                    return
                done, _ = wait(under_way, return_when=FIRST_COMPLETED)
                for future in done:
                    cells, tries = under_way.pop(future)
                    lost, values = _outcome(future)
                    if lost and tries < LOST:
                        again.append((cells, tries + 1))
                    else:
                        yield cells, values
        finally:
            for future in under_way:
                future.cancel()

    def _fill(
        self,
        task: bytes,
        batches: Iterator[list[Cell]],
        under_way: dict[Future[Any], tuple[list[Cell], int]],
        again: deque[tuple[list[Cell], int]],
        most: int,
    ) -> None:
        while len(under_way) < most:
            cells, tries = again.popleft() if again else (next(batches, None), 0)
            if cells is None:
                return
            try:
                future = self.executor.submit(measured, task, [alone(cell) for cell in cells])
            except RuntimeError as error:  # shut down, or a pool one of whose processes was killed
                raise ExecutorError(
                    f"the executor takes no more work: {error}; what is finished is kept. Make a new executor and run "
                    "the sweep again with the same journal= or results="
                ) from error
            under_way[future] = cells, tries


def _outcome(future: Future[Any]) -> tuple[bool, Any]:
    """(whether it was lost with its worker, values or error)."""
    try:
        kind, found = future.result()
    except CancelledError as error:
        return True, RuntimeError(f"a batch was cancelled by the executor: {error}")
    except Exception as error:  # not of the measure, which is caught where it runs: the worker or the way to it
        return True, error
    return False, pickle.loads(found) if kind == "error" else found


def alone(cell: Cell) -> Cell:
    """A cell that carries its own values only, and not the axes of the whole grid."""
    return Cell({axis: (value,) for axis, value in cell.as_dict().items()}, (0,) * len(cell.index))


def packed(measure: Measure) -> bytes:
    """A measure as bytes; functions of a notebook travel by their code.

    Raises:
        TypeError: for one that holds what cannot travel (a model, an open file).
    """
    try:
        import cloudpickle
    except ImportError:  # then it must stand in a module that the workers can import
        cloudpickle = pickle
    try:
        return cloudpickle.dumps(measure)
    except Exception as error:
        raise TypeError(
            f"the measure cannot be sent to a worker: {error}; let it take the model as its first argument "
            "(sweep(measure, grid, model=…)) and hold nothing but plain data"
        ) from error


@cache
def _unpacked(digest: str) -> list[Measure]:
    """One place for each measure that this worker has met."""
    return []


def measured(task: bytes, cells: list[Cell]) -> tuple[str, Any]:
    """In the worker: ("values", what the measure gave) or ("error", its pickled error)."""
    place = _unpacked(hashlib.sha256(task).hexdigest())
    try:
        if not place:
            place.append(pickle.loads(task))
        values = place[0](cells)
        return "values", values.tolist() if hasattr(values, "tolist") else list(values)
    except Exception as error:  # belongs to these cells, and not to the worker
        return "error", _portable(error)


def _portable(error: Exception) -> bytes:
    try:
        found = pickle.dumps(error)
        pickle.loads(found)
        return found
    except Exception:  # an error that holds what cannot travel
        said = "".join(traceback.format_exception(error))
        return pickle.dumps(WorkerError(said))
