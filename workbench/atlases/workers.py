"""Parts in an executor's workers: what travels there is documents and the model's recipe, and back comes Parquet."""

from __future__ import annotations

import pickle
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Executor, Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workbench.atlases.errors import AtlasError
from workbench.atlases.plan import Planned
from workbench.atlases.rows import Stopped, rows_of
from workbench.atlases.settings import Settings
from workbench.atlases.tables import tables_of
from workbench.checkpoints import load_once
from workbench.sweeps.cluster import workers_of
from workbench.sweeps.flight import Flight
from workbench.sweeps.version import check_same_code, code_version

if TYPE_CHECKING:
    from workbench.checkpoints import Recipe

KEPT = (
    "what is finished is kept. Make a new executor, and build the atlas again with the same arguments to go on from "
    "there"
)


def on_executor(
    executor: Executor, recipe: Recipe, settings: Settings, todo: Iterator[Planned], stopped: Callable[[], bool]
) -> Iterator[tuple[Planned, dict[str, bytes], int]]:
    """Parts as they finish: the part, its tables as bytes, its tokens. Two a worker are under way, and no more.

    Raises:
        AtlasError: a part was lost with its worker each time that it was sent, or the executor takes no more work.
        Stopped: the build was cancelled; what is under way is left.
    """
    return _Parts(executor, recipe, settings, todo, stopped).finished()


@dataclass
class _Part:
    planned: Planned
    sent: int = 0


class _Parts:
    """The parts of an atlas: how often each was sent, and what came of it."""

    def __init__(
        self,
        executor: Executor,
        recipe: Recipe,
        settings: Settings,
        todo: Iterator[Planned],
        stopped: Callable[[], bool],
    ) -> None:
        self._recipe, self._settings, self._todo, self._cancelled = recipe, settings, todo, stopped
        self._workers = workers_of(executor, "atlas")
        self._flight = Flight[_Part](self._workers, self._next, self._send, self._stopped)
        self._again: deque[_Part] = deque()

    def finished(self) -> Iterator[tuple[Planned, dict[str, bytes], int]]:
        """Those that came back whole."""
        for part, future in self._flight.landed():
            try:
                kind, found = future.result()
            except (CancelledError, Exception) as error:  # not of the work, whose own errors come back as such
                if not self._flight.lost(f"part {part.planned.number}", part.sent, error):
                    lost = f"part {part.planned.number} was lost with its worker {part.sent} times: {error}"
                    raise AtlasError(f"{lost}; {KEPT}") from error
                self._again.append(part)
                continue
            if kind == "error":
                raise found
            yield part.planned, *found
        if self._flight.over is not None:
            raise AtlasError(f"{self._flight.over}; {KEPT}")

    def _next(self) -> _Part | None:
        if self._again:
            return self._again.popleft()
        planned = next(self._todo, None)
        return None if planned is None else _Part(planned)

    def _send(self, part: _Part) -> Future[Any]:
        future = self._workers.submit(tables_of_part, self._recipe, self._settings, part.planned, version())
        part.sent += 1
        return future

    def _stopped(self) -> bool:
        if self._cancelled():
            raise Stopped
        return False


def version() -> str:
    """Of the code that an atlas' rows come from."""
    return code_version("atlases")


def tables_of_part(recipe: Recipe, settings: Settings, part: Planned, sent_by: str) -> tuple[str, Any]:
    """In the worker: ("done", (tables, tokens)) or ("error", the error of these documents).

    Args:
        sent_by: the version of the code that sent the part; a worker of another version writes no rows.
    """
    try:
        check_same_code(version(), sent_by, "atlas")
        rows = rows_of(load_once(recipe), settings, part.documents)
        return "done", (tables_of(rows, part.documents, part.first_document), len(rows.tokens))
    except Exception as error:
        return "error", _portable(error)


def _portable(error: Exception) -> Exception:
    try:
        pickle.loads(pickle.dumps(error))
        return error
    except Exception:  # it holds what cannot travel: its words do
        return AtlasError("".join(traceback.format_exception(error)))
