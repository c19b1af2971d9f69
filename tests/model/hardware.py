"""The tables of docs/hardware.md, worked out from `wb.estimate`. `python -m tests.model.hardware` writes them anew."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import workbench as wb
from workbench.model.memory import readable

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "hardware.md"
MODELS = {"20b": wb.GPT_OSS_20B, "120b": wb.GPT_OSS_120B}
FORMS = ("packed", "dense")
LAPTOPS, GPUS = (16, 24), (16, 24, 80, 141)
GB = 10**9
SYSTEM, DRIVER = 4 * GB, 1 * GB  # what other programs, and a GPU's driver, keep for themselves
HEAD = STEP = 1024  # tokens that a plan leaves room for, and in which lengths are counted


def tables() -> dict[str, str]:
    """Name → the table's Markdown."""
    return {"bytes": sizes(), "machines": machines(), "maps": maps()}


def written(document: str) -> str:
    """The document with its tables as they should be."""
    for name, table in tables().items():
        pattern = rf"(<!-- {name} -->\n).*?(<!-- end -->)"
        document, n = re.subn(pattern, lambda m, t=table: f"{m[1]}\n{t}\n\n{m[2]}", document, flags=re.DOTALL)
        assert n == 1, f"{n} places for the table {name!r}"
    return document


def sizes() -> str:
    heads = [f"{name} {form}" for name in MODELS for form in FORMS]
    each = [(name, form) for name in MODELS for form in FORMS]
    lines: dict[str, Callable] = {
        "weights on a GPU": lambda n, f: wb.estimate(n, experts=f, device="cuda:0").weights.private,
        "weights on a CPU: memory of its own": lambda n, f: wb.estimate(n, experts=f).weights.private,
        "weights on a CPU: pages of the files": lambda n, f: wb.estimate(n, experts=f).weights.mapped,
        "one layer": layer_bytes,
        "forward, 128 tokens": lambda n, f: run(n, f, 128, ()),
        "forward, 1,024 tokens": lambda n, f: run(n, f, 1024, ()),
        "forward, 8,192 tokens": lambda n, f: run(n, f, 8192, ()),
        "`wb.run`, 128 tokens": lambda n, f: run(n, f, 128, None),
        "`wb.run`, 1,024 tokens": lambda n, f: run(n, f, 1024, None),
        "`run_with_cache` of everything, 128 tokens": lambda n, f: run(n, f, 128, "all"),
        "KV cache of 8,192 tokens": lambda n, f: wb.estimate(n, length=8192, sites=(), experts=f).kv_cache,
    }
    rows = [[what, *(readable(line(*one)) for one in each)] for what, line in lines.items()]
    return markdown(["bfloat16, one row", *heads], rows)


def machines() -> str:
    heads = [f"{name} {form}" for name in MODELS for form in FORMS]
    rows = [
        [f"{memory} GB, no GPU", *(on_cpu(n, f, memory * GB - SYSTEM) for n in MODELS for f in FORMS)]
        for memory in LAPTOPS
    ]
    rows += [
        [f"GPU of {memory} GB", *(on_gpu(n, f, memory * GB - DRIVER) for n in MODELS for f in FORMS)] for memory in GPUS
    ]
    return markdown(["", *heads], rows)


def maps() -> str:
    rows = []
    for memory in GPUS:
        n = layers_that_fit("120b", "packed", memory * GB - DRIVER)
        layers = MODELS["120b"].n_layers
        rest = (layers - n) * layer_bytes("120b", "packed")
        code = (
            "none: `device=0`"
            if not rest
            else f'`{{"": 0}} \\| {{f"blocks.{{i}}": "cpu" for i in range({n}, {layers})}}`'
        )
        rows.append([f"{memory} GB", f"{n} of {layers}", readable(rest) if rest else "–", code])
    return markdown(["GPU", "layers on it", "layers beside it", "`device_map`"], rows)


def run(name: str, form: str, length: int, sites: object) -> int:
    return wb.estimate(name, 1, length, sites, experts=form, cache=False).run


def layer_bytes(name: str, form: str) -> int:
    one, two = (MODELS[name].with_(n_layers=n) for n in (1, 2))
    return wb.estimate(two, experts=form).weights.total - wb.estimate(one, experts=form).weights.total


def longest(fits: Callable[[int], bool], limit: int = 131_072) -> int:
    """The longest text that fits, in steps of 1,024 tokens."""
    low, high = 0, limit // STEP
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(STEP * middle) else (low, middle - 1)
    return STEP * low


def on_cpu(name: str, form: str, free: int) -> str:
    small = wb.estimate(name, length=HEAD, sites=(), experts=form)
    if not small.fits(free):
        return "no"
    over = small.total + small.weights.mapped - free
    if over > 0:
        return f"from disk: {readable(over)} more than fit"
    tokens = longest(lambda n: wb.estimate(name, length=n, sites=(), experts=form).fits(free - small.weights.mapped))
    return f"yes, {tokens:,} tokens"


def on_gpu(name: str, form: str, free: int) -> str:
    tokens = longest(lambda n: wb.estimate(name, length=n, sites=(), experts=form, device="cuda:0").fits(free))
    if tokens >= HEAD:
        return f"yes, {tokens:,} tokens"
    n = layers_that_fit(name, form, free)
    return f"{n} of {MODELS[name].n_layers} layers"


def layers_that_fit(name: str, form: str, free: int) -> int:
    """Layers on a GPU beside the embeddings, a forward, and one layer that is only visiting."""
    weights, layer = wb.estimate(name, experts=form, device="cuda:0").weights.private, layer_bytes(name, form)
    all_layers = MODELS[name].n_layers
    needed = wb.estimate(name, length=HEAD, sites=(), experts=form, device="cuda:0").run
    left = free - needed - (weights - all_layers * layer)
    return all_layers if left >= all_layers * layer else max(0, (left - layer) // layer)


def markdown(heads: list[str], rows: list[list[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


if __name__ == "__main__":
    DOCUMENT.write_text(written(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
