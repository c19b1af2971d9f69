"""What is recorded: every run, but not those inside a sweep, an atlas or a preview of the Bench."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any

from workbench.provenance import facts, writer
from workbench.provenance.entry import Entry, new_id
from workbench.provenance.place import place


@dataclass
class Held:
    """Records that wait for a decision: :meth:`keep` has them written, whatever block we are in; else they are lost."""

    entries: list[Entry] = field(default_factory=list)

    def keep(self) -> None:
        """Have them written."""
        for entry in self.entries:
            _write(entry)
        self.entries.clear()


QUIET = "quiet"
_mode: ContextVar[Held | str | None] = ContextVar("records", default=None)


def on() -> bool:
    """Whether a run here and now is recorded."""
    return _mode.get() != QUIET and place() is not None


@contextmanager
def quiet() -> Iterator[None]:
    """Runs in this block leave no records. It holds for this thread: a worker that starts others says it in each."""
    token = _mode.set(QUIET)
    try:
        yield
    finally:
        _mode.reset(token)


@contextmanager
def held() -> Iterator[Held]:
    """Runs in this block leave their records with it, also inside a quiet one; they are written if it keeps them."""
    kept = Held()
    token = _mode.set(kept)
    try:
        yield kept
    finally:
        _mode.reset(token)


def submit(entry: Entry) -> None:
    """Have a record written, or held back, as the block asks for that we are in."""
    mode = _mode.get()
    if isinstance(mode, Held):
        mode.entries.append(entry)
    elif mode is None:
        _write(entry)


def _write(entry: Entry) -> None:
    path = place()
    if path is not None and writer.put(path, entry) and entry.said is not None:
        entry.said["record"] = entry.id


def id_of(said: Mapping[str, Any]) -> str | None:
    """The id of a run's record, by the run's provenance; None for a run that left none."""
    mode = _mode.get()
    if isinstance(mode, Held):
        for entry in mode.entries:
            if entry.said is said:
                return entry.id
    return said.get("record")


def trouble(error: Exception) -> None:
    """One warning that something could not be recorded; the run that it was of goes on."""
    warnings.warn(
        f"this run left no record ({type(error).__name__}: {error}); its numbers are not affected", stacklevel=4
    )


@dataclass
class Whole:
    """The record of something that makes many runs, while it is under way.

    Attributes:
        id: of its record.
    """

    id: str
    _noted: dict[str, Any] = field(default_factory=dict)

    def note(self, **values: Any) -> None:
        """Add to its summary: counts, a path, a metric. A later value takes the place of an earlier one."""
        self._noted.update(values)


@contextmanager
def recording(
    kind: str,
    *,
    about: Mapping[str, Any] | None = None,
    name: str | None = None,
    model: str | None = None,
    fingerprint: str | None = None,
    recipe: Mapping[str, Any] | None = None,
    seed: int | None = None,
) -> Iterator[Whole]:
    """One record of a whole sweep or atlas; the runs in the block leave none.

    It is written when the block begins (``status`` "running", which stays where the process is killed), and again when
    it ends: "finished", "stopped" by the user, or "failed". Inside another such block it leaves none itself.

    Args:
        kind: "sweep", "atlas", …
        about: what it is of, as plain data: measure, grid, journal, corpus.
        name: how to refer to it.
        model: its name.
        fingerprint: of the model.
        recipe: path, dtype, device and experts of the model, as ``wb.load`` takes them.
        seed: if there is one.
    """
    whole, began, clock = Whole(new_id()), time.time(), time.perf_counter()
    entry = Entry(
        kind=kind,
        started=began,
        name=name,
        model=model,
        fingerprint=fingerprint,
        recipe=recipe,
        session=facts.session(),
        seed=seed,
        about=dict(about or {}),
        environment=facts.environment() if on() else {},
        summary={"status": "running"},
        id=whole.id,
    )
    submit(entry)
    status = "failed"
    try:
        with quiet():
            yield whole
        status = "finished"
    except (KeyboardInterrupt, GeneratorExit):
        status = "stopped"
        raise
    finally:
        seconds = time.perf_counter() - clock
        submit(replace(entry, seconds=seconds, summary={"status": status, **whole._noted}, values=None))
