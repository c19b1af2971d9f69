"""A row of the file, each column checked: what is in a file need not be what we put there, and some of it becomes
Python in ``record.code()``."""

from __future__ import annotations

import json
import math
import re
import sqlite3
from datetime import datetime
from typing import Any

from workbench.provenance.entry import LARGEST_PART

TEXTS = ("name", "model", "session", "tokens_digest", "mask_digest", "text", "routing", "result")
HEX = re.compile("[0-9a-f]{1,64}")
MOST_TOKENS = 2**26  # of one run; more than can be kept in LARGEST_PART bytes


def named(row: sqlite3.Row) -> str:
    """A record in an error: its id need not be one."""
    return ascii(row["id"])[:40] if "id" in row.keys() else "without an id"  # noqa: SIM118 - a Row is no mapping


def checked(row: sqlite3.Row) -> dict[str, Any]:
    """The fields of a Record but for its bytes.

    Raises:
        ValueError, TypeError, IndexError, …: a column is not as we write it.
    """
    facts = _json(row, "facts", dict)
    shape = _json(row, "shape", list, None)
    sizes = shape is None or (len(shape) == 2 and all(type(n) is int and n >= 0 for n in shape))
    if not sizes or (shape is not None and math.prod(shape) > MOST_TOKENS):
        raise ValueError(f"its shape is {shape!r:.80}")
    specs = _json(row, "specs", list)
    sources, about = _json(row, "sources", dict), _json(row, "about", dict)
    before = about.get("rerun")
    if not all(isinstance(each, dict) for each in (*specs, *sources.values(), before or {})):
        raise TypeError("its interventions and sources are no objects")
    used = [each.get(key) for each in (*sources.values(), before or {}) for key in ("record", "base", "unedited")]
    if not all(id is None or (isinstance(id, str) and HEX.fullmatch(id)) for id in used):
        raise TypeError("a record that it takes something from has no id of ours")
    return {
        **{name: _text(row, name) for name in TEXTS},
        "id": _digits(row, "id"),
        "kind": _text(row, "kind") or "",
        "fingerprint": None if row["fingerprint"] is None else _digits(row, "fingerprint"),
        "recipe": _recipe(row),
        "started": datetime.fromtimestamp(row["started"]).astimezone(),
        "seconds": None if row["seconds"] is None else float(row["seconds"]),
        "versions": _texts(facts.get("versions")),
        "machine": facts.get("machine") if isinstance(facts.get("machine"), dict) else {},
        "notebook": None if facts.get("notebook") is None else str(facts["notebook"]),
        "shape": None if shape is None else tuple(shape),
        "specs": specs,
        "sources": sources,
        "sites": _sites(row),
        "seed": None if row["seed"] is None else int(row["seed"]),
        "summary": _json(row, "summary", dict),
        "about": about,
        "missing": _texts(_json(row, "missing", dict)),
        "pinned": bool(row["pinned"]),
    }


def sizes_of(text: Any) -> tuple[int, ...] | None:
    """The shape of a vector; None for what is none."""
    try:
        found = json.loads(text)
    except (TypeError, ValueError, RecursionError):
        return None
    sizes = isinstance(found, list) and len(found) < 9 and all(type(n) is int and n >= 0 for n in found)
    return tuple(found) if sizes else None


def _json(row: sqlite3.Row, name: str, kind: type, empty: Any = ...) -> Any:
    found = json.loads(_text(row, name) or "null")
    if found is None:
        return kind() if empty is ... else empty
    if not isinstance(found, kind):
        raise TypeError(f"its {name} is a {type(found).__name__}, expected a {kind.__name__}")
    return found


def _text(row: sqlite3.Row, name: str) -> str | None:
    found = row[name]
    if found is not None and not isinstance(found, str):
        raise TypeError(f"its {name} is a {type(found).__name__}, expected text")
    return found


def blob(row: sqlite3.Row, name: str) -> bytes | None:
    """A column of bytes, of at most twice what is kept."""
    found = row[name]
    if found is not None and not (isinstance(found, bytes) and len(found) <= 2 * LARGEST_PART):
        raise TypeError(f"its {name} are a {type(found).__name__}, expected at most {2 * LARGEST_PART} bytes")
    return found


def _digits(row: sqlite3.Row, name: str) -> str:
    """It becomes part of a variable's name in ``code``."""
    found = _text(row, name) or ""
    if not HEX.fullmatch(found):
        raise ValueError(f"its {name} is {found!r:.60}, expected hex digits")
    return found


def _texts(found: Any) -> dict[str, str]:
    return {str(name): str(each) for name, each in found.items()} if isinstance(found, dict) else {}


def _recipe(row: sqlite3.Row) -> dict[str, Any] | None:
    found = _json(row, "recipe", dict, None)
    if found is None:
        return None
    found.pop("fingerprint", None)  # of a sweep's; the record has it by itself
    if not isinstance(found.get("path"), str) or not set(found) <= {"path", "dtype", "device", "experts"}:
        raise TypeError(f"its recipe is {found!r:.120}, expected a path, dtype, device and experts")
    if not all(each is None or isinstance(each, str) for each in found.values()):
        raise TypeError(f"its recipe is {found!r:.120}, expected texts")
    return found


def _sites(row: sqlite3.Row) -> Any:
    found = json.loads(_text(row, "sites") or "null")
    listed = found if isinstance(found, list) else [found]
    if not all(each is None or isinstance(each, str) for each in listed):
        raise TypeError(f"its sites are {found!r:.80}, expected names")
    return found
