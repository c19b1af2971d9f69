"""A random model of 110 million parameters (512 wide, 8 layers, 16 experts), in float32 and in bfloat16.

python -m tests.bench.random_110m [--quick]
"""

from __future__ import annotations

from dataclasses import replace

from tests.bench.common.checkpoints import random_model
from tests.bench.common.options import Options, main
from tests.bench.common.results import Part
from tests.bench.common.roofline import Shape
from tests.bench.common.torch_peers import BRIDGE, TRANSFORMERS, compare, demand, short_form, subjects, works

TUNED = (("forward", 16), ("forward", 128), ("cache_shared", 128), ("grid", 16))


def run(options: Options) -> list[Part]:
    """Both types as a user finds them; then the rows that count with malloc tuned."""
    types = ("float32",) if options.quick else ("float32", "bfloat16")
    found = [_one(options, dtype) for dtype in types]
    if not options.quick and options.malloc == "default":
        found += [_one(replace(options, malloc="tuned", rounds=options.rounds or 2), dtype) for dtype in types]
    return found


def _one(options: Options, dtype: str) -> Part:
    path, tuned = random_model(options.folder, dtype, options.quick), options.malloc == "tuned"
    columns = subjects(path, dtype)
    rows = works((16,) if options.quick else (1, 16, 128, 1024), Shape.of(path, dtype))
    if options.quick:
        rows = short_form(rows)
    if tuned:
        rows = [replace(row, answer=None, memory=False) for row in rows if (row.name, row.tokens) in TUNED]
    size = "25 million parameters, 4 layers" if options.quick else "110 million parameters, 8 layers"
    title = f"random model, {size}, {dtype}" + (", malloc tuned" if tuned else "")
    part = Part(f"random {dtype}{' tuned' if tuned else ''}", title, [column.name for column in columns])
    compare(part, columns, rows, options, loads=1 if options.quick or tuned else 2)
    for row in rows:
        if row.name == "forward":
            demand(part, f"forward of {row.tokens} tokens against transformers", *_key(row), TRANSFORMERS, 1.3)
        if row.name == "cache_shared":
            demand(part, f"run_with_cache of {row.tokens} tokens against TransformerBridge", *_key(row), [BRIDGE], 2.0)
        if row.name == "grid":
            demand(part, "patching grid against transformer_lens.patching", *_key(row), [BRIDGE], 8.0)
    return part


def _key(row) -> tuple[str, int]:
    return row.name, row.tokens


if __name__ == "__main__":
    main(run, __doc__)
