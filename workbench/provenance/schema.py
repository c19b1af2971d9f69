"""The file: its tables, and whether a file is one of ours."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

VERSION = 1
OURS = 0x57425245  # SQLite's application_id of our files: "WBRE"
BUSY = 30.0  # seconds that a writer waits for another process
QUICK = 0.5  # the same where somebody waits for it
TABLES = """
CREATE TABLE IF NOT EXISTS records (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL,
    name TEXT,
    model TEXT,
    fingerprint TEXT,
    recipe TEXT,
    started REAL NOT NULL,
    seconds REAL,
    session TEXT,
    environment TEXT,
    tokens BLOB,
    shape TEXT,
    tokens_digest TEXT,
    mask BLOB,
    mask_digest TEXT,
    text TEXT,
    specs TEXT,
    routing TEXT,
    sources TEXT,
    sites TEXT,
    seed TEXT,
    result TEXT,
    summary TEXT,
    about TEXT,
    missing TEXT,
    pinned INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS environments (digest TEXT PRIMARY KEY, facts TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS vectors (
    digest TEXT PRIMARY KEY, dtype TEXT NOT NULL, shape TEXT NOT NULL, data BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS uses (
    digest TEXT NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY (digest, seq)
) WITHOUT ROWID;
"""
NAMES = ("records", "environments", "vectors", "uses")
LONGEST = 8 * 2**20  # bytes of one value that is read; we write none above some hundred thousand
BROKEN = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
# What one question may take. A damaged file can name the same pages again and again, and would be read for years.
STEPS = (2_000_000, 100)  # of SQLite's machine, and for each byte of the file: a record takes a tenth of it
SECONDS = (2 * BUSY, 1e-7)  # more than it may wait for a writer, and for each byte; a count of rows is one step


class RecordsError(RuntimeError):
    """The records cannot be read or written; the message says which file, why and what to do."""


class Newer(RecordsError):
    """The file was made by a later version of this package, or by another program."""


def is_broken(error: BaseException) -> bool:
    """Whether SQLite says that the file itself is damaged."""
    code = getattr(error, "sqlite_errorcode", None)
    return isinstance(error, sqlite3.DatabaseError) and code is not None and code & 0xFF in BROKEN


def to_write(path: Path, patience: float = BUSY) -> sqlite3.Connection:
    """A connection that writes; the file is made where there is none, readable by its owner only.

    Raises:
        RecordsError: for a file of a later version, or of another program: it is left as it is.
        sqlite3.Error: for a file that is damaged or cannot be written.
        OSError: for a folder that cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    connection = sqlite3.connect(path, timeout=patience, isolation_level=None, check_same_thread=False)
    try:
        check(connection, path)
        _prepare(connection, patience)
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that only reads, and for no longer than a file of this size can take.

    Raises:
        RecordsError: for a file that is damaged, not ours, or cannot be read.
    """
    over = threading.Event()
    try:
        with closing(_to_read(path)) as connection, _ending(connection, _size(path), over):
            check(connection, path)
            yield connection
    except (sqlite3.Error, UnicodeDecodeError) as error:  # SQLite's own messages quote what is damaged
        if not over.is_set():
            raise unreadable(path, error) from error
    if over.is_set():  # also without an error: a count that is interrupted gives how far it came
        raise RecordsError(f"{path} takes longer to read than a whole file of its size can: it is damaged")


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in (path, path.with_name(f"{path.name}-wal")) if file.exists())


@contextmanager
def _ending(connection: sqlite3.Connection, size: int, over: threading.Event) -> Iterator[None]:
    """Interrupt what takes too many steps or too much time, and say so in ``over``."""
    left = iter(range((STEPS[0] + STEPS[1] * size) // 10_000))

    def end() -> None:
        over.set()
        connection.interrupt()

    def step() -> bool:
        if next(left, None) is None:
            over.set()
        return over.is_set()

    connection.set_progress_handler(step, 10_000)
    timer = threading.Timer(SECONDS[0] + SECONDS[1] * size, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()  # it must not meet a connection that is closed


def _to_read(path: Path) -> sqlite3.Connection:
    address = f"file:{quote(str(path))}?mode=ro"
    connection = sqlite3.connect(address, timeout=BUSY, isolation_level=None, uri=True, check_same_thread=False)
    try:
        connection.execute("PRAGMA user_version")
    except sqlite3.Error as error:
        connection.close()
        if not isinstance(error, sqlite3.OperationalError):
            raise
        # In a folder that cannot be written to, SQLite cannot make the files that a reader shares with writers.
        address = f"{address}&immutable=1"
        connection = sqlite3.connect(address, isolation_level=None, uri=True, check_same_thread=False)
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LONGEST)
    connection.text_factory = lambda raw: raw.decode("utf-8", "replace")  # damaged text is text all the same
    return connection


def unreadable(path: Path, error: BaseException) -> RecordsError:
    """What to say of a file that SQLite cannot read."""
    what = "is no file of records, or is damaged" if is_broken(error) else "cannot be read"
    return RecordsError(f"{path} {what} ({error}); nothing in it was changed")


def check(connection: sqlite3.Connection, path: Path) -> None:
    """Refuse what is not ours, or of a later version."""
    (version,), (ours,) = (
        connection.execute(f"PRAGMA {name}").fetchone() for name in ("user_version", "application_id")
    )
    if ours != OURS and connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        raise Newer(f"{path} is another program's database; it was left as it is")
    if version > VERSION:
        raise Newer(
            f"{path} has records in format {version}, of a later version of this package; this one knows format "
            f"{VERSION}. Nothing in it was changed"
        )
    if strange := _programs(connection):
        raise Newer(f"{path} holds {strange!r:.80}, which no file of ours has; it was left as it is")


def _programs(connection: sqlite3.Connection) -> str | None:
    """A view under the name of a table, a column that is computed, a trigger: SQL of somebody else's, which would run
    when we read or write, and may never end."""
    for kind, name, table, sql in connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master").fetchall():
        if kind == "trigger" or (kind == "index" and sql and table in NAMES):
            return f"the {kind} {name}"
        if name in NAMES:
            columns = connection.execute(f"PRAGMA table_xinfo({name})").fetchall()
            if kind != "table" or "VIRTUAL" in str(sql).upper().split("(")[0] or any(each[-1] for each in columns):
                return f"a {kind} {name} that computes something"
    return None


def _prepare(connection: sqlite3.Connection, patience: float) -> None:
    """Make the tables where they are missing. Several processes may do so at once."""
    end = time.monotonic() + patience
    while True:
        try:
            if connection.execute("PRAGMA user_version").fetchone()[0] == 0:
                connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")  # a failure of power may cost the last ones, never the file
            connection.execute("BEGIN IMMEDIATE")
            for statement in TABLES.split(";"):
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id={OURS}")
            connection.execute(f"PRAGMA user_version={VERSION}")
            connection.execute("COMMIT")
            return
        except sqlite3.OperationalError as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            busy = getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
            # The change to WAL does not wait by itself.
            if not busy or time.monotonic() > end:
                raise
            time.sleep(0.01)
