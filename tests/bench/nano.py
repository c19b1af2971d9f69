"""nano, the embedded model: ours beside transformers, TransformerBridge and OpenAI's code.

python -m tests.bench.nano [--quick]
"""

from __future__ import annotations

from tests.bench.common.checkpoints import NANO
from tests.bench.common.options import Options, main
from tests.bench.common.results import Part
from tests.bench.common.roofline import Shape
from tests.bench.common.torch_peers import BRIDGE, compare, short_form, subjects, works


def run(options: Options) -> list[Part]:
    """One part, in float32, as nano is stored."""
    columns = subjects(NANO, "float32")
    if options.quick:  # OpenAI's code would have to be fetched
        columns = [column for column in columns if column.name in ("ours", "transformers", BRIDGE)]
    part = Part("nano", "nano (2 million parameters, 4 layers, float32)", [column.name for column in columns])
    rows = works((16,) if options.quick else (1, 16, 128, 1024), Shape.of(NANO, "float32"))
    if options.quick:
        rows = short_form(rows)
    return [compare(part, columns, rows, options, loads=1 if options.quick else 2)]


if __name__ == "__main__":
    main(run, __doc__)
