"""What reading an input must not do: write or look elsewhere, start anything, run code. Watched by an audit hook."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FORBIDDEN = (
    "subprocess.",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "os.spawn",
    "os.startfile",
    "socket.",
    "pickle.find_class",
    "ctypes.dlopen",
    "webbrowser.",
    "urllib.",
    "http.",
    "ftplib.",
    "smtplib.",
)
CHANGES = (
    "os.remove",
    "os.rename",
    "os.mkdir",
    "os.rmdir",
    "os.link",
    "os.symlink",
    "os.truncate",
    "os.chmod",
    "os.chown",
    "shutil.",
)
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Guard:
    """Hears every audit event of this process; records the forbidden ones between ``watching()`` and its end.

    Args:
        inside: the one folder that may be written to.
        outside: a folder of files that nobody may even open.
    """

    def __init__(self, inside: Path, outside: Path) -> None:
        self.inside, self.outside = str(inside), str(outside)
        self.seen: list[str] = []
        self.code_of: tuple[str, ...] = ()  # file names of code that may be compiled and run: a template's
        self._on = False
        sys.addaudithook(self._hear)  # it can never be taken off again: one guard a process

    @contextmanager
    def watching(self, code_of: tuple[str, ...] = ()) -> Iterator[None]:
        """Record from here on."""
        self.code_of, self._on = code_of, True
        try:
            yield
        finally:
            self._on = False

    def taken(self) -> list[str]:
        """What was recorded since the last time."""
        seen, self.seen = self.seen, []
        return seen

    def _hear(self, event: str, args: tuple) -> None:
        if not self._on:
            return
        if event == "open":
            self._opened(*args)
        elif event == "compile":
            self._code(event, args[1])
        elif event == "exec":
            self._code(event, getattr(args[0], "co_filename", None))
        elif event.startswith(FORBIDDEN) or (
            event.startswith(CHANGES)
            and not all(self._is_inside(path, args) for path in args if isinstance(path, str | bytes))
        ):
            self._say(event, args)

    def _opened(self, path: object, mode: object, flags: object) -> None:
        if isinstance(path, int):
            return
        writes = (isinstance(mode, str) and any(letter in mode for letter in "wax+")) or (
            mode is None and isinstance(flags, int) and flags & WRITING
        )
        if writes and not self._is_inside(path) and os.fspath(path) != os.devnull:  # pyright: ignore[reportArgumentType]
            self._say("open for writing", (path,))
        elif os.path.abspath(os.fsdecode(path)).startswith(self.outside):  # pyright: ignore[reportArgumentType]
            self._say("open outside", (path,))

    def _code(self, event: str, name: object) -> None:
        text = os.fsdecode(name) if isinstance(name, str | bytes) else ""
        # Modules that are imported late, and the classes of the standard library and of type checkers.
        ours = text.endswith((".py", ".pyc")) or text.startswith(("<@beartype", "<frozen", "<attrs"))
        if not ours and text not in self.code_of:
            self._say(event, (text,))

    def _is_inside(self, path: object, args: tuple = ()) -> bool:
        opened = args[-1] if args and isinstance(args[-1], int) and args[-1] >= 0 else None
        if opened is not None and not os.path.isabs(os.fsdecode(path)):  # pyright: ignore[reportArgumentType]
            try:  # shutil.rmtree names what it takes away by the folder that it has opened
                path = os.path.join(os.readlink(f"/proc/self/fd/{opened}"), os.fsdecode(path))  # pyright: ignore[reportArgumentType]
            except OSError:  # no Linux: seen by what is left there
                return True
        return os.path.abspath(os.fsdecode(path)).startswith(self.inside)  # pyright: ignore[reportArgumentType]

    def _say(self, event: str, args: object) -> None:
        self.seen.append(f"{event} {args!r:.200}")
