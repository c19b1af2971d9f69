"""`workbench info` tells what a checkpoint holds, and what running it will take."""

from __future__ import annotations

import argparse
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from workbench.checkpoints.shards import Shards
    from workbench.checkpoints.tables import Table
    from workbench.model.config import Config

LENGTHS = (128, 1024, 8192)
Form = tuple[Literal["packed", "dense"], str]
FORMS: tuple[Form, ...] = (
    ("packed", "bfloat16"),
    ("packed", "float32"),
    ("dense", "bfloat16"),
    ("dense", "float32"),
)


def add(commands: Any) -> None:
    """The options of `workbench info`."""
    info = commands.add_parser(
        "info", help="what a checkpoint on disk holds (configuration, tensors, parameters), and the memory it needs"
    )
    info.add_argument("path", metavar="PATH", help="a folder with safetensors files and a config.json, or: nano")
    info.add_argument("--length", type=positive, metavar="N", help="tokens in a row (default: 128, 1,024 and 8,192)")
    info.add_argument("--batch", type=positive, metavar="N", default=1, help="rows (default: 1)")
    info.set_defaults(run=run)


def positive(text: str) -> int:
    """A number of tokens or rows from the command line."""
    if text.isdecimal() and int(text) > 0:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number from 1 on")


def run(given: argparse.Namespace) -> int:
    """`workbench info`."""
    return show_info(given.path, given.batch, (given.length,) if given.length else LENGTHS)


def show_info(path: str, batch: int = 1, lengths: Sequence[int] = LENGTHS) -> int:
    """Print what a checkpoint holds, read from its config.json and the headers of its files: no weights are loaded."""
    from workbench.checkpoints.configs import read_config
    from workbench.checkpoints.embedded import EMBEDDED
    from workbench.checkpoints.resolve import resolve
    from workbench.checkpoints.shards import Shards
    from workbench.checkpoints.tables import check_tensors

    if path not in EMBEDDED and not Path(path).expanduser().is_dir():
        raise ValueError(f"{path!r} is not a folder; give the folder of a checkpoint, or one of {', '.join(EMBEDDED)}")
    folder, name = resolve(path)
    config, table = read_config(folder, name)
    shards = Shards(folder)
    check_tensors(table, config, shards, folder / "config.json")
    for key, value in (facts(folder, config, table, shards) | asdict(config)).items():
        print(f"{key:18} {value}")
    packed = any(row.layout == "packed" for row in table.rows)
    print()
    for line in needs(path, config, [form for form in FORMS if packed or form[0] == "dense"], batch, lengths):
        print(line)
    return 0


def facts(folder: Path, config: Config, table: Table, shards: Shards) -> dict[str, str]:
    """What the files hold."""
    from workbench.checkpoints.tables import evaluate, sizes_of

    sizes = sizes_of(config)
    # By stored name: the three parts of a fused tensor are counted once, packed numbers as numbers.
    rows = table.expanded(config.n_layers)
    shapes = {row.theirs: [evaluate(axis, sizes) for axis in row.shape.split()] for row in rows}
    dtypes = Counter(shards.info(tensor).dtype for tensor in shards.names)
    files = len({shards.path(tensor) for tensor in shards.names})
    return {
        "folder": str(folder),
        "form": table.form,
        "parameters": f"{sum(map(math.prod, shapes.values())):,}",
        "tensors": f"{len(shards.names)} in {files} file(s): "
        + ", ".join(f"{count} {dtype}" for dtype, count in sorted(dtypes.items())),
        "bytes": f"{shards.n_bytes:,}",
    }


def needs(path: str, config: Config, forms: Sequence[Form], batch: int, lengths: Sequence[int]) -> Iterator[str]:
    """A table of the memory that this checkpoint needs on the CPU, a column for each way to load it."""
    from workbench.checkpoints import estimate
    from workbench.model.memory import readable

    def row(what: str, values: Sequence[int]) -> str:
        return f"{what:34}" + "".join(f"{readable(value):>18}" for value in values)

    def runs(length: int, sites: str | tuple[()] | None) -> list[int]:
        each = [estimate(config, batch, length, sites, experts=e, dtype=dtype, cache=False) for e, dtype in forms]
        return [estimated.run for estimated in each]

    loaded = [estimate(path, experts=experts, dtype=dtype) for experts, dtype in forms]
    yield f"{'memory, experts and dtype':34}" + "".join(f"{f'{experts} {dtype}':>18}" for experts, dtype in forms)
    yield row("weights: private memory", [each.weights.private for each in loaded])
    yield row("weights: pages of the files", [each.weights.mapped for each in loaded])
    for length in lengths:
        yield f"{f'{batch:,} × {length:,} tokens adds':34}"
        yield row("  model(tokens)", runs(length, ()))
        yield row("  wb.run, standard sites", runs(length, None))
        yield row("  model.run_with_cache, all sites", runs(length, "all"))
        yield row("  KV cache", [estimate(config, batch, length, (), dtype=dtype).kv_cache for _, dtype in forms])
