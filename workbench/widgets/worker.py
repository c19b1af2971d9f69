"""One thread that owns a model: jobs wait in a line, report how far they are, and stop between two passes.

Callbacks of a widget come on whichever thread the kernel likes (ipykernel's changed with its versions); they only put
jobs into the line. What runs the model runs here, one job at a time.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal
from weakref import WeakKeyDictionary

from workbench.model.interrupts import finish_first
from workbench.provenance import quiet
from workbench.widgets.names import spelled

JobState = Literal["queued", "running", "done", "cancelled", "failed"]
Work = Callable[["Job"], Any]
_numbers = itertools.count(1)
LONGEST_ERROR = 1500  # characters: it may quote a text, or a file


class Cancelled(Exception):
    """The job was cancelled before it had a result."""


@dataclass(eq=False)
class Job:
    """Work on a model: a bar, a result, a way to stop it. ``job.wait()``, ``job.result()`` or ``await job``.

    Attributes:
        label: what is being done, in words.
        state: "queued", "running", "done", "cancelled" or "failed".
        done, total: how far it is, in its own units; total None where nobody knows.
        error: in words, of a job that failed.
        cancel_event: set when it is cancelled: what experiments take as ``cancel=``.
    """

    label: str
    work: Work = field(repr=False)
    worker: Worker = field(repr=False)
    view: str = ""
    total: int | None = None
    urgent: bool = False
    resumable: Callable[[], Job] | None = field(default=None, repr=False)
    on_change: Callable[[Job], None] | None = field(default=None, repr=False)
    id: int = field(default_factory=lambda: next(_numbers))
    state: JobState = "queued"
    done: int = 0
    error: str | None = None
    cancel_event: threading.Event = field(default_factory=threading.Event, repr=False)
    future: Future = field(default_factory=Future, repr=False)
    began: float | None = field(default=None, repr=False)
    ended: float | None = field(default=None, repr=False)

    @property
    def cancelled(self) -> bool:
        """Whether it was asked to stop."""
        return self.cancel_event.is_set()

    @property
    def rate(self) -> float | None:
        """Units done a second; None before the first."""
        if self.began is None or not self.done:
            return None
        return self.done / max((self.ended or time.monotonic()) - self.began, 1e-9)

    @property
    def seconds_left(self) -> float | None:
        """What is left at that rate; None where it cannot be known."""
        if self.total is None or self.rate is None or self.state != "running":
            return None
        return max(self.total - self.done, 0) / self.rate

    def report(self, done: int, total: int | None = None) -> None:
        """Say how far it is."""
        self.done, self.total = done, self.total if total is None else total
        self._changed()

    def breathe(self) -> bool:
        """Let urgent jobs go first; call it between two passes, with no hook on. Says whether to stop (``cancel=``)."""
        if not self.urgent:
            self.worker.run_urgent()
        return self.cancelled

    def stop_if_cancelled(self) -> None:
        """Raise :class:`Cancelled` if it was asked to stop."""
        if self.cancelled:
            raise Cancelled(self.label)

    def cancel(self) -> None:
        """Ask it to stop: at once if it waits, else after the pass that runs. What is done is kept."""
        self.cancel_event.set()
        self.worker.drop(self)

    def resume(self) -> Job:
        """A new job that goes on where this one stopped.

        Raises:
            ValueError: for work that cannot be gone on with.
        """
        if self.resumable is None:
            raise ValueError(f"{self.label!r} cannot be gone on with; start it again")
        return self.resumable()

    def wait(self, timeout: int | float | None = None) -> Job:
        """Wait until it is over, however it ends, and return it.

        Raises:
            TimeoutError: if it is not over in ``timeout`` seconds; it goes on.
        """
        try:
            self.future.exception(timeout)
        except TimeoutError:
            raise TimeoutError(f"{self.label!r} is not over after {timeout} s; it goes on") from None
        return self

    def result(self, timeout: int | float | None = None) -> Any:
        """Wait for what it gives.

        Raises:
            Cancelled: if it was stopped before it had a result.
            Exception: what the work raised.
        """
        if self.worker.here and self.worker.claim(self):
            self.worker.run(self)  # waiting for a job behind us in our own line would be for ever
        return self.future.result(timeout)

    def __await__(self) -> Generator[Any, None, Any]:
        return asyncio.wrap_future(self.future).__await__()

    def _changed(self) -> None:
        if self.on_change is not None:
            self.on_change(self)

    def _finish(self, state: JobState, result: Any = None, error: BaseException | None = None) -> None:
        self.ended = time.monotonic()
        self.state, self.error = state, None if state != "failed" or error is None else in_words(error)
        if error is None:
            self.future.set_result(result)
        else:
            self.future.set_exception(error)
        self._changed()


class Worker:
    """The thread of one model. ``Worker.of(model)`` gives the one that it has."""

    _of_model: ClassVar[WeakKeyDictionary[Any, Worker]] = WeakKeyDictionary()
    _lock_of_models: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self) -> None:
        self._line: list[tuple[bool, int, Job]] = []
        # By itself, too: a Condition's own way out of a block can be interrupted, and would leave it locked.
        self._lock = threading.RLock()
        self._more = threading.Condition(self._lock)
        self._thread: threading.Thread | None = None

    @classmethod
    def of(cls, model: Any) -> Worker:
        """The worker of a model, the same for every widget on it."""
        with cls._lock_of_models:
            if model not in cls._of_model:
                cls._of_model[model] = cls()
            return cls._of_model[model]

    @property
    def here(self) -> bool:
        """Whether the caller is on this worker's thread."""
        return threading.current_thread() is self._thread

    def submit(self, work: Work, label: str, **about: Any) -> Job:
        """Put work into the line; urgent work goes before the rest.

        Args:
            work: called with its :class:`Job`.
            about: the job's other fields.
        """
        job = Job(label, work, self, **about)
        finish_first(lambda: self._put(job))
        job._changed()
        return job

    def _put(self, job: Job) -> None:
        with self._lock:
            heapq.heappush(self._line, (not job.urgent, job.id, job))
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._loop, name="workbench model", daemon=True)
                self._thread.start()
            self._more.notify()

    def claim(self, job: Job) -> bool:
        """Take a waiting job out of the line; False if it runs or is over."""
        with self._lock:
            entry = (not job.urgent, job.id, job)
            if entry not in self._line:
                return False
            self._line.remove(entry)
            heapq.heapify(self._line)
            return True

    def drop(self, job: Job) -> None:
        """End a job that still waits."""

        def end() -> None:
            if self.claim(job):
                job._finish("cancelled", error=Cancelled(job.label))

        finish_first(end)

    def run_urgent(self) -> None:
        """Run what is urgent and waits, now, on this thread."""
        while True:
            with self._lock:
                if not self._line or self._line[0][0]:
                    return
                job = heapq.heappop(self._line)[2]
            self.run(job)

    def run(self, job: Job) -> None:
        """Run one claimed job to its end; whatever it raises is kept in it."""
        if job.cancelled:
            job._finish("cancelled", error=Cancelled(job.label))
            return
        job.state, job.began = "running", time.monotonic()
        job._changed()
        try:
            with quiet():  # what is only looked at leaves no record; see Runs._begin for what does
                result = job.work(job)
        except Cancelled as error:
            job._finish("cancelled", error=error)
        except BaseException as error:  # also SystemExit of a user's metric: the thread must go on
            job._finish("failed", error=error)
        else:
            job._finish("cancelled" if job.cancelled else "done", result)

    def _loop(self) -> None:
        idle = 30.0  # seconds: a thread that nobody needs goes, and comes again with the next job
        while True:
            with self._lock:
                if not self._line and not self._more.wait_for(lambda: bool(self._line), idle):
                    self._thread = None
                    return
                job = heapq.heappop(self._line)[2]
            self.run(job)
            del job  # its closure may hold runs


def in_words(error: BaseException) -> str:
    """An exception as one message: what our own errors say, with the type before what others say."""
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    ours = isinstance(error, ValueError | KeyError | TypeError | MemoryError) and text
    return spelled((text if ours else f"{type(error).__name__}: {text}".rstrip(": "))[:LONGEST_ERROR])
