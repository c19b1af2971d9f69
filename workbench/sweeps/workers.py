"""What travels to a worker, and what is done with it there. No torch in here, unless a model is asked for."""

from __future__ import annotations

import hashlib
import os
import pickle
import socket
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from workbench.provenance import quiet
from workbench.sweeps.grid import Cell
from workbench.sweeps.runner import Measure
from workbench.sweeps.study import OfModel
from workbench.sweeps.version import check_same_code, code_version

VALUES, ERROR, LATER, UNABLE = "values", "error", "later", "unable"
Answer = tuple[str, bytes]


class WorkerError(RuntimeError):
    """What was raised in a worker, where the error itself cannot travel; holds its traceback as text."""


@dataclass(frozen=True)
class Task:
    """What every batch of a sweep has in common, as it travels.

    Attributes:
        measure: pickled: the measure's code or name and the model's recipe, never weights.
        version: of the workbench's code, where the measure is of a model.
    """

    measure: bytes
    version: str | None


def packed(measure: Measure) -> Task:
    """A measure as it travels; functions of a notebook travel by their code.

    Raises:
        TypeError: for one that holds what cannot travel (a model, an open file).
    """
    try:
        return Task(pickler()(measure), code_version() if isinstance(measure, OfModel) else None)
    except Exception as error:
        raise TypeError(
            f"the measure cannot be sent to a worker: {error}; let it take the model as its first argument "
            "(sweep(measure, grid, model=…)) and hold nothing but plain data"
        ) from error


def pickler() -> Callable[[Any], bytes]:
    """cloudpickle's, which sends functions and classes of a notebook by their code; pickle's where it is missing."""
    try:
        from cloudpickle import dumps
    except ImportError:  # then they must stand in a module that the workers can import
        from pickle import dumps
    return dumps


def alone(cell: Cell) -> Cell:
    """A cell that carries its own values only, and not the axes of the whole grid. Its place is what it was: cells are
    told apart by it, also by a measure that uses them as keys."""
    place = zip(cell.as_dict().items(), cell.index, strict=True)
    return Cell({axis: Only(i, value) for (axis, value), i in place}, cell.index)


@dataclass(frozen=True)
class Only(Sequence[Any]):
    """An axis of which one value is known."""

    place: int
    value: Any

    def __getitem__(self, i: Any) -> Any:
        if i != self.place:
            raise IndexError(f"this worker knows value {self.place} of the axis alone, and was asked for {i}")
        return self.value

    def __len__(self) -> int:
        return self.place + 1


# ---------------------------------------------------------------- in the worker


def measured(task: Task, batches: list[bytes], seconds: float = float("inf")) -> tuple[list[Answer], float]:
    """In the worker: an answer for each batch, and how many seconds a measured one took.

    The answer is (VALUES, …) or (ERROR, what the measure raised), pickled; or LATER for a batch that was not begun,
    because the ones before it took all the seconds. One answer (UNABLE, why) says that this worker cannot begin at all.
    """
    try:
        measure, cells = _ready(task), [pickle.loads(batch) for batch in batches]
    except Exception as error:  # of this worker, and no fault of the cells
        return [(UNABLE, _portable(error))], 0.0
    start, answers = time.perf_counter(), list[Answer]()
    for batch in cells:
        if answers and time.perf_counter() - start > seconds:
            break
        answers.append(_answer(measure, batch))
    later = [(LATER, b"")] * (len(cells) - len(answers))
    return answers + later, (time.perf_counter() - start) / len(answers)


def _answer(measure: Measure, batch: list[Cell]) -> Answer:
    try:
        with quiet():  # the sweep leaves one record, where it was begun
            values = measure(batch)
        values = values.tolist() if hasattr(values, "tolist") else [_plain(value) for value in values]
        return VALUES, pickler()(values)
    except Exception as error:  # belongs to these cells, and not to the worker
        return ERROR, _portable(error)


def _ready(task: Task) -> Measure:
    """The measure, its model loaded."""
    if task.version is not None:
        check_same_code(code_version(), task.version, "sweep")
    place = _unpacked(hashlib.sha256(task.measure).hexdigest())
    if not place:
        place.append(pickle.loads(task.measure))
    if isinstance(place[0], OfModel):
        from workbench.checkpoints import load_once

        load_once(place[0].recipe)
    return place[0]


@lru_cache(maxsize=16)
def _unpacked(digest: str) -> list[Measure]:
    """One place for each measure that this worker has met of late."""
    return []


def _plain(value: Any) -> Any:
    """Numbers as Python's: a tensor of one number would travel with its device."""
    if isinstance(value, Mapping):
        return {name: _plain(part) for name, part in value.items()}
    return value.item() if hasattr(value, "item") and getattr(value, "ndim", 0) == 0 else value


def _portable(error: Exception) -> bytes:
    error.add_note(f"in a worker: process {os.getpid()} on {socket.gethostname()}")
    try:
        found = pickler()(error)
        pickle.loads(found)
        return found
    except Exception:  # an error that holds what cannot travel
        return pickle.dumps(WorkerError("".join(traceback.format_exception(error))))
