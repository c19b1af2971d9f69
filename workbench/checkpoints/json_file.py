"""A JSON file read by key, each value's type checked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from workbench.checkpoints.errors import CheckpointError, Problem

REQUIRED = object()


class JsonObject:
    """A JSON object from a file, read by key with the type checked.

    Raises:
        CheckpointError: naming file and key, from every method, for a value that is missing or of another type.
    """

    def __init__(self, file: Path, values: Mapping[str, Any], inside: str = "") -> None:
        self.file, self.values, self._inside = file, values, inside

    def __contains__(self, key: str) -> bool:
        return self.values.get(key) is not None

    def error(self, key: str, expected: str, hint: str = "") -> CheckpointError:
        """The error that says what this key should have been."""
        found = _shown(self.values[key]) if key in self.values else "no such key"
        return CheckpointError(Problem(self.file, self._inside + key, expected, found, hint))

    def whole(self, key: str, default: Any = REQUIRED, most: int = 2**31) -> int:
        """A whole number, not negative and not absurdly large."""
        value = self.values.get(key) if default is REQUIRED or key in self else default
        if type(value) is not int or not 0 <= value <= most:
            raise self.error(key, f"a whole number up to {most}")
        return value

    def sizes(self, spellings: Mapping[str, str]) -> dict[str, int]:
        """Several whole numbers: field of Config → value of its key."""
        most = {"n_layers": 10_000}  # each layer is a list of names to compare: an absurd count would hang here
        return {field: self.whole(key, most=most.get(field, 2**31)) for field, key in spellings.items()}

    def number(self, key: str, default: Any = REQUIRED) -> float:
        """A finite number."""
        value = self.values.get(key) if default is REQUIRED or key in self else default
        # The comparison is false for NaN too, and takes a whole number of any length.
        if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) <= 1e300:
            raise self.error(key, "a finite number")
        return float(value)

    def ids(self, key: str) -> tuple[int, ...]:
        """Token ids: one, a list, or none."""
        value = self.values.get(key)
        ids = value if isinstance(value, list) else [] if value is None else [value]
        if any(type(token) is not int or token < 0 for token in ids):
            raise self.error(key, "a token id or a list of them")
        return tuple(ids)

    def inner(self, key: str) -> JsonObject:
        """An object within this one."""
        value = self.values.get(key)
        if not isinstance(value, dict):
            raise self.error(key, "a JSON object")
        return JsonObject(self.file, value, f"{self._inside}{key}.")


def _shown(value: Any) -> str:
    try:
        return repr(value)[:120]
    except RecursionError:  # deeper than repr goes, and not than json
        return "lists within lists without end"


def read_json(file: Path) -> JsonObject:
    """A file that holds one JSON object.

    Raises:
        CheckpointError: if there is no such file, or it holds something else.
    """
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        there = ", ".join(sorted(path.name for path in file.parent.iterdir())[:8]) or "an empty folder"
        raise CheckpointError(Problem(file.parent, "", file.name, there)) from error
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(Problem(file, "", "JSON", f"{type(error).__name__}: {error}")) from error
    if not isinstance(values, dict):
        raise CheckpointError(Problem(file, "", "a JSON object", f"a {type(values).__name__}"))
    return JsonObject(file, values)
