"""llama.cpp, the fastest engine that nobody can hook, beside ours on 4 layers of the real 20b shape.

The same weights: experts in MXFP4 bit for bit, all else in bfloat16. llama.cpp rounds what it multiplies with experts
to 8 bits, and rounds YaRN's corners, which gpt-oss does not; so its logits are near ours, not equal.

python -m tests.bench.llama
"""

from __future__ import annotations

from dataclasses import replace

from tests.bench.common import llama_build
from tests.bench.common.checkpoints import in_page_cache, synth_20b
from tests.bench.common.options import Options, main
from tests.bench.common.process import Failed
from tests.bench.common.results import Demand, Part
from tests.bench.common.rounds import Subject, Work
from tests.bench.common.torch_peers import compare

LLAMA = "llama.cpp"
LEAST_CORRELATION = 0.99  # of all logits; below, the two do not compute the same model and no figure counts
ROWS = [
    Work("forward", 16, answer="answer_forward"),
    Work("forward", 128, memory=True, answer="answer_forward"),
    Work("first_token", 16),
    Work("first_token", 128, memory=True),
    Work("first_token", 1024),
    Work("decode", 16),
]
TUNED = (("first_token", 128), ("decode", 16))


def run(options: Options) -> list[Part]:
    """With malloc as a user finds it, and tuned."""
    part = Part("llama.cpp", "4 layers of the real 20b shape, MXFP4, bfloat16", ["ours", LLAMA])
    if options.quick:
        part.notes.append("not run: its short form would be the long one")
        return [part]
    try:
        interpreter = llama_build.python()
        path = synth_20b(options.folder / "synth20b-4layers", layers=4)
        file = llama_build.gguf(interpreter, path)
    except Failed as failure:
        part.notes.append(f"not run: {failure}")
        _ask(part)
        return [part]
    for weights in (path, file):
        in_page_cache(weights)
    columns = [
        Subject("ours", "ours", {"path": str(path), "dtype": "bfloat16"}),
        Subject(LLAMA, "llama", {"path": str(file)}, python=str(interpreter)),
    ]
    compare(part, columns, ROWS, options, loads=2)
    _check(part)
    _ask(part)
    if options.malloc != "default":
        return [part]
    tuned = Part("llama.cpp, tuned", f"{part.title}, malloc tuned", part.subjects)
    few = [replace(row, answer=None, memory=False) for row in ROWS if (row.name, row.tokens) in TUNED]
    compare(tuned, columns, few, replace(options, malloc="tuned", rounds=options.rounds or 2), loads=1)
    _ask(tuned)
    return [part, tuned]


def _check(part: Part) -> None:
    for name, found in part.agreement.items():
        if found.get("correlation", 0.0) < LEAST_CORRELATION:
            part.notes.append(f"{name}: its logits are not ours ({found}), so its figures do not count")
            part.cells = {key: cell for key, cell in part.cells.items() if key[2] != LLAMA}
        else:
            part.notes.append(
                f"{name}: correlation of all logits with ours {found['correlation']:.4f}, the same likeliest token at "
                f"{found['same_argmax']:.0%} of the positions"
            )


def _ask(part: Part) -> None:
    prefill, decode = part.ratio("first_token", 128, LLAMA), part.ratio("decode", 16, LLAMA)
    part.demands.append(Demand("prefill of 128 tokens, our speed over llama.cpp's", prefill, 2.0))
    part.demands.append(Demand("decoding, our speed over llama.cpp's", decode, 0.7))


if __name__ == "__main__":
    main(run, __doc__)
