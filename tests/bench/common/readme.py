"""The README's table of speed, between two comments, from what was measured."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from tests.bench.common import machine
from tests.bench.common.results import Part, gigabytes, row_name, speed
from tests.bench.common.torch_peers import BRIDGE, EAGER, OPENAI

BEGIN, END = "<!-- make bench writes from here -->", "<!-- to here -->"
LLAMA = "llama.cpp"
COLUMNS = ("transformers", BRIDGE, OPENAI, LLAMA)
# part → its rows, (work, tokens); "memory" is the peak of that work with the weights in it
_SHORT = (("forward", 16), ("forward", 128), ("decode", 16), ("cache_shared", 128), ("backward", 128), ("grid", 16))
_LONG = (("forward", 1), ("forward", 16), ("forward", 128), ("forward", 1024), *_SHORT[2:])
_FULL = (("load", 0), ("memory", 128), *_LONG)
ROWS = {
    "nano": _SHORT,
    "random float32": _LONG,
    "random bfloat16": _LONG,
    "20b, 2 layers": _FULL,
    "llama.cpp": (("load", 0), ("memory", 128), ("first_token", 128), ("first_token", 1024), ("decode", 16)),
    "20b": (
        *(("load", 0), ("memory", 128), ("forward", 1), ("forward", 16), ("forward", 128), ("forward", 1024)),
        *(("decode", 16), ("cache_over_forward", 128), ("backward", 128)),
    ),
}


def write(file: Path, here: dict[str, Any], parts: list[Part]) -> None:
    """Replace what stands between the two comments.

    Raises:
        ValueError: if the README has not both of them, once each.
    """
    text = file.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(f"{file.name}: expected {BEGIN!r} and then {END!r}, once each, around the table")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    fresh = file.with_name(file.name + ".partial")
    fresh.write_text(before + BEGIN + "\n" + tables(here, parts) + END + after, encoding="utf-8", newline="\n")
    os.replace(fresh, file)


def tables(here: dict[str, Any], parts: list[Part]) -> str:
    """All that stands between the comments."""
    found = {part.name: part for part in parts}
    lines = [
        f"{machine.sentence(here)}. Medians; in brackets, how many times as long as ours, from the same rounds.",
        "",
        "| | ours | " + " | ".join(COLUMNS) + " |",
        "|---|---" + "|---" * len(COLUMNS) + "|",
    ]
    for name, rows in ROWS.items():
        if name in found:
            lines += _section(found, found[name], rows)
    if "MoE layer" in found:
        lines += ["", *_engines(found["MoE layer"])]
    return "\n".join([*lines, ""])


def _section(found: dict[str, Part], part: Part, rows: tuple[tuple[str, int], ...]) -> list[str]:
    there = [(work, tokens) for work, tokens in rows if _ours(part, work, tokens) != "–"]
    if not there:
        return []
    head = f"| **{part.title}** |" + " |" * (1 + len(COLUMNS))
    apart = found.get(f"{part.name}, OpenAI")  # measured beside ours again, in rounds of its own
    lines = [head]
    for work, tokens in there:
        cells = [_theirs(apart if apart and name == OPENAI else part, work, tokens, name) for name in COLUMNS]
        lines.append(f"| {_name(work, tokens)} | {_ours(part, work, tokens)} | {' | '.join(cells)} |")
    return lines


def _name(work: str, tokens: int) -> str:
    return f"peak memory, forward of {tokens} tokens" if work == "memory" else row_name(work, tokens)


def _ours(part: Part, work: str, tokens: int) -> str:
    if work == "memory":
        return _memory(part, tokens, "ours")
    cell = part.cells.get((work, tokens, "ours"))
    return "–" if cell is None or cell.median is None else speed(work, cell.median)


def _theirs(part: Part, work: str, tokens: int, name: str) -> str:
    if work == "memory":
        return _memory(part, tokens, name)
    names = ["transformers", EAGER] if name == "transformers" else [name]
    ratios = {each: ratio for each in names if (ratio := part.ratio(work, tokens, each)) is not None}
    return part.figure(work, tokens, min(ratios, key=lambda each: ratios[each])) if ratios else "–"


def _memory(part: Part, tokens: int, name: str) -> str:
    for work in ("forward", "first_token"):
        cell = part.cells.get((work, tokens, name))
        if cell is not None and cell.resident is not None:
            return f"{gigabytes(cell.resident)}, private {gigabytes(cell.private)}"
    return "–"


def _engines(part: Part) -> list[str]:
    sizes = sorted({tokens for _, tokens, _ in part.cells})
    engines = list(dict.fromkeys(subject for _, _, subject in part.cells))
    lines = [
        "| one MoE layer of the real 20b shape | " + " | ".join(row_name("", size)[2:] for size in sizes) + " |",
        "|---" * (1 + len(sizes)) + "|",
    ]
    for engine in engines:
        cells = [_share(part, engine, size) for size in sizes]
        lines.append(f"| {engine} engine: time, share of the roofline | {' | '.join(cells)} |")
    return lines


def _share(part: Part, engine: str, size: int) -> str:
    entry = part.roofline.get(f"layer {size} {engine}")
    return "–" if entry is None else f"{speed('layer', entry['best_seconds'])}, {entry['fraction']:.0%}"
