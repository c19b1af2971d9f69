"""One kind of input: how it is made, how it is read, and what must hold of what was read."""

from __future__ import annotations

import linecache
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

OURS = "workbench"


@dataclass(frozen=True)
class Case:
    """An input: files by name; symbolic links, name → target; and what else the reader is given."""

    files: Mapping[str, bytes]
    links: Mapping[str, str] = field(default_factory=dict)
    about: Any = None


@dataclass(frozen=True)
class Kind:
    """A kind of input.

    Args:
        name: in the table of counts.
        share: how many of all inputs are of this kind, in parts.
        errors: our exception types that may refuse it.
        make: a case of a random generator; with None, the valid one.
        read: what the product does with the case in a folder.
        check: raises AssertionError where what was read is not sound.
        seconds: of computing that one input may take.
        code_of: names of code that may run (a template's own).
    """

    name: str
    share: int
    errors: tuple[type[BaseException], ...]
    make: Callable[[Random | None], Case]
    read: Callable[[Path, Case], Any]
    check: Callable[[Any, Path, Case], None] = lambda value, folder, case: None
    seconds: float = 4.0
    code_of: tuple[str, ...] = ()

    def complaint(self, error: BaseException) -> str | None:
        """What is wrong with an exception as a refusal; None for a good one."""
        if not isinstance(error, self.errors):
            frames = traceback.extract_tb(error.__traceback__)[-4:]
            where = " < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in reversed(frames))
            return f"{type(error).__name__} came out: {str(error)[:300]} ({where})"
        if memory := _memory(error):
            return memory
        text = str(error)
        if not text.strip() or len(text) > 20_000 or "Traceback" in text:
            return f"a message of {len(text)} characters: {text[:200]!r}"
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            return f"a message that cannot be printed: {text[:200]!r}"
        if not type(error).__module__.startswith(OURS) and (found := _thrown_elsewhere(error)):
            return f"{type(error).__name__} that nobody of us wrote: {text[:200]} ({found})"
        return None


def _memory(error: BaseException | None) -> str | None:
    while error is not None:
        if isinstance(error, MemoryError):
            return "the memory ran out"
        error = error.__cause__ or error.__context__
    return None


def _thrown_elsewhere(error: BaseException) -> str | None:
    """Where an exception of a general type was raised, if not by a ``raise`` of ours."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    line = linecache.getline(last.filename, last.lineno or 0).strip()
    return (
        None if f"/{OURS}/" in last.filename and line.startswith("raise") else f"{last.filename}:{last.lineno}: {line}"
    )


def put(folder: Path, case: Case) -> None:
    """Write a case into an empty folder."""
    for name, data in case.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    for name, target in case.links.items():
        (folder / name).symlink_to(target)
