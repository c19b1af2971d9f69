"""What a student has done, in one small file beside the notebooks. Nothing of it leaves the machine."""

from __future__ import annotations

import json
import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

FILE = "lesson-progress.json"
PLACE = "WORKBENCH_PROGRESS"  # environment: another file; "off" keeps it in memory
VERSION = 1


class Progress:
    """The record of one lesson: predictions made, exercises passed, hints read.

    Args:
        lesson: its name.
        path: the file; by default what WORKBENCH_PROGRESS names, else ``lesson-progress.json`` in the notebook's
            folder. None after a refusal to write: then it is kept in memory, and one warning says so.
    """

    def __init__(self, lesson: str, path: Path | str | None = None) -> None:
        named = os.environ.get(PLACE, "")
        self.lesson = lesson
        self.path: Path | None = Path(path or named or FILE).absolute() if path or named != "off" else None
        self._kept: dict[str, Any] = {}

    def read(self) -> dict[str, Any]:
        """{"predictions": {key: {"value", "right", "at"}}, "exercises": {name: {"passed", "attempts", "hints", …}}}."""
        whole = self._whole()
        mine = whole.get("lessons", {}).get(self.lesson, {})
        return {"predictions": mine.get("predictions", {}), "exercises": mine.get("exercises", {})}

    def prediction(self, key: str, value: Any, right: bool) -> None:
        """A commitment. The first stays: a prediction that is made after the reveal is none."""
        with self._changed() as mine:
            mine["predictions"].setdefault(key, {"value": value, "right": right, "at": _now()})

    def attempt(self, name: str, kind: str, source: str | None) -> None:
        """A check; what passed once stays passed, with the code that did."""
        with self._changed() as mine:
            record = _of(mine, name)
            if kind != "unfinished":
                record["attempts"] += 1
            if kind == "passed":
                record.update(passed=True, source=source, at=_now())

    def hint(self, name: str) -> int:
        """Count a hint, and say which one it is, from 0."""
        with self._changed() as mine:
            record = _of(mine, name)
            record["hints"] += 1
            return int(record["hints"]) - 1

    # ------------------------------------------------------------ the file

    def _whole(self) -> dict[str, Any]:
        if self.path is None or not self.path.exists():
            return self._kept
        try:
            whole = json.loads(self.path.read_text(encoding="utf-8"))
            if not isinstance(whole, dict) or not _fits(whole.get("lessons"), self.lesson):
                raise ValueError("it is no progress file")
        except (OSError, ValueError, RecursionError) as error:
            self._set_aside(error)
            return self._kept
        return whole

    def _set_aside(self, error: Exception) -> None:
        """Never write over what cannot be read: it may be mended by hand."""
        assert self.path is not None
        aside = self.path.with_suffix(f".broken-{datetime.now(UTC):%Y%m%d%H%M%S%f}.json")
        try:
            os.replace(self.path, aside)
            where = f"it is kept as {aside.name}, and a new one begins"
        except OSError:
            self.path = None
            where = "progress is kept in memory only"
        warnings.warn(f"the progress file cannot be read ({error}): {where}", stacklevel=5)

    @contextmanager
    def _changed(self) -> Iterator[dict[str, Any]]:
        whole = self._whole() or {"version": VERSION, "lessons": {}}
        mine = whole["lessons"].setdefault(self.lesson, {})
        for part in ("predictions", "exercises"):
            mine.setdefault(part, {})
        yield mine
        self._kept = whole
        self._write(whole)

    def _write(self, whole: dict[str, Any]) -> None:
        """All of it or nothing: a kernel that dies meanwhile leaves the old file."""
        if self.path is None:
            return
        try:
            data = _as_bytes(whole)
            handle, name = tempfile.mkstemp(dir=self.path.parent, prefix=f".{FILE}.")
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            os.replace(name, self.path)
        except OSError as error:
            warnings.warn(
                f"progress cannot be written to {self.path} ({error}): it is kept in memory only", stacklevel=4
            )
            self.path = None


def _of(mine: dict[str, Any], name: str) -> dict[str, Any]:
    record = mine["exercises"].setdefault(name, {})
    for key, nothing in (("passed", False), ("attempts", 0), ("hints", 0)):
        record.setdefault(key, nothing)
    return record


def _fits(lessons: Any, lesson: str) -> bool:
    """Whether the file is one that this lesson can go on with; of other lessons, only that they are lessons."""
    if not isinstance(lessons, dict) or not all(isinstance(each, dict) for each in lessons.values()):
        return False
    mine = lessons.get(lesson, {})
    predictions, exercises = mine.get("predictions", {}), mine.get("exercises", {})
    if not isinstance(predictions, dict) or not isinstance(exercises, dict):
        return False
    counts = [
        each.get(key, 0) for each in exercises.values() if isinstance(each, dict) for key in ("attempts", "hints")
    ]
    entries = [*predictions.values(), *exercises.values()]
    return all(isinstance(each, dict) for each in entries) and all(type(n) is int and n >= 0 for n in counts)


def _as_bytes(whole: Any) -> bytes:
    try:
        return json.dumps(whole, indent=1, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which only an escape can say
        return json.dumps(whole, indent=1).encode()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
