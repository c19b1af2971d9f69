"""Work on the model, and what of it goes to the screen."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from workbench.widgets.streams import Streams
from workbench.widgets.worker import Job, Worker

Message = Callable[[dict[str, Any], Mapping[str, np.ndarray]], None]


def _silence(message: dict[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Nobody listens."""


class Jobs:
    """The jobs of one session, in the line of its model's worker.

    Attributes:
        send: takes every message to the screen; whoever shows the session sets it.
    """

    def __init__(self, model: Any) -> None:
        self.worker, self.streams = Worker.of(model), Streams()
        self.send: Message = _silence
        self._lock = threading.RLock()
        self._jobs: list[Job] = []
        self._replaceable: dict[str, Job] = {}
        self._numbers = itertools.count(1)  # of streamed messages

    def wait(self, timeout: int | float | None = None) -> None:
        """Wait for everything that is under way, runs and jobs.

        Raises:
            TimeoutError: if it takes longer.
            KeyboardInterrupt: all jobs are cancelled then.
        """
        try:
            while unfinished := self.under_way():
                unfinished[0].wait(timeout)
        except KeyboardInterrupt:
            for job in self.under_way():
                job.cancel()
            raise

    def submit(
        self,
        work: Callable[[Job], Any],
        label: str,
        *,
        view: str = "",
        total: int | None = None,
        replaces: str | None = None,
        urgent: bool = False,
        resumable: Callable[[], Job] | None = None,
    ) -> Job:
        """Put work on the model into its line.

        Args:
            work: called with its Job on the worker's thread; see worker.py.
            label: what is done, in words.
            view: the view that asked.
            total: in the units that the work reports.
            replaces: a newer job of this name cancels an older one.
            urgent: goes before other work, also between the passes of a job that breathes.
            resumable: makes the job that goes on after a cancel.
        """
        with self._lock:
            older = self._replaceable.get(replaces) if replaces else None
        if older is not None:
            older.cancel()
        job = self.worker.submit(
            work, label, view=view, total=total, urgent=urgent, resumable=resumable, on_change=self._on_job
        )
        with self._lock:
            if replaces:
                self._replaceable[replaces] = job
            kept = [j for j in self._jobs if not j.future.done() or (j.view and j.view != view)]
            self._jobs = [*kept[-15:], job]
        self._on_job(job)
        return job

    @property
    def jobs(self) -> list[Job]:
        """Jobs under way, and the last of each view."""
        with self._lock:
            return list(self._jobs)

    def job(self, id: int) -> Job:
        """A job by its number.

        Raises:
            ValueError: for one that is not there.
        """
        for job in self.jobs:
            if job.id == id:
                return job
        raise ValueError(f"there is no job {id}; there are {[job.id for job in self.jobs]}")

    def stream(self, view: str, key: str, json: dict[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        """Push to the screen, at most twenty times a second for each view and key; the newest wins."""
        message = {"did": "stream", "view": view, "key": key, "json": json}
        number = next(self._numbers)  # two threads may send at once: what came later must not be overtaken
        self.streams.push(("stream", view, key), lambda: self.send({**message, "number": number}, arrays))

    def flush(self, view: str, key: str) -> None:
        """Push what waits for its turn."""
        self.streams.flush(("stream", view, key))

    def tell(self) -> None:
        """Push the state to the screen."""
        self.send({"did": "state"}, {})

    def on_worker(self, work: Callable[[], Any], label: str) -> Any:
        """Do it on the model's thread and wait for it."""
        return work() if self.worker.here else self.submit(lambda job: work(), label, urgent=True).result()

    def under_way(self) -> list[Job]:
        """Jobs that are not over."""
        return [job for job in self.jobs if not job.future.done()]

    def _on_job(self, job: Job) -> None:
        self.streams.push("jobs", lambda: self.send({"did": "jobs"}, {}))

    def stop(self) -> None:
        """Cancel what is under way, and send nothing any more."""
        for job in self.under_way():
            job.cancel()
        self.streams.close()
        self.send = _silence
