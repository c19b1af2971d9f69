"""Undo and redo: every state that was studied, in order, and where we stand in it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any


@dataclass(frozen=True)
class Entry:
    """One state that was studied.

    Attributes:
        label: what was done to come here.
        time: ISO, UTC.
        study: what undo brings back (see state.py).
        kl: mean over positions of KL(unedited ‖ edited), in nats; None before its run is over, or without edits.
        flipped: positions whose likeliest next token the edits changed; None as ``kl``.
    """

    id: int
    label: str
    time: str
    study: tuple[Any, ...]
    kl: float | None = None
    flipped: int | None = None


class History:
    """Entries, oldest first. A new one after an undo takes the place of what had been undone, as editors do."""

    def __init__(self, study: tuple[Any, ...], label: str) -> None:
        self._numbers = itertools.count(1)
        self.entries: list[Entry] = []
        self.at = -1
        self.push(study, label)

    @property
    def now(self) -> Entry:
        """Where we stand."""
        return self.entries[self.at]

    @property
    def can_undo(self) -> bool:
        return self.at > 0

    @property
    def can_redo(self) -> bool:
        return self.at < len(self.entries) - 1

    def push(self, study: tuple[Any, ...], label: str) -> Entry:
        """A new entry after the one where we stand."""
        time = datetime.now(UTC).isoformat(timespec="seconds")
        entry = Entry(next(self._numbers), label, time, study)
        self.entries[self.at + 1 :] = [entry]
        self.at += 1
        return entry

    def step(self, by: int) -> Entry:
        """Undo (−1) or redo (+1).

        Raises:
            ValueError: where there is nothing to undo or redo.
        """
        if not 0 <= self.at + by < len(self.entries):
            raise ValueError("there is nothing to undo" if by < 0 else "there is nothing to redo")
        self.at += by
        return self.now

    def goto(self, id: int) -> Entry:
        """Stand at any entry.

        Raises:
            ValueError: for one that is not there.
        """
        self.at = self._index(id)
        return self.now

    def entry(self, id: int) -> Entry:
        """An entry by its number.

        Raises:
            ValueError: for one that is not there.
        """
        return self.entries[self._index(id)]

    def note(self, id: int, kl: float | None, flipped: int | None) -> None:
        """Write what a run found beside its entry, if that is still there."""
        self.entries = [replace(e, kl=kl, flipped=flipped) if e.id == id else e for e in self.entries]

    def restore(self, entries: Sequence[tuple[str, tuple[Any, ...]]], at: int) -> None:
        """Other entries in the place of these, as (label, study); of a file."""
        self.entries, self.at = [], -1
        for label, study in entries:
            self.push(study, label)
        self.at = at

    def _index(self, id: int) -> int:
        for index, entry in enumerate(self.entries):
            if entry.id == id:
                return index
        raise ValueError(f"the history has no entry {id}; it has {[entry.id for entry in self.entries]}")
