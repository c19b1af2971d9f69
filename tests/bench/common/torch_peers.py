"""Ours beside the implementations that run on torch: transformers, TransformerBridge, OpenAI's own code."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.bench.common import roofline
from tests.bench.common.options import Options
from tests.bench.common.process import Failed
from tests.bench.common.results import Demand, Part, gigabytes, row_name
from tests.bench.common.rounds import Bench, Subject, Work, draw

EAGER = "transformers, eager experts"
TRANSFORMERS = ["transformers", EAGER]  # the faster of its two ways is what we are compared with
BRIDGE = "TransformerBridge"
OPENAI = "OpenAI's code"
GRID_TOKENS = 16
NEW_TOKENS = 24  # as in subjects/base.py, which only the measured processes import
MOST_GATHERED = 3.5e9  # bytes: where OpenAI's code stops


def subjects(path: Path, dtype: str, openai: Path | None = None) -> list[Subject]:
    """All columns. ``openai``: a folder in OpenAI's form, for its own loader; without one it gets our weights."""
    how = {"path": str(path), "dtype": dtype}
    theirs = {"path": str(openai or path), "dtype": dtype}
    experts = {"question": "use_experts", "name": "default"}
    return [
        Subject("ours", "ours", how),
        Subject("transformers", "transformers_model", how, before=experts),
        Subject(EAGER, "transformers_model", how, before=experts | {"name": "eager"}, process="transformers"),
        Subject(BRIDGE, "bridge", how),
        Subject(OPENAI, "openai", theirs, loads=openai is not None),
    ]


def works(sizes: Sequence[int], shape: roofline.Shape) -> list[Work]:
    """Every row. OpenAI's code takes part where the weights that it gathers fit."""
    torch_only = ("ours", *TRANSFORMERS, BRIDGE)
    both, middle = ("ours", BRIDGE), 128 if 128 in sizes else max(sizes)
    forwards = [
        Work("forward", size, memory=size == middle, answer="answer_forward" if size == 16 else None) for size in sizes
    ]
    backward = Work("backward", middle, memory=True, answer="answer_backward")
    rows = [
        *forwards,
        Work("first_token", middle, only=torch_only),
        Work("decode", 16),
        *(Work("cache_shared", size, only=both, memory=size != 16) for size in sorted({16, middle})),
        Work("cache_everything", middle, only=both, memory=True),
        Work("cache_outputs", middle, only=("ours", *TRANSFORMERS)),
        backward,
        Work("grid", GRID_TOKENS, only=torch_only, rounds=2, answer="grid", warm=False),
    ]
    return [row if gathered(row, shape) <= MOST_GATHERED else replace(row, only=torch_only) for row in rows]


def gathered(work: Work, shape: roofline.Shape) -> float:
    """Bytes that OpenAI's code would hold at once in a work: the weights of every token's experts, of one layer, or of
    all of them where a backward pass is to come. Decoding, without a cache, it does some 50 times over."""
    tokens = work.tokens + NEW_TOKENS if work.name == "decode" else work.tokens
    times = {"backward": shape.n_layers, "decode": 2 * NEW_TOKENS}.get(work.name, 1)
    return float(times * tokens * shape.experts_per_token * shape.one_expert * shape.weight_bytes)


def note_gathering(part: Part, rows: Sequence[Work], shape: roofline.Shape) -> None:
    """What OpenAI's code would need where it is left out."""
    for work in rows:
        needed = gathered(work, shape)
        if work.name in ("forward", "backward") and needed > MOST_GATHERED:
            name = row_name(work.name, work.tokens)
            part.notes.append(f"{OPENAI}, {name}: not run, it would gather {gigabytes(int(needed))} of expert weights")


def short_form(rows: Sequence[Work]) -> list[Work]:
    """A few rows."""
    return [row for row in rows if row.name in ("forward", "cache_shared", "grid")]


def compare(part: Part, columns: Sequence[Subject], rows: Sequence[Work], options: Options, loads: int) -> Part:
    """Load all of them, compare their answers, and give each its turns at every row."""
    options.say(part.title)
    rounds = options.rounds or (2 if options.quick else 4)
    rows = [row for row in rows if row.tokens <= options.longest]
    path, dtype = Path(columns[0].how["path"]), columns[0].how["dtype"]
    shape = roofline.Shape.of(path, dtype)
    with Bench(part, [*columns, roofline.subject(path)], options.threads, options.malloc, options.say) as bench:
        bench.load(loads)
        for work in rows:
            how = arguments(work, shape.d_vocab)
            bench.compare(work, how)
            bench.measure(work, how, rounds)
            roofline.measure(bench, dtype)
        note_rooflines(part, bench, shape, rows)
        for work in ("cache_shared", "cache_everything"):
            note_kept(part, bench, work, rows, shape.d_vocab)
    roofline.finish(part)
    if OPENAI in part.subjects:
        note_gathering(part, rows, shape)
    return part


def note_rooflines(part: Part, bench: Bench, shape: roofline.Shape, rows: Sequence[Work]) -> None:
    """How near our forward passes and our decoding come to what the machine can do."""
    for work in rows:
        if work.name not in ("forward", "first_token", "decode") or "ours" not in part.about:
            continue
        counted = 1 if work.name == "decode" else work.tokens
        hits = bench.question("ours", "experts_hit", tokens=draw(counted, shape.d_vocab))["hits"]
        operations = shape.operations(counted, None if work.name == "forward" else 1)
        roofline.note(part, work.name, work.tokens, shape.read_bytes(hits), operations)


def note_kept(part: Part, bench: Bench, work: str, rows: Sequence[Work], d_vocab: int) -> None:
    """How many tensors each keeps, as a note: what is compared ought to be the same."""
    sizes = [row.tokens for row in rows if row.name == work]
    if not sizes:
        return
    tokens, kept = draw(sizes[-1], d_vocab), {}
    for name in ("ours", BRIDGE):
        with suppress(Failed):
            kept[name] = bench.question(name, "kept", work=work, tokens=tokens)
    words = ", ".join(f"{name} {found['tensors']} ({found['bytes'] / 1e6:.1f} MB)" for name, found in kept.items())
    part.notes.append(f"{work} of {sizes[-1]} tokens keeps distinct tensors: {words}")


def arguments(work: Work, d_vocab: int) -> dict[str, Any]:
    """What a work's method is called with: the same random tokens for everybody."""
    tokens = draw(work.tokens, d_vocab)
    if work.name != "grid":
        return {"tokens": tokens}
    # The second token differs, so that nearly every cell has something to restore.
    other = draw(work.tokens, d_vocab, seed=1)[1]
    return {"tokens": tokens, "corrupted": [tokens[0], other, *tokens[2:]], "answers": [17, 23]}


def demand(part: Part, text: str, work: str, tokens: int, against: list[str], target: float) -> None:
    """Ask for a ratio to the fastest of some columns."""
    part.demands.append(Demand(text, part.least_ratio(work, tokens, against), target))
