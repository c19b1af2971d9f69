"""Finished cells on disk: appended, checked, never overwritten, so that a sweep that was killed goes on where it was.

A journal is a folder. Each study in it (this measure, this model, this code) has a folder of its own, and in that each
process that ever wrote has a file of its own: no two write into one. A file is a row of records::

    "WBJ1" | length, uint32 | CRC-32 of the payload, uint32 | payload

The payload is one batch: a line of JSON that says which cells it has, then the bytes of their arrays. What a killed
process left half-written at the end of its file fails its length or its checksum, and is dropped with a warning.
"""

from __future__ import annotations

import json
import os
import re
import struct
import time
import uuid
import warnings
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

MAGIC = b"WBJ1"
HEAD = struct.Struct("<4sII")
MOST = 2**31  # bytes of one record: a length beyond it was never written by us
SUFFIX = ".cells"
# As ``dtype.str`` says those of numbers, texts and times.
DTYPE = re.compile(r"[<>|=][?bBiufcSUmM][0-9]{1,9}(\[[a-zA-Z]{1,2}\])?")
ABOUT = "study.json"
SYNC_EVERY = 1.0  # seconds between two fsyncs: what a failure of power (not of the process) can cost


class JournalError(OSError):
    """The journal cannot be read or written; nothing in it was changed."""


@dataclass(frozen=True)
class Torn:
    """The end of a file that was not written whole.

    Attributes:
        offset: where it begins.
        n_bytes: how much is dropped.
    """

    path: Path
    offset: int
    n_bytes: int

    def __str__(self) -> str:
        return f"{self.path.name}: the last {self.n_bytes} bytes (from {self.offset}) were not written whole"


@dataclass(frozen=True)
class Place:
    """Where a finished cell stands in a journal, so that results need not be held in memory.

    Attributes:
        offset: where its batch's record begins.
        number: which cell of the batch it is.
    """

    path: Path
    offset: int
    number: int

    def read(self) -> dict[str, Any]:
        """The cell's value.

        Raises:
            JournalError: the file is gone, or is not what it was.
        """
        return dict(_batch(self.path, self.offset)[self.number][1])


@lru_cache(maxsize=4)  # neighbouring cells mostly stand in one batch
def _batch(path: Path, offset: int) -> list[tuple[str, dict[str, Any]]]:
    try:
        with path.open("rb") as file:
            file.seek(offset)
            for _, payload in records(file, path):
                return list(_understood(path, payload))
    except OSError as error:
        raise JournalError(f"{path} cannot be read any more: {error.strerror or error}") from error
    raise JournalError(f"{path} has no whole record at {offset} any more: it was changed since it was read")


class Journal:
    """The finished cells of one study.

    Args:
        folder: of all studies; made if it is not there.
        study: the content key of measure, model and code.
        about: what the study is, for people: kept beside it.

    Raises:
        JournalError: the folder cannot be made or written to.
    """

    def __init__(self, folder: str | Path, study: str, about: Mapping[str, Any] | None = None) -> None:
        self.folder = Path(folder)
        self.study = study
        self.place = self.folder / study
        self._file: Any = None
        self._end = 0
        self._synced = time.monotonic()
        self._unsynced = False
        try:
            self.place.mkdir(parents=True, exist_ok=True)
            self._say(about or {})
        except OSError as error:
            raise JournalError(
                f"no journal can be kept in {self.folder}: {error.strerror or error}; give journal= a folder that can "
                "be written to"
            ) from error

    def _say(self, about: Mapping[str, Any]) -> None:
        target = self.place / ABOUT
        if target.exists():
            return
        text = json.dumps({"begun": datetime.now(UTC).isoformat(timespec="seconds"), **about}, indent=1, default=str)
        aside = self.place / f".{uuid.uuid4().hex}.tmp"
        aside.write_text(text, encoding="utf-8")
        os.replace(aside, target)

    def others(self) -> dict[str, dict[str, Any]]:
        """The other studies of the folder, by key: of another model, measure or version."""
        found = {}
        for path in sorted(self.folder.glob(f"*/{ABOUT}")):
            if path.parent.name != self.study:
                try:
                    about = json.loads(path.read_text(encoding="utf-8"))
                except (OSError, ValueError, RecursionError):
                    about = {}
                found[path.parent.name] = about if isinstance(about, dict) else {}
        return found

    # ------------------------------------------------------------ reading

    def read(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """(cell key, value) of every finished cell, those of all processes; warns of ends that are torn."""
        return ((name, value) for name, value, _ in self.places())

    def places(self) -> Iterator[tuple[str, dict[str, Any], Place]]:
        """As ``read``, with the place that the value can be read from again."""
        for path in sorted(self.place.glob(f"*{SUFFIX}")):
            for offset, payload in self._records(path):
                for number, (name, value) in enumerate(_understood(path, payload)):
                    yield name, value, Place(path, offset, number)

    def _records(self, path: Path) -> Iterator[tuple[int, bytes]]:
        try:
            with path.open("rb") as file:
                torn = yield from records(file, path)
        except OSError as error:
            raise JournalError(f"the journal {path} cannot be read: {error.strerror or error}") from error
        if torn is not None and not self._is_mine(path):
            warnings.warn(f"{torn}: a process was stopped while it wrote; those cells are measured again", stacklevel=3)

    def _is_mine(self, path: Path) -> bool:
        return self._file is not None and Path(self._file.name) == path

    # ------------------------------------------------------------ writing

    def append(self, cells: Sequence[tuple[str, Mapping[str, Any]]]) -> list[Place]:
        """Keep a batch: all of it, or nothing.

        The bytes are the system's when this returns, so that the death of this process loses nothing; they are on the
        disk a second later at most, or after ``sync``.

        Returns:
            Where each cell stands.

        Raises:
            JournalError: the disk is full, or gone. What was there before is as it was.
        """
        record = framed(encoded(cells))
        try:
            file = self._opened()
            path, offset = Path(file.name), self._end
            _write_all(file, record)
            self._end += len(record)
            self._unsynced = True
            if time.monotonic() - self._synced > SYNC_EVERY:
                self.sync()
        except OSError as error:
            self._take_back()
            raise JournalError(
                f"{len(cells)} cells could not be kept in {self.place}: {error.strerror or error}. What was kept "
                "before is safe; make room and run the sweep again, and it goes on from there"
            ) from error
        return [Place(path, offset, number) for number in range(len(cells))]

    def _opened(self) -> Any:
        if self._file is None:
            name = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{os.getpid()}-{uuid.uuid4().hex[:8]}{SUFFIX}"
            self._file = (self.place / name).open("xb", buffering=0)
            self._end = 0
        return self._file

    def _take_back(self) -> None:
        """Cut off what was written of a batch that did not fit."""
        if self._file is None:
            return
        try:
            self._file.truncate(self._end)
            self._file.seek(self._end)
        except OSError:  # the next reader drops it by its checksum; this process begins a new file
            self._file.close()
            self._file = None

    def sync(self) -> None:
        """Have the system put everything on the disk."""
        if self._file is not None and self._unsynced:
            os.fsync(self._file.fileno())
        self._synced, self._unsynced = time.monotonic(), False

    def close(self) -> None:
        """Sync and close; the journal can be read and appended to again afterwards."""
        if self._file is None:
            return
        try:
            self.sync()
        finally:
            self._file.close()
            self._file = None

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *problem: object) -> None:
        self.close()


# ---------------------------------------------------------------- records


def _write_all(file: Any, data: bytes) -> None:
    """Unbuffered files may take a part of what they are given."""
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


def framed(payload: bytes) -> bytes:
    """A payload with its length and checksum."""
    return HEAD.pack(MAGIC, len(payload), zlib.crc32(payload)) + payload


def records(file: Any, path: Path) -> Iterator[tuple[int, bytes]]:
    """(offset, payload) from where the file stands to its end, or to the first that is not whole; returns what was
    Torn, or None."""
    size = os.fstat(file.fileno()).st_size
    offset = file.tell()
    while offset < size:
        head = file.read(HEAD.size)
        if len(head) < HEAD.size:
            return Torn(path, offset, size - offset)
        magic, length, check = HEAD.unpack(head)
        if magic != MAGIC or length > min(MOST, size - offset - HEAD.size):
            return Torn(path, offset, size - offset)
        payload = file.read(length)
        if len(payload) < length or zlib.crc32(payload) != check:
            return Torn(path, offset, size - offset)
        yield offset, payload
        offset += HEAD.size + length
    return None


def encoded(cells: Sequence[tuple[str, Mapping[str, Any]]]) -> bytes:
    """A batch as a line of JSON and the bytes of its arrays."""
    arrays: list[bytes] = []
    at = 0
    said: list[Any] = []
    for name, value in cells:
        parts: dict[str, Any] = {}
        for part, found in value.items():
            if isinstance(found, xr.DataArray):
                raw = np.ascontiguousarray(found.values)
                about = found.to_dict(data=False, encoding=False)
                coords = {str(c): {"dims": list(v.dims), "data": v.values.tolist()} for c, v in found.coords.items()}
                parts[part] = {
                    "at": at, "dtype": raw.dtype.str, "shape": list(raw.shape), "dims": list(map(str, found.dims)),
                    "coords": coords, "name": found.name, "attrs": json.loads(json.dumps(about["attrs"], default=str)),
                }  # fmt: skip
                arrays.append(raw.tobytes())
                at += raw.nbytes
            else:
                parts[part] = _exact(found)
        said.append([name, parts])
    return json.dumps(said, ensure_ascii=False).encode() + b"\n" + b"".join(arrays)


def _exact(number: Any) -> Any:
    """JSON keeps a double exactly, and NaN and infinity in Python's own spelling."""
    return number if isinstance(number, bool | int) else float(number)


def decoded(payload: bytes) -> Iterator[tuple[str, dict[str, Any]]]:
    """What ``encoded`` made: (cell key, value)."""
    line, _, raw = payload.partition(b"\n")
    for name, parts in json.loads(line):
        yield name, {part: _array(found, raw) if isinstance(found, dict) else found for part, found in parts.items()}


def _understood(path: Path, payload: bytes) -> list[tuple[str, dict[str, Any]]]:
    """A whole record's cells; one that is whole and not as we write them was written by somebody else."""
    try:
        cells = list(decoded(payload))
        names = all(isinstance(name, str) for name, _ in cells)
        values = all(
            isinstance(each, bool | int | float | xr.DataArray) for _, value in cells for each in value.values()
        )
    except Exception as error:  # of JSON, numpy or xarray, whatever they meet in it
        why = str(error)[:300].encode("utf-8", "backslashreplace").decode()  # names in it may be no text
        raise JournalError(f"{path} holds a record that is none of ours: {type(error).__name__}: {why}") from error
    if not names or not values:
        raise JournalError(f"{path} holds a record that is none of ours: expected cells by name, with numbers in them")
    return cells


def _array(found: Mapping[str, Any], raw: bytes) -> xr.DataArray:
    # NumPy would parse other texts as Python's literals.
    if not isinstance(found["dtype"], str) or not DTYPE.fullmatch(found["dtype"]):
        raise ValueError(f"dtype {str(found['dtype'])[:100]!r}: expected numbers, texts or times, as '<f4'")
    if min([0, found["at"], *found["shape"]]) < 0:
        raise ValueError("an array of less than nothing")
    dtype = np.dtype(found["dtype"])
    n = int(np.prod(found["shape"], dtype=np.int64))
    values = np.frombuffer(raw, dtype, n, found["at"]).reshape(found["shape"]).copy()
    coords = {name: (tuple(c["dims"]), np.asarray(c["data"])) for name, c in found["coords"].items()}
    return xr.DataArray(values, coords, tuple(found["dims"]), found["name"], found["attrs"])
