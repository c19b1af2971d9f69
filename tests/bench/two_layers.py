"""Two layers of the real gpt-oss-20b shape, vocabulary whole, experts in MXFP4, bfloat16.

transformers unpacks the experts when it loads, and TransformerBridge stands on that. OpenAI's code unpacks them too,
and gathers the weights of every token's experts: it runs up to 16 tokens, and what it would need beyond is printed.

python -m tests.bench.two_layers
"""

from __future__ import annotations

from dataclasses import replace

from tests.bench.common.checkpoints import in_page_cache, openai_form, synth_20b
from tests.bench.common.options import Options, main
from tests.bench.common.process import Failed
from tests.bench.common.results import Part
from tests.bench.common.roofline import Shape
from tests.bench.common.torch_peers import BRIDGE, EAGER, OPENAI, compare, subjects, works

TUNED = (("forward", 16), ("forward", 128), ("cache_shared", 128))


def run(options: Options) -> list[Part]:
    """transformers and TransformerBridge first, then OpenAI's code: all at once would not fit in 24 GB."""
    title = "2 layers of the real 20b shape, MXFP4, bfloat16"
    part = Part("20b, 2 layers", title, ["ours", "transformers", EAGER, BRIDGE, OPENAI])
    if options.quick:
        part.notes.append("not run: its short form would be the long one")
        return [part]
    try:
        path = synth_20b(options.folder / "synth20b-2layers", layers=2)
        theirs = openai_form(path)
    except Failed as failure:
        part.notes.append(f"not run: {failure}")
        return [part]
    in_page_cache(path)
    options = replace(options, rounds=options.rounds or 3)
    columns, rows = subjects(path, "bfloat16", theirs), works((1, 16, 128, 1024), Shape.of(path, "bfloat16"))
    torch_columns = [column for column in columns if column.name != OPENAI]
    compare(part, torch_columns, rows, options, loads=1)
    alone = Part("20b, 2 layers, OpenAI", f"{title}: OpenAI's code", ["ours", OPENAI])
    pair = [column for column in columns if column.name in alone.subjects]
    in_page_cache(theirs)
    compare(alone, pair, [row for row in rows if row.only is None], options, loads=1)
    if options.malloc != "default":
        return [part, alone]
    again = Part("20b, 2 layers, tuned", f"{title}, malloc tuned", ["ours", "transformers", EAGER, BRIDGE])
    few = [replace(row, answer=None, memory=False) for row in rows if (row.name, row.tokens) in TUNED]
    compare(again, torch_columns, few, replace(options, malloc="tuned", rounds=2), loads=1)
    return [part, alone, again]


if __name__ == "__main__":
    main(run, __doc__)
