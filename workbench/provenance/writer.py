"""The thread that writes records, so that a run waits for no disk. One for each file; it starts with the first record.

What it was given is written within a moment, many at once, and before anything is read. A run only appends to a line
and wakes nobody who is awake: on a busy machine each change between threads can cost milliseconds.

What it holds when a process is killed is lost, and nothing else is. Whatever goes wrong becomes one warning.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
import warnings
from collections import deque
from pathlib import Path

from workbench.provenance.entry import Entry
from workbench.provenance.schema import QUICK, RecordsError
from workbench.provenance.store import Store

WAITING = 1000  # records that may wait
HEAVY = 32 * 2**20  # bytes of logits that may wait to be digested; beyond it the run does it itself
AT_ONCE = 200  # records of one transaction
GATHER = 0.25  # seconds: what comes within it is written together
WAIT = 0.05  # seconds that a run waits, once, for a line that is full
AGAIN = 60.0  # seconds until a file that could not be written is tried once more
PATIENCE = 10.0  # seconds that a reader waits for what is not written yet


class Writer:
    """Puts records into one file."""

    def __init__(self, path: Path) -> None:
        self.store = Store(path)
        self._line: deque[Entry | threading.Event] = deque()
        self._some, self._now = threading.Event(), threading.Event()  # there is something; it should not wait
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._heavy = 0
        self._problem: str | None = None
        self._warned = False
        self._not_before = 0.0

    def put(self, entry: Entry) -> bool:
        """Take a record, or say that it cannot be; only the first one waits for the file to be opened."""
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._start()
        self._tell()
        if self._thread is None:
            return False
        if self._heavy + entry.weight > HEAVY:
            entry.settle()
        if len(self._line) >= WAITING and not self._warned:
            self.flush(WAIT)
        if len(self._line) >= WAITING:
            self._note(f"records come faster than {self.store.path} takes them; some were left out")
            self._tell()
            return False
        self._heavy += entry.weight
        self._line.append(entry)
        if not self._some.is_set():
            self._some.set()
        return True

    def flush(self, timeout: float = PATIENCE) -> bool:
        """Wait until all that was put is in the file, or was given up; False if it takes longer."""
        thread, seen = self._thread, threading.Event()
        written = thread is None or not thread.is_alive() or thread is threading.current_thread()
        if not written:
            self._line.append(seen)
            self._some.set()
            self._now.set()
            written = seen.wait(timeout)
        self._tell()
        return written

    def _start(self) -> None:
        """Open the file here, so that what is wrong with it is said by the run that meets it first."""
        if time.monotonic() < self._not_before:
            return
        try:
            self.store.open(QUICK)
            thread = threading.Thread(target=self._loop, name="workbench records", daemon=True)
            thread.start()
            self._thread = thread
        except Exception as error:
            self._failed(error)
        if self.store.said:
            self._note(self.store.said)

    def _loop(self) -> None:
        while True:
            self._some.wait()
            self._now.wait(GATHER)
            self._now.clear()
            self._some.clear()
            while self._line:
                self._write(*self._batch())

    def _batch(self) -> tuple[list[Entry], list[threading.Event]]:
        """The next records, settled, and who waits for them."""
        entries: list[Entry] = []
        while self._line and len(entries) < AT_ONCE:
            first = self._line.popleft()
            if isinstance(first, threading.Event):
                return entries, [first]
            self._heavy = max(0, self._heavy - first.weight)
            try:
                first.settle()
                entries.append(first)
            except Exception as error:
                self._failed(error)
        return entries, []

    def _write(self, entries: list[Entry], waiting: list[threading.Event]) -> None:
        if entries:
            try:
                self.store.write(entries)
                if self.store.said:
                    self._note(self.store.said)
            except Exception as error:
                self._failed(error)
        for event in waiting:
            event.set()

    def _failed(self, error: Exception) -> None:
        self._not_before = time.monotonic() + AGAIN
        why = str(error) if isinstance(error, RecordsError) else f"{type(error).__name__}: {error}"
        self._note(f"runs leave no records: {why}. WORKBENCH_RECORDS names another file, or is 'off' to do without")

    def _note(self, problem: str) -> None:
        self._problem = self._problem or problem
        self.store.said = None

    def _tell(self) -> None:
        """The one warning, on the thread of who makes runs."""
        if self._problem is not None and not self._warned:
            self._warned = True
            warnings.warn(self._problem, stacklevel=2)


_WRITERS: dict[Path, Writer] = {}
_LEFT: list[object] = []
_making = threading.Lock()


def put(path: Path, entry: Entry) -> bool:
    """Have a record written to a file; False if it cannot be."""
    return _of(path).put(entry)


def store_of(path: Path) -> Store:
    """What writes to this file in this process."""
    return _of(path).store


def _of(path: Path) -> Writer:
    writer = _WRITERS.get(path)
    if writer is None:
        with _making:
            writer = _WRITERS.setdefault(path, Writer(path))
    return writer


def flush(path: Path | None = None, timeout: float = PATIENCE) -> bool:
    """Wait until what was put is written: for one file, or for all. False if it takes longer."""
    chosen = list(_WRITERS.values()) if path is None else [_WRITERS[path]] if path in _WRITERS else []
    written = [writer.flush(timeout) for writer in chosen]
    return all(written)


def _after_fork() -> None:
    """A child has no thread of its parent's, and must not touch its connections, nor close them."""
    global _making
    _LEFT.append(dict(_WRITERS))
    _WRITERS.clear()
    _making = threading.Lock()


atexit.register(flush)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
