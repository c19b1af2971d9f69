"""The file: its tables, and whether a file is one of ours."""

from __future__ import annotations

import os
import sqlite3
import time
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
LONGEST = 64 * 2**20  # bytes of one value that is read; we write none above some hundred thousand
BROKEN = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


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


def to_read(path: Path) -> sqlite3.Connection:
    """A connection that only reads.

    Raises:
        RecordsError: for a file that is damaged, not ours, or cannot be read.
    """
    address = f"file:{quote(str(path))}?mode=ro"
    try:
        connection = sqlite3.connect(address, timeout=BUSY, isolation_level=None, uri=True)
        try:
            check(connection, path)
        except sqlite3.OperationalError:
            # In a folder that cannot be written to, SQLite cannot make the files that a reader shares with writers.
            connection.close()
            connection = sqlite3.connect(f"{address}&immutable=1", isolation_level=None, uri=True)
            check(connection, path)
    except sqlite3.Error as error:
        raise unreadable(path, error) from error
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LONGEST)
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
