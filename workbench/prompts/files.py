"""Pairs in files: JSON Lines or CSV, with the fields clean, corrupt, right, wrong and, if wanted, task."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, overload

from workbench.prompts.check import PromptError, Refused, misfit
from workbench.prompts.pair import Pair, token_ids, tokenizer_of
from workbench.text import Chat

FIELDS = ("clean", "corrupt", "right", "wrong")
LONGEST_TASK = 1000  # characters of a pair's task that are kept
SHOWN = 20  # of the refused entries, in an error's text; the error itself holds all


@dataclass(frozen=True)
class Loaded:
    """What a file held: the usable pairs, and every entry that is none, with its reason."""

    pairs: list[Pair]
    refused: list[Refused]


@overload
def load_pairs(path: str | Path, source: Any, skip_misaligned: Literal[False] = False) -> list[Pair]: ...
@overload
def load_pairs(path: str | Path, source: Any, skip_misaligned: Literal[True]) -> Loaded: ...
def load_pairs(path: str | Path, source: Any, skip_misaligned: bool = False) -> list[Pair] | Loaded:
    """Read pairs from a file and check each of them.

    A pair is refused where its sides are not as many tokens, are the same, or where right or wrong is not one token.

    Args:
        path: ``.jsonl`` (one object a line; prompts are text or lists of token ids) or ``.csv`` (with a header; text).
            UTF-8. A missing ``task`` is the file's name.
        source: the model or tokenizer that the pairs are for; None where they are all token ids.
        skip_misaligned: return what is usable, and beside it what was refused, in place of an error.

    Raises:
        PromptError: for a file that cannot be read, or that holds no entry; and, unless ``skip_misaligned``, for any
            entry that is refused: one error that lists them all, each with its line.
    """
    path = Path(path)
    tokenizer = tokenizer_of(source)
    pairs: list[Pair] = []
    refused: list[Refused] = []
    for line, entry in _entries(path):
        pair = _pair(entry, path.stem) if isinstance(entry, dict) else str(entry)
        reason = pair if isinstance(pair, str) else misfit(pair, tokenizer)
        if reason is not None:
            refused.append(Refused(line, reason, _shown(entry)))
        elif isinstance(pair, Pair):
            pairs.append(pair)
    if not pairs and not refused:
        raise PromptError(f"{path} holds no pairs; expected one a line, with the fields {', '.join(FIELDS)}")
    if skip_misaligned:
        return Loaded(pairs, refused)
    if refused:
        raise PromptError(_refusal(path, len(pairs), refused), refused)
    return pairs


def save_pairs(pairs: Sequence[Pair], path: str | Path, source: Any = None) -> None:
    """Write pairs to ``.jsonl`` or ``.csv``; :func:`load_pairs` reads them back.

    Args:
        source: a model or tokenizer, for chats, which are stored as the token ids that they render to.

    Raises:
        PromptError: for another kind of file; for token ids in a CSV, which holds only text.
    """
    path = Path(path)
    tokenizer = tokenizer_of(source)
    rows = [{name: _plain(getattr(pair, name), tokenizer) for name in FIELDS} | {"task": pair.task} for pair in pairs]
    if _kind(path) == "jsonl":
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    else:
        if any(not isinstance(value, str) for row in rows for value in row.values()):
            raise PromptError(f"{path}: a CSV holds only text, and these pairs have token ids; write a .jsonl")
        out = io.StringIO()
        # All quoted: by itself the writer leaves a lone carriage return bare, which a reader takes for a new row.
        writer = csv.DictWriter(out, [*FIELDS, "task"], lineterminator="\n", quoting=csv.QUOTE_ALL)
        writer.writeheader()
        writer.writerows(rows)
        text = out.getvalue()
    path.write_bytes(text.encode("utf-8"))  # not write_text: on Windows it would change every newline


def _plain(value: Any, tokenizer: Any) -> str | int | list[int]:
    if isinstance(value, Chat):
        return list(token_ids(value, tokenizer))
    return list(value) if isinstance(value, tuple) else value


def _kind(path: Path) -> str:
    kind = path.suffix.lower().lstrip(".")
    if kind not in ("jsonl", "csv"):
        raise PromptError(f"{path}: pairs are kept as .jsonl or .csv, not {path.suffix or 'without suffix'}")
    return kind


def _entries(path: Path) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """(line, the entry) of each; where there is something wrong with a line, what, in place of the entry."""
    kind = _kind(path)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise PromptError(f"{path} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise PromptError(
            f"{path} is not UTF-8 text: line {line} holds the byte {error.object[error.start]:#x}"
        ) from None
    if "\0" in text:
        raise PromptError(f"{path} holds a NUL character, so it is no text file")
    return _json_lines(text) if kind == "jsonl" else _csv_rows(path, text)


def _json_lines(text: str) -> Iterator[tuple[int, dict[str, Any] | str]]:
    # Not splitlines: a line separator such as U+2028 may stand inside a JSON string.
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError) as error:  # json's own, and a number of more digits than Python reads
            yield number, f"not JSON: {error}"
            continue
        yield number, entry if isinstance(entry, dict) else f"a JSON {type(entry).__name__}, expected an object"


def _csv_rows(path: Path, text: str) -> Iterator[tuple[int, dict[str, Any] | str]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] | None = None
    try:
        start = 1
        for row in reader:
            line, start = start, reader.line_num + 1
            if not row:
                continue
            if header is None:
                header = [name.strip() for name in row]
            elif len(row) != len(header):
                yield line, f"{len(row)} columns, and the header names {len(header)}"
            else:
                yield line, dict(zip(header, row, strict=True))
    except csv.Error as error:
        raise PromptError(f"{path} is not CSV: line {reader.line_num}: {error}") from None


def _pair(entry: dict[str, Any], task: str) -> Pair | str:
    """The pair that an entry describes, or what it lacks."""
    missing = [name for name in FIELDS if name not in entry]
    if missing:
        near = {name: get_close_matches(name, set(entry) - set(FIELDS), n=1) for name in missing}
        hints = ", ".join(f"{name!r}" + (f" (there is {near[name][0]!r})" if near[name] else "") for name in missing)
        return f"missing {hints}"
    for name in FIELDS:
        kind = "text, or an id" if name in ("right", "wrong") else "text, or a list of token ids"
        fits = _is_id(entry[name]) if name in ("right", "wrong") else _are_ids(entry[name])
        if not (isinstance(entry[name], str) or fits):
            return f"{name} is {entry[name]!r:.40}, expected {kind}"
    task = str(entry.get("task") or task)[:LONGEST_TASK]
    if any("\ud800" <= letter <= "\udfff" for letter in task):
        return f"task is {task!r:.40}, expected text that UTF-8 can say"
    sides = [value if isinstance(value, str) else tuple(value) for value in (entry["clean"], entry["corrupt"])]
    return Pair(sides[0], sides[1], entry["right"], entry["wrong"], task)


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _are_ids(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_id, value))


def _shown(entry: dict[str, Any] | str) -> str:
    return (json.dumps(entry, ensure_ascii=False) if isinstance(entry, dict) else entry)[:200]


def _refusal(path: Path, usable: int, refused: Sequence[Refused]) -> str:
    listed = [f"  {entry}" for entry in refused[:SHOWN]]
    if len(refused) > SHOWN:
        listed.append(f"  … and {len(refused) - SHOWN} more: they are all in this error's .refused")
    return "\n".join(
        [
            f"{path}: {len(refused)} of {usable + len(refused)} entries cannot be used; mend them, or pass "
            "skip_misaligned=True to have the others and this list",
            *listed,
        ]
    )
