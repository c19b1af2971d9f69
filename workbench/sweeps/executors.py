"""A sweep on any ``concurrent.futures.Executor``: threads, processes, or a Dask cluster's ``client.get_executor()``.

What travels is the measure, the model's recipe and the cells of a batch; never weights. A worker loads the model once.
"""

from __future__ import annotations

import itertools
import pickle
import time
import warnings
from collections import deque
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, CancelledError, Executor, Future, wait
from dataclasses import dataclass
from typing import Any

from workbench.sweeps.grid import Cell
from workbench.sweeps.runner import Measure, Outcome
from workbench.sweeps.workers import LATER, UNABLE, Task, WorkerError, alone, measured, packed, pickler

__all__ = ["ExecutorError", "OnExecutor", "WorkerError"]

LOST = 3  # how often a batch that was lost on its way is sent again
LOOK = 2.0  # seconds between two looks at the cluster
AHEAD = 2  # tasks under way for each worker: one is measured, one waits for it
# A task costs Dask about a millisecond. Short batches go several in a task, and are still measured one by one.
SLICE = 0.2  # seconds that a task should last
MOST = 64  # batches in it
NOBODY = 60.0  # seconds without a worker after which this is said
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

        Raises:
            ExecutorError: the executor takes no more work, or a worker cannot load the measure or the model.
            TypeError: the measure cannot travel.
        """
        workers = _Cluster(self.executor) if hasattr(self.executor, "_client") else _Pool(self.executor)
        return _Flight(packed(measure), batches, workers, self.ahead).outcomes()


@dataclass
class _Batch:
    cells: list[Cell]
    sent: int = 0


class _Flight:
    """What is under way, how often it was sent, and why no more is sent."""

    def __init__(self, task: Task, batches: Iterator[list[Cell]], workers: _Pool, ahead: int | None) -> None:
        self._task, self._batches, self._workers, self._ahead = task, batches, workers, ahead
        self._under_way: dict[Future[Any], list[_Batch]] = {}
        self._again: deque[_Batch] = deque()
        # Cells that stood beside one that kills its worker look like it. They are tried again with nothing beside them.
        self._suspects: deque[_Batch] = deque()
        self._tried_alone: set[tuple[int, ...]] = set()
        self._over: ExecutorError | None = None

    def outcomes(self) -> Iterator[Outcome]:
        """The runner's."""
        try:
            while True:
                self._fill()
                if not self._under_way:
                    break
                # Once it is over, what has come meanwhile is still given, and nothing more is waited for.
                done, _ = wait(self._under_way, LOOK if self._over is None else 0, FIRST_COMPLETED)
                if self._over is not None and not done:
                    break
                for future in done:
                    yield from self._outcomes(future, self._under_way.pop(future))
            if self._over is not None:
                raise self._over
        finally:
            for future in self._under_way:
                future.cancel()

    def _fill(self) -> None:
        try:
            room = self._ahead or self._workers.room()
            while self._over is None and len(self._under_way) < room and (batches := self._next()):
                cells = [pickler()([alone(cell) for cell in batch.cells]) for batch in batches]
                self._under_way[self._workers.submit(self._task, cells)] = batches
                for batch in batches:
                    batch.sent += 1
        except _Gone as error:
            self._over = ExecutorError(f"the executor takes no more work: {error}; {KEPT}")

    def _next(self) -> list[_Batch]:
        """What goes into one task: first what was lost, alone; last a suspect, when nothing else is under way."""
        if self._again:
            return [self._again.popleft()]
        batches = [_Batch(cells) for cells in itertools.islice(self._batches, self._workers.at_once)]
        if not batches and self._suspects and not self._under_way:
            return [self._suspects.popleft()]
        return batches

    def _outcomes(self, future: Future[Any], batches: list[_Batch]) -> Iterator[Outcome]:
        try:
            answers, seconds = future.result()
        except (CancelledError, BrokenExecutor) as error:  # says nothing about the cells
            sent = max(batch.sent for batch in batches)
            if self._over is None and (isinstance(error, BrokenExecutor) or sent > LOST):
                self._over = ExecutorError(f"a batch was lost {sent} times: {error!r}; {KEPT}")
            self._again.extend(batches)
        except Exception as error:  # not of the measure, which is caught where it runs: the worker or the way to it
            yield from ((batch.cells, error) for batch in batches if not self._sent_again(batch, len(batches), error))
        else:
            if answers[0][0] == UNABLE:
                self._cannot_begin(pickle.loads(answers[0][1]))
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
            again = batch.sent <= LOST
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

    def _cannot_begin(self, error: Exception) -> None:
        if self._over is None:
            self._over = ExecutorError(f"a worker cannot begin: {error}; {KEPT}")
            self._over.__cause__ = error


# ---------------------------------------------------------------- the two kinds of executors


class _Gone(Exception):
    """The executor takes no more work."""


class _Pool:
    """Threads or processes of this machine, or any executor of which nothing more is known."""

    def __init__(self, executor: Any) -> None:
        self.executor = executor

    at_once = 1  # batches in a task

    def took(self, seconds: float) -> None:
        """Seconds that a batch took."""

    def room(self) -> int:
        """How many tasks to have under way."""
        return AHEAD * (getattr(self.executor, "_max_workers", None) or 4)

    def submit(self, task: Task, cells: list[bytes], **how: Any) -> Future[Any]:
        """Send some batches.

        Raises:
            _Gone: it was shut down, or broke with one of its processes.
        """
        try:
            return self.executor.submit(measured, task, cells, **how)
        except RuntimeError as error:
            raise _Gone(str(error)) from error


class _Cluster(_Pool):
    """Dask. Workers come and go, and the scheduler may be away for a while."""

    def __init__(self, executor: Any) -> None:
        super().__init__(executor)
        self.client = executor._client
        self._looked = -LOOK
        self._seen = time.monotonic()  # when there were workers
        self._threads = 0

    def room(self) -> int:
        self._connected()
        if time.monotonic() - self._looked > LOOK:
            self._threads = sum(self.client.nthreads().values())
            self._looked = time.monotonic()
            self._say_nobody()
        return AHEAD * max(self._threads, 2)  # something must wait, or a cluster that adapts begins no worker

    def _say_nobody(self) -> None:
        if self._threads:
            self._seen = self._looked
        elif self._looked - self._seen > NOBODY:
            self._seen = float("inf")
            warnings.warn(f"{self.client.scheduler.address} has no workers: the sweep waits for one", stacklevel=2)

    def took(self, seconds: float) -> None:
        self.at_once = max(1, min(MOST, int(SLICE / max(seconds, 1e-6))))

    def submit(self, task: Task, cells: list[bytes], **how: Any) -> Future[Any]:
        self._connected()
        if self.executor._shutdown:
            raise _Gone("cannot schedule new futures after shutdown")
        # Not pure: the same batch sent again is another task, and not the one that was lost.
        how = {"seconds": 2 * SLICE, **self.executor._kwargs, **how, "pure": False}
        try:
            sent = self.client.submit(measured, task, cells, **how)
        except Exception as error:
            raise _Gone(str(error)) from error
        self.executor._futures.add(sent)
        found: Future[Any] = Future()
        found.add_done_callback(lambda found: found.cancelled() and sent.status != "cancelled" and sent.cancel())
        self.client.loop.add_callback(_follow, self.client, sent, found)
        return found

    def _connected(self) -> None:
        """Waits for a client that lost its scheduler and looks for it; it gives up by itself."""
        while self.client.status == "connecting":
            time.sleep(0.1)
        if self.client.status != "running":
            raise _Gone(f"the Dask client is {self.client.status}; its scheduler is gone, or it was closed")


async def _follow(client: Any, sent: Any, found: Future[Any]) -> None:
    """Give what came of a Dask future to one of Python's, whatever that is.

    Dask's own executor does not: it drops an error of the way back, as after a restart, and its future never ends.
    """
    try:
        value = await client.gather(sent, asynchronous=True)
    except BaseException as error:
        if sent.status == "cancelled" or not isinstance(error, Exception):
            found.cancel()
            found.set_running_or_notify_cancel()
        elif not found.cancelled():
            found.set_exception(error)
    else:
        if found.set_running_or_notify_cancel():
            found.set_result(value)
