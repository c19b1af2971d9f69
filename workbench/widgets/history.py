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


MOST = 500  # entries that are kept, unless one asks for others


class History:
    """Entries, oldest first. A new one after an undo takes the place of what had been undone, as editors do.

    Attributes:
        most: entries that are kept.
        changes: counts all that happened to it.

    Raises:
        ValueError: where it may not keep even one entry.
    """

    def __init__(self, study: tuple[Any, ...], label: str, most: int = MOST) -> None:
        if type(most) is not int or most < 1:
            raise ValueError(f"a history keeps 1 step or more, got {most!r:.80}; {MOST} is usual")
        self.most, self.changes = most, 0
        self._numbers = itertools.count(1)
        self._kept: tuple[tuple[Entry, ...], int, int] = ((), -1, 0)  # one value: others read while it changes
        self.push(study, label)

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The newest, at most ``most`` of them; older ones fall off."""
        return self._kept[0]

    @property
    def at(self) -> int:
        """The index of the entry where we stand."""
        return self._kept[1]

    @property
    def dropped(self) -> int:
        """How many have fallen off, so that a step keeps its number."""
        return self._kept[2]

    @property
    def now(self) -> Entry:
        """Where we stand."""
        entries, at, _ = self._kept
        return entries[at]

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
        self._become((*self.entries[: self.at + 1], entry), self.at + 1, self.dropped)
        return entry

    def step(self, by: int) -> Entry:
        """Undo (−1) or redo (+1).

        Raises:
            ValueError: where there is nothing to undo or redo.
        """
        if not 0 <= self.at + by < len(self.entries):
            raise ValueError("there is nothing to undo" if by < 0 else "there is nothing to redo")
        self._become(self.entries, self.at + by, self.dropped)
        return self.now

    def goto(self, id: int) -> Entry:
        """Stand at any entry.

        Raises:
            ValueError: for one that is not there.
        """
        self._become(self.entries, self._index(id), self.dropped)
        return self.now

    def entry(self, id: int) -> Entry:
        """An entry by its number.

        Raises:
            ValueError: for one that is not there.
        """
        return self.entries[self._index(id)]

    def number(self, id: int) -> int:
        """Which step an entry is, counted from 1 with those that have fallen off.

        Raises:
            ValueError: for one that is not there.
        """
        return self.dropped + self._index(id) + 1

    def note(self, id: int, kl: float | None, flipped: int | None) -> None:
        """Write what a run found beside its entry, if that is still there."""
        entries = tuple(replace(e, kl=kl, flipped=flipped) if e.id == id else e for e in self.entries)
        self._become(entries, self.at, self.dropped)

    def restore(self, entries: Sequence[tuple[int, str, tuple[Any, ...]]], at: int, dropped: int = 0) -> None:
        """Other entries in the place of these, as (id, label, study), ids rising; of a file."""
        time = datetime.now(UTC).isoformat(timespec="seconds")
        self._numbers = itertools.count(max(id for id, *_ in entries) + 1)
        self._become(tuple(Entry(id, label, time, study) for id, label, study in entries), at, dropped)

    def _become(self, entries: tuple[Entry, ...], at: int, dropped: int) -> None:
        """Keep as many as there may be: the oldest go, and where we stand so far back, the last of those undone."""
        off = min(max(len(entries) - self.most, 0), at)
        self._kept = entries[off : off + self.most], at - off, dropped + off
        self.changes += 1

    def _index(self, id: int) -> int:
        for index, entry in enumerate(self.entries):
            if entry.id == id:
                return index
        raise ValueError(f"the history has no entry {id}; it has {[entry.id for entry in self.entries]}")
