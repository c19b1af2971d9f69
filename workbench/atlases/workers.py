"""Parts in an executor's workers: what travels there is documents and the model's recipe, and back comes Parquet."""

from __future__ import annotations

import pickle
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, CancelledError, Executor, Future, wait
from typing import TYPE_CHECKING, Any

from workbench.atlases.errors import AtlasError
from workbench.atlases.plan import Planned
from workbench.atlases.rows import Stopped, rows_of
from workbench.atlases.settings import Settings
from workbench.atlases.tables import tables_of
from workbench.checkpoints import load_once

if TYPE_CHECKING:
    from workbench.checkpoints import Recipe

LOST = 3  # how often a part may be lost with its worker
POLL = 0.2  # seconds between two looks at whether the build was cancelled


def on_executor(
    executor: Executor, recipe: Recipe, settings: Settings, todo: Iterator[Planned], stopped: Callable[[], bool]
) -> Iterator[tuple[Planned, dict[str, bytes], int]]:
    """Parts as they finish: the part, its tables as bytes, its tokens. Two a worker are under way, and no more.

    Raises:
        AtlasError: a part was lost with its worker three times, or the executor takes no more work.
        Stopped: the build was cancelled.
    """
    most = 2 * (getattr(executor, "_max_workers", 0) or 4)
    under_way: dict[Future[Any], tuple[Planned, int]] = {}
    again: deque[tuple[Planned, int]] = deque()
    try:
        while True:
            while len(under_way) < most:
                part, tries = again.popleft() if again else (next(todo, None), 0)
                if part is None:
                    break
                under_way[_sent(executor, recipe, settings, part)] = part, tries
            if not under_way:
                return
            done, _ = wait(under_way, timeout=POLL, return_when=FIRST_COMPLETED)
            if stopped():
                raise Stopped
            for future in done:
                part, tries = under_way.pop(future)
                lost, found = _result(future)
                if lost is None:
                    yield part, *found
                elif tries + 1 < LOST:
                    again.append((part, tries + 1))
                else:
                    raise AtlasError(f"part {part.number} was lost with its worker {LOST} times: {lost}") from lost
    finally:
        for future in under_way:
            future.cancel()


def _sent(executor: Executor, recipe: Recipe, settings: Settings, part: Planned) -> Future[Any]:
    try:
        return executor.submit(tables_of_part, recipe, settings, part)
    except RuntimeError as error:  # shut down, or a pool one of whose processes was killed
        raise AtlasError(
            f"the executor takes no more work: {error}; what is finished is kept. Make a new executor, and build the "
            "atlas again with the same arguments to go on from there"
        ) from error


def _result(future: Future[Any]) -> tuple[BaseException | None, Any]:
    """(what it was lost by, what it gave)."""
    try:
        kind, found = future.result()
    except (CancelledError, Exception) as error:  # not of the work, whose own errors come back as such
        return error, None
    if kind == "error":
        raise found
    return None, found


def tables_of_part(recipe: Recipe, settings: Settings, part: Planned) -> tuple[str, Any]:
    """In the worker: ("done", (tables, tokens)) or ("error", the error of these documents)."""
    try:
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
