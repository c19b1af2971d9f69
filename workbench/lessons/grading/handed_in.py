"""What was handed in: which notebook is whose, and of which lesson."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from workbench.lessons.names import LESSONS
from workbench.lessons.progress import FILE as PROGRESS

LARGEST = 100_000_000  # bytes of a notebook; more is no lesson
_START = re.compile(r"""\blessons\s*\.\s*start\(\s*(?:name\s*=\s*)?(["']?)([\w ]+)\1""")
_SEED = re.compile(r"\bseed\s*=\s*(\d+)")


@dataclass(frozen=True)
class HandedIn:
    """One student's notebook of one lesson.

    Attributes:
        student: the first folder under the one that is graded, or what the file is called besides the lesson.
        lesson: "04_attention".
        seed: of the class's variant, as the notebook says.
        changed: when the file was last changed.
    """

    path: Path
    student: str
    lesson: str
    seed: int
    changed: datetime

    def predictions(self) -> dict[str, Any] | None:
        """What was committed, by key, from the progress file beside the notebook; None where there is none."""
        try:
            whole = json.loads((self.path.parent / PROGRESS).read_text(encoding="utf-8"))
            made = whole["lessons"].get(self.lesson, {}).get("predictions", {})
            return {str(key): {name: each.get(name) for name in ("value", "right", "at")} for key, each in made.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None


def collect(folder: Path, lessons: Sequence[str] = LESSONS) -> tuple[list[HandedIn], list[str]]:
    """The notebooks under a folder, and a line for each that cannot be graded.

    Args:
        lessons: only these; notebooks of others are passed over.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: no notebook is in it.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is no folder; give the one that holds the notebooks handed in")
    paths = sorted(_notebooks(folder))
    if not paths:
        raise ValueError(f"no notebook (*.ipynb) under {folder}; give the folder that holds those handed in")
    found: list[HandedIn] = []
    problems: list[str] = []
    for path in paths:
        try:
            each = _handed_in(path, folder)
        except ValueError as error:
            problems.append(f"{path.relative_to(folder)}: {error}")
        else:
            found += [each] if each.lesson in lessons else []
    return found, problems


def read_cells(path: Path) -> tuple[list[dict[str, Any]], Mapping[str, Any]]:
    """The cells of a notebook file and its metadata.

    Raises:
        ValueError: the file is no notebook; says why.
    """
    if path.is_symlink():
        raise ValueError("a link, not a file: it is not followed")
    if (size := path.stat().st_size) > LARGEST:
        raise ValueError(f"{size:,} bytes are too many for a lesson; clear its outputs and hand it in again")
    try:
        notebook = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"cannot be read as a notebook: {error}") from None
    cells = notebook.get("cells") if isinstance(notebook, dict) else None
    if not isinstance(cells, list):
        raise ValueError("is no notebook of format 4: it has no list of cells")
    metadata = notebook.get("metadata")
    return [_cell(each) for each in cells if isinstance(each, dict)], metadata if isinstance(metadata, dict) else {}


def _cell(raw: Mapping[str, Any]) -> dict[str, Any]:
    """A cell as the rest of the code expects it, whatever stands in the file."""
    source, metadata = raw.get("source", ""), raw.get("metadata")
    text = "".join(map(str, source)) if isinstance(source, list) else str(source)
    metadata = metadata if isinstance(metadata, dict) else {}
    tags = metadata.get("tags")
    tags = [str(tag) for tag in tags] if isinstance(tags, list) else []
    return {"cell_type": raw.get("cell_type"), "source": text, "metadata": {**metadata, "tags": tags}}


def _notebooks(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*.ipynb"):
        if not any(part.startswith(".") for part in path.relative_to(folder).parts):
            yield path


def _handed_in(path: Path, folder: Path) -> HandedIn:
    cells, metadata = read_cells(path)
    source = "\n".join(cell["source"] for cell in cells if cell["cell_type"] == "code")
    lesson, seed = _lesson(path, source, metadata)
    changed = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    return HandedIn(path, _student(path, folder, lesson), lesson, seed, changed)


def _lesson(path: Path, source: str, metadata: Mapping[str, Any]) -> tuple[str, int]:
    """By what the class set wrote into the file, else by the call that starts the lesson, else by the file's name."""
    kept = metadata.get("workbench")
    kept = kept if isinstance(kept, dict) else {}
    start = _START.search(source)
    said = (str(kept.get("lesson", "")), start[2] if start else "", path.stem)
    found = next((lesson for each in said if (lesson := lesson_in(each))), None)
    if found is None:
        raise ValueError('is of no lesson: no lessons.start("…") is in it, and its name holds no lesson\'s')
    seed = kept.get("seed")
    if not isinstance(seed, int):
        in_call = _SEED.search(source, start.start()) if start else None
        seed = int(in_call[1]) if in_call else 0
    return found, seed


def lesson_in(text: str) -> str | None:
    """The lesson that a text names: "04_attention", "attention" or "4" as a whole, else a whole name within it."""
    text = text.strip().lower()
    for lesson in LESSONS:
        if text in (lesson, lesson[3:], lesson[:2], lesson[:2].lstrip("0")):
            return lesson
    within = [lesson for lesson in LESSONS if lesson in text]
    return within[0] if within else None


def _student(path: Path, folder: Path, lesson: str) -> str:
    parts = path.relative_to(folder).parts
    if len(parts) > 1:
        return parts[0]
    name = path.stem.replace(lesson, "").strip(" _-.()")
    return name or folder.resolve().name
