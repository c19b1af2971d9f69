"""One process at a time: a lock that the system takes back when its holder dies."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import TracebackType

from workbench.atlases.errors import AtlasError


class Lock:
    """Held from ``with Lock(path):`` to its end, or to the end of the process.

    Raises:
        AtlasError: another process, or another build in this one, holds it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = -1

    def __enter__(self) -> Lock:
        try:
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise AtlasError(
                f"{self.path.parent} cannot be written to: {error.strerror or error}; an atlas that is there is read "
                "with wb.atlas.open"
            ) from error
        try:
            _take(self._file)
        except OSError as error:
            os.close(self._file)
            raise AtlasError(
                f"another build is at work in {self.path.parent}; wait for it, or give another folder"
            ) from error
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        os.close(self._file)  # which gives the lock back; the file stays: taking it away could race with another build


if sys.platform == "win32":
    import msvcrt

    def _take(file: int) -> None:
        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _take(file: int) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
