"""The two kinds of executors, asked alike: is there room, are they there, and do this. Sweeps and atlases use them.

Nothing in here waits, so that a cancel is seen whatever has become of a cluster.
"""

from __future__ import annotations

import asyncio
import time
import warnings
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

LOOK = 2.0  # seconds between two looks at the cluster
AHEAD = 2  # tasks under way for each worker: one is measured, one waits for it
# A task costs Dask about a millisecond. Short batches go several in a task, and are still measured one by one.
SLICE = 0.2  # seconds that a task should last
MOST = 64  # batches in it
NOBODY = 60.0  # seconds without a worker after which this is said


class Gone(Exception):
    """The executor takes no more work."""


class Pool:
    """Threads or processes of this machine, or any executor of which nothing more is known.

    Attributes:
        at_once: short batches that should go into one task.
        seconds: how long one task of several may last.
    """

    at_once = 1
    seconds = float("inf")

    def __init__(self, executor: Any) -> None:
        self.executor = executor

    def took(self, seconds: float) -> None:
        """Seconds that a batch took."""

    def room(self) -> int:
        """How many tasks to have under way.

        Raises:
            Gone: none any more.
        """
        return AHEAD * (getattr(self.executor, "_max_workers", None) or 4)

    def away(self) -> bool:
        """Whether nothing can be sent just now."""
        return False

    def busy(self) -> bool:
        """Whether a worker has something of what was sent, so that it will come if it is waited for."""
        return True

    def submit(self, function: Callable[..., Any], *arguments: Any, **named: Any) -> Future[Any]:
        """Have a function called by a worker.

        Raises:
            Gone: the executor was shut down, or broke with one of its processes.
        """
        try:
            return self.executor.submit(function, *arguments, **named)
        except RuntimeError as error:
            raise Gone(str(error)) from error


def workers_of(executor: Any, whose: str) -> Pool:
    """What an executor is to us.

    Args:
        whose: the word for what waits when there is no worker: "sweep", "atlas".
    """
    return Cluster(executor, whose) if hasattr(executor, "_client") else Pool(executor)


class Cluster(Pool):
    """Dask. Workers come and go, and the scheduler may be away for a while."""

    seconds = 2 * SLICE

    def __init__(self, executor: Any, whose: str) -> None:
        super().__init__(executor)
        self.client, self._whose = executor._client, whose
        self._threads = _Asked(self.client, "ncores")
        self._at_work = _Asked(self.client, "processing")
        self._seen = time.monotonic()  # when there were workers

    def took(self, seconds: float) -> None:
        self.at_once = max(1, min(MOST, int(SLICE / max(seconds, 1e-6))))

    def room(self) -> int:
        self._still_there()
        threads = sum((self._threads.answer() or {}).values())
        if threads:
            self._seen = time.monotonic()
        elif time.monotonic() - self._seen > NOBODY:
            self._seen = float("inf")
            address = self.client.scheduler.address
            warnings.warn(f"{address} has no workers: the {self._whose} waits for one", stacklevel=2)
        return AHEAD * max(threads, 2)  # something must wait, or a cluster that adapts begins no worker

    def away(self) -> bool:
        """A client that lost its scheduler looks for it, and gives up by itself."""
        return self.client.status == "connecting"

    def busy(self) -> bool:
        at_work = None if self.away() else self._at_work.answer()
        if at_work is None:  # a scheduler that answers at all does so at once
            return not self.away() and self._at_work.waited < LOOK
        ours = {future.key for future in self.executor._futures}
        return any(key in ours for keys in at_work.values() for key in keys)

    def submit(self, function: Callable[..., Any], *arguments: Any, **named: Any) -> Future[Any]:
        self._still_there()
        if self.executor._shutdown:
            raise Gone("cannot schedule new futures after shutdown")
        # Not pure: the same work sent again is another task, and not the one that was lost.
        named = {**self.executor._kwargs, **named, "pure": False}
        found: Future[Any] = Future()
        try:
            sent = self.client.submit(function, *arguments, **named)
            self.client.loop.add_callback(follow, self.client, sent, found)
        except Exception as error:
            raise Gone(str(error)) from error
        self.executor._futures.add(sent)
        found.add_done_callback(lambda found: found.cancelled() and _cancel(sent))
        return found

    def _still_there(self) -> None:
        if self.client.status not in ("running", "connecting"):
            raise Gone(f"the Dask client is {self.client.status}; its scheduler is gone, or it was closed")


class _Asked:
    """The newest answer to a question that the scheduler is asked every few seconds, and that nobody waits for."""

    def __init__(self, client: Any, question: str) -> None:
        self._client, self._question = client, question
        self._newest: Any = None
        self._under_way: Future[Any] | None = None
        self._begun = float("-inf")

    @property
    def waited(self) -> float:
        """Seconds since it was asked last."""
        return time.monotonic() - self._begun

    def answer(self) -> Any:
        """None until there is one."""
        if self._under_way is not None and self._under_way.done():
            with suppress(Exception):  # the scheduler went away: it is asked again when it is back
                self._newest = self._under_way.result()
            self._under_way = None
        if self._under_way is None and self.waited > LOOK and self._client.status == "running":
            self._begun, asked = time.monotonic(), self._ask()
            try:
                self._under_way = asyncio.run_coroutine_threadsafe(asked, self._client.loop.asyncio_loop)
            except RuntimeError:  # closed just now
                asked.close()
        return self._newest

    async def _ask(self) -> Any:
        asked: Awaitable[Any] = getattr(self._client.scheduler, self._question)()
        return await asked


def _cancel(sent: Any) -> None:
    with suppress(Exception):  # the client was closed, and has cancelled everything
        if sent.status != "cancelled":
            sent.cancel()


async def follow(client: Any, sent: Any, found: Future[Any]) -> None:
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
