"""The whole gpt-oss-20b in synthetic weights, ours alone: no other implementation with hooks fits it in 24 GB.

python -m tests.bench.whole_20b [--full FOLDER]
"""

from __future__ import annotations

from dataclasses import replace

from tests.bench.common.checkpoints import in_page_cache, synth_20b
from tests.bench.common.machine import memory_bytes
from tests.bench.common.options import Options, main
from tests.bench.common.process import Failed
from tests.bench.common.results import Demand, Part
from tests.bench.common.rounds import Subject, Work
from tests.bench.common.torch_peers import compare

ROWS = [
    Work("forward", 1),
    Work("forward", 16),
    Work("forward", 128, memory=True),
    Work("cache_over_forward", 128),
    Work("cache_stream", 128, memory=True),
    Work("first_token", 128),
    Work("decode", 16, memory=True),
    Work("first_token", 1024, rounds=2, memory=True),
    Work("forward", 1024, rounds=2),
    Work("backward", 128, rounds=2, memory=True),
    Work("grid", 16, rounds=1, warm=False),
]
NEEDED = 20e9  # bytes of memory, so that the 13.8 GB of weights stay in the page cache


def run(options: Options) -> list[Part]:
    """One part."""
    part = Part("20b", "the whole 20b shape, 24 layers, MXFP4, bfloat16", ["ours"])
    if options.quick:
        part.notes.append("not run: its short form would be the long one")
        return [part]
    memory = memory_bytes("MemTotal")
    try:
        if memory is not None and memory < NEEDED:
            raise Failed(f"{memory / 1e9:.0f} GB of memory do not keep 13.8 GB of weights in the page cache")
        path = synth_20b(options.full_20b)
    except Failed as failure:
        part.notes.append(f"not run: {failure}")
        _ask(part)
        return [part]
    options.say(f"reading {in_page_cache(path) / 1e9:.1f} GB into the page cache")
    columns = [Subject("ours", "ours", {"path": str(path), "dtype": "bfloat16"})]
    compare(part, columns, ROWS, replace(options, rounds=options.rounds or 3), loads=3)
    _ask(part)
    return [part]


def _ask(part: Part) -> None:
    for text, work, tokens, most in (
        ("opening", "load", 0, 2.0),
        ("forward of 128 tokens", "forward", 128, 4.0),
        ("a prompt of 1,024 tokens", "first_token", 1024, 20.0),
    ):
        part.demands.append(Demand(text, part.median(work, tokens), most, at_least=False, unit=" s"))
    decode = part.median("decode", 16)
    part.demands.append(Demand("decoding", decode and 1 / decode, 6.0, unit=" tokens/s"))
    ratio = part.median("cache_over_forward", 128)
    part.demands.append(Demand("run_with_cache over the plain forward, 128 tokens", ratio, 1.2, at_least=False))
    private = [cell.private for cell in part.cells.values() if cell.private is not None]
    part.demands.append(
        Demand("private memory at its peak", max(private) / 1e9 if private else None, 4.0, at_least=False, unit=" GB")
    )


if __name__ == "__main__":
    main(run, __doc__)
