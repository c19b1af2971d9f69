"""What is under way at an executor: sent while there is room, waited for, and watched for a cancel."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, CancelledError, Future, wait
from typing import Any, Generic, TypeVar

from workbench.sweeps.cluster import Gone, Pool

LOST = 3  # how often what was lost on its way is sent again
POLL = 0.2  # seconds between two looks at whether it was cancelled

Load = TypeVar("Load")


class Flight(Generic[Load]):
    """Loads on their way to an executor's workers and back.

    Args:
        draw: the next load, or None if there is none now; asked when there is room for it. What was lost and should go
            again comes from here too.
        send: hands a load to the workers.
        stopped: whether to send no more. What a worker has is then still waited for; to leave it, raise an error.
        ahead: how many are under way at once; by default twice the executor's workers.

    Attributes:
        over: why no more can be sent; None while it can.
    """

    def __init__(
        self,
        workers: Pool,
        draw: Callable[[], Load | None],
        send: Callable[[Load], Future[Any]],
        stopped: Callable[[], bool],
        ahead: int | None = None,
    ) -> None:
        self._workers, self._draw, self._send, self._stopped, self._ahead = workers, draw, send, stopped, ahead
        self._under_way: dict[Future[Any], Load] = {}
        self._held: Load | None = None  # drawn, and not sent while the scheduler is away
        self.over: Gone | None = None

    @property
    def empty(self) -> bool:
        """Whether nothing is under way."""
        return not self._under_way

    def landed(self) -> Iterator[tuple[Load, Future[Any]]]:
        """Loads as they come back, measured or lost, until all have; see then whether it is ``over``."""
        try:
            while True:
                stopped = self._stopped()
                if not stopped:
                    self._fill()
                if self.empty and (stopped or self._held is None):
                    return
                done = self._wait()
                # Once it is over, what has come meanwhile is still given, and nothing more is waited for.
                if not done and (self.over is not None or (stopped and not self._workers.busy())):
                    return
                for future in done:
                    yield self._under_way.pop(future), future
        finally:
            for future in self._under_way:
                future.cancel()

    def _fill(self) -> None:
        try:
            while self.over is None and len(self._under_way) < (self._ahead or self._workers.room()):
                if self._held is None:
                    self._held = self._draw()
                if self._held is None or self._workers.away():
                    return
                self._under_way[self._send(self._held)] = self._held
                self._held = None
        except Gone as error:
            self.end(f"the executor takes no more work: {error}")

    def _wait(self) -> set[Future[Any]]:
        seconds = POLL if self.over is None else 0.0
        if self.empty:
            time.sleep(seconds)
            return set()
        return wait(self._under_way, seconds, FIRST_COMPLETED).done

    def lost(self, what: str, sent: int, error: BaseException) -> bool:
        """Whether what came back with an error that is not its own is sent again. An executor that broke, or that
        cancelled it every time, is over.

        Args:
            what: was lost, in words.
            sent: how often it was.
        """
        if not isinstance(error, CancelledError | BrokenExecutor):
            return sent <= LOST
        if isinstance(error, BrokenExecutor) or sent > LOST:
            self.end(f"{what} was lost {sent} times: {error!r}")
        return True  # says nothing about the work

    def end(self, why: str, cause: BaseException | None = None) -> None:
        """Send no more."""
        if self.over is None:
            self.over = Gone(why)
            self.over.__cause__ = cause
