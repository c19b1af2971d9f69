"""Writing records to the file: in transactions, within a size, and beside a file that was damaged."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterable, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from workbench.provenance.entry import Entry
from workbench.provenance.schema import BUSY, is_broken, to_write

MOST = 100_000  # records
LARGEST = 200 * 2**20  # bytes of the file
LEAVES = 0.9  # of either, after the oldest were let go
LOOK_EVERY = 500  # records between two looks at the size

INSERT = """
INSERT INTO records ({columns}) VALUES ({places})
ON CONFLICT(id) DO UPDATE SET seconds=excluded.seconds, summary=excluded.summary, about=excluded.about
RETURNING seq
"""


class Store:
    """One file that is written to.

    Attributes:
        said: what somebody should know, as that a damaged file was set aside.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.said: str | None = None
        self._connection: sqlite3.Connection | None = None
        self._lock = threading.RLock()
        self._since_look = LOOK_EVERY

    def open(self, patience: float = BUSY) -> sqlite3.Connection:
        """The connection; a damaged file is renamed and a new one begun.

        Raises:
            RecordsError, sqlite3.Error, OSError: as ``to_write``.
        """
        with self._lock:
            if self._connection is None:
                seen = _file(self.path)
                try:
                    self._connection = to_write(self.path, patience)
                except sqlite3.DatabaseError as error:
                    if not is_broken(error):
                        raise
                    self._set_aside(error, seen)
                    self._connection = to_write(self.path, patience)
                self._connection.execute(f"PRAGMA busy_timeout={int(BUSY * 1000)}")
            return self._connection

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            if self._connection is not None:
                with suppress(sqlite3.Error):
                    self._connection.close()
                self._connection = None

    def write(self, entries: Sequence[Entry]) -> None:
        """Put settled records into the file: all of them, or none."""
        with self._lock:
            seen = _file(self.path)
            if self._connection is not None and seen is None:
                self.close()  # somebody removed it: begin anew there
            try:
                self._write(entries)
            except sqlite3.DatabaseError as error:
                self.close()
                if not is_broken(error):
                    raise
                self._set_aside(error, seen)
                self._write(entries)
            self._since_look += len(entries)
            if self._since_look >= LOOK_EVERY:
                self._since_look = 0
                self.shrink()

    def _write(self, entries: Iterable[Entry]) -> None:
        with self.transaction() as connection:
            for entry in entries:
                values = dict(entry.settle())
                facts = values.pop("facts")
                connection.execute("INSERT OR IGNORE INTO environments VALUES (?, ?)", (values["environment"], facts))
                statement = INSERT.format(columns=", ".join(values), places=", ".join(f":{name}" for name in values))
                ((seq,),) = connection.execute(statement, values).fetchall()
                for digest, vector in entry.vectors.items():
                    row = (digest, vector.dtype, str(list(vector.shape)), vector.data)
                    connection.execute("INSERT OR IGNORE INTO vectors VALUES (?, ?, ?, ?)", row)
                    connection.execute("INSERT OR IGNORE INTO uses VALUES (?, ?)", (digest, seq))

    @contextmanager
    def transaction(self) -> Any:
        """All or nothing; no other process writes meanwhile."""
        with self._lock:
            connection = self.open()
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                with suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
                raise
            try:
                connection.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
                raise

    # ------------------------------------------------------------ within a size

    def shrink(self, most: int | None = None, largest: int | None = None) -> int:
        """Let go of the oldest records that nobody pinned, until there is room; how many that were."""
        most, largest = MOST if most is None else most, LARGEST if largest is None else largest
        n_gone, connection = 0, self.open()
        (n,) = connection.execute("SELECT count(*) FROM records").fetchone()
        if n > most:
            n_gone += self._drop_oldest(n - int(LEAVES * most))
        if self._size() > largest:
            for _ in range(20):
                (n,) = connection.execute("SELECT count(*) FROM records").fetchone()
                gone = self._drop_oldest(max(1, n // 10))
                n_gone += gone
                if not gone or self._size() <= LEAVES * largest:
                    break
        if n_gone:
            self._give_back()
        return n_gone

    def _give_back(self) -> None:
        """Free pages to the disk. A script, for ``execute`` would take one step of it: one page."""
        self.open().executescript("PRAGMA incremental_vacuum")

    def _size(self) -> int:
        """Bytes of the file that hold something."""
        connection = self.open()
        pages, free, each = (
            connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
        )
        return (pages - free) * each

    def _drop_oldest(self, n: int) -> int:
        with self.transaction() as connection:
            rows = connection.execute("SELECT seq FROM records WHERE NOT pinned ORDER BY seq LIMIT ?", (n,)).fetchall()
            self._delete(connection, [seq for (seq,) in rows])
        return len(rows)

    def forget(self, ids: Sequence[str]) -> int:
        """Take records out, and their texts out of the file's free pages too; how many there were."""
        connection = self.open()
        connection.execute("PRAGMA secure_delete=ON")
        with self.transaction():
            rows = [row for id in ids for row in connection.execute("SELECT seq FROM records WHERE id=?", (id,))]
            self._delete(connection, [seq for (seq,) in rows])
        self._give_back()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        return len(rows)

    def pin(self, ids: Sequence[str], pinned: bool) -> None:
        """Keep records whatever their age, or no longer."""
        with self.transaction() as connection:
            connection.executemany("UPDATE records SET pinned=? WHERE id=?", [(int(pinned), id) for id in ids])

    @staticmethod
    def _delete(connection: sqlite3.Connection, seqs: Sequence[int]) -> None:
        connection.executemany("DELETE FROM records WHERE seq=?", [(seq,) for seq in seqs])
        if connection.execute("SELECT 1 FROM uses LIMIT 1").fetchone():
            connection.execute("DELETE FROM uses WHERE seq NOT IN (SELECT seq FROM records)")
            connection.execute("DELETE FROM vectors WHERE digest NOT IN (SELECT digest FROM uses)")
        used = "SELECT environment FROM records WHERE environment IS NOT NULL"
        connection.execute(f"DELETE FROM environments WHERE digest NOT IN ({used})")

    # ------------------------------------------------------------ damaged

    def _set_aside(self, error: BaseException, seen: tuple[int, int] | None) -> None:
        """Rename what cannot be read: somebody may mend it. Not where another process just did so."""
        if _file(self.path) != seen:
            return
        stamp = f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}"
        aside = self.path.with_name(f"{self.path.stem}.damaged-{stamp}{self.path.suffix}")
        os.replace(self.path, aside)
        for ending in ("-wal", "-shm"):
            with suppress(OSError):
                os.replace(f"{self.path}{ending}", f"{aside}{ending}")
        self.said = f"the records in {self.path} are damaged ({error}): that file is now {aside.name}, a new one begins"


def _file(path: Path) -> tuple[int, int] | None:
    """Which file stands under this name."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_dev, stat.st_ino
