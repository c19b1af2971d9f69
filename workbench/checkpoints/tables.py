"""How a name table is written, and the comparison of a checkpoint with it: names, shapes, dtypes, config keys."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from workbench.checkpoints.errors import CheckpointError, Problem
from workbench.checkpoints.shards import Shards
from workbench.model.config import Config
from workbench.model.mxfp4 import BLOCK, BYTES_PER_BLOCK

Layout = Literal["plain", "transposed", "packed"]
DENSE_DTYPES = ("BF16", "F16", "F32")
PACKED_DTYPES = ("U8",)


@dataclass(frozen=True)
class Row:
    """One of our tensors, and where a form of checkpoint keeps it.

    Args:
        ours: its name in the model's state dict, with ``{layer}``.
        theirs: the stored tensor's name; of a packed one, the name without ``blocks`` and ``scales``.
        shape: the stored tensor's axes in fields of :class:`Config`, "n_heads*d_head d_model"; if packed, those of the
            numbers.
        layout: "plain" as it is; "transposed" with the last two axes the other way round than ours; "packed" MXFP4.
        part: which rows of a fused tensor are ours, as (first, end) in the same notation; None for all.
    """

    ours: str
    theirs: str
    shape: str
    layout: Layout = "plain"
    part: tuple[str, str] | None = None


@dataclass(frozen=True)
class Stored:
    """A tensor that a file must have: name, axes (a size expression, and what divides it), and dtypes allowed."""

    name: str
    axes: tuple[tuple[str, int], ...]
    dtypes: tuple[str, ...]

    def shape(self, sizes: dict[str, int]) -> list[int]:
        return [evaluate(axis, sizes) // divisor for axis, divisor in self.axes]


@dataclass(frozen=True)
class Table:
    """One form of checkpoint: its rows, how it spells packed tensors, and the config keys of the sizes.

    Args:
        form: its name in messages.
        rows: outer tensors, and those of a layer with ``{layer}`` in both names.
        packed_names: the two names of a packed tensor, from ``{name}``: (blocks, scales).
        keys: field of :class:`Config` → key of config.json.
    """

    form: str
    rows: tuple[Row, ...]
    packed_names: tuple[str, str]
    keys: dict[str, str]

    def expanded(self, n_layers: int) -> Iterator[Row]:
        """The rows of a model of so many layers."""
        for row in self.rows:
            if "{layer}" not in row.ours:
                yield row
                continue
            for layer in range(n_layers):
                yield replace(row, ours=row.ours.format(layer=layer), theirs=row.theirs.format(layer=layer))

    def packed_pair(self, row: Row) -> tuple[str, str]:
        """The names of a packed row's blocks and scales."""
        blocks, scales = self.packed_names
        return blocks.format(name=row.theirs), scales.format(name=row.theirs)

    def stored(self, n_layers: int) -> dict[str, Stored]:
        """Every tensor that the files must have, by name."""
        found: dict[str, Stored] = {}
        for row in self.expanded(n_layers):
            axes = tuple((axis, 1) for axis in row.shape.split())
            if row.layout == "packed":
                blocks, scales = self.packed_pair(row)
                groups = (*axes[:-1], (axes[-1][0], BLOCK))
                found[blocks] = Stored(blocks, (*groups, (str(BYTES_PER_BLOCK), 1)), PACKED_DTYPES)
                found[scales] = Stored(scales, groups, PACKED_DTYPES)
            else:
                found[row.theirs] = Stored(row.theirs, axes, DENSE_DTYPES)
        return found

    def layers_in(self, names: set[str]) -> set[int]:
        """The layer numbers that tensor names speak of."""
        prefix = next(row.theirs for row in self.rows if "{layer}" in row.theirs).split("{layer}")[0]
        pattern = re.compile(re.escape(prefix) + r"(\d+)\.")
        return {int(match[1]) for name in names if (match := pattern.match(name))}


def sizes_of(config: Config) -> dict[str, int]:
    """The values that size expressions are made of."""
    fields = ("d_vocab", "d_model", "n_heads", "d_head", "n_key_value_heads", "n_experts", "d_mlp")
    return {field: getattr(config, field) for field in fields}


def evaluate(expression: str, sizes: dict[str, int]) -> int:
    """A sum of products of names and whole numbers: "n_heads*d_head+2*n_key_value_heads*d_head"."""
    return sum(
        math.prod(sizes[factor] if factor in sizes else int(factor) for factor in product.split("*"))
        for product in expression.split("+")
    )


def check_tensors(table: Table, config: Config, shards: Shards, config_file: Path) -> None:
    """Compare names, shapes and dtypes of all tensors with what the config asks for, from the headers alone.

    Raises:
        CheckpointError: naming what is missing, unread, misshapen or mistyped, and each config key that contradicts the
            tensors (then without the many shapes that follow from it).
    """
    problems = _layer_count(table, config, shards, config_file)
    n_layers = config.n_layers if not problems else len(table.layers_in(shards.names))
    stored = table.stored(n_layers)
    present = {name: tensor for name, tensor in stored.items() if name in shards.names}
    sizes, size_problems = _sizes_of_tensors(table, config, present, shards, config_file)
    problems += size_problems
    problems += _shapes_and_dtypes(present, sizes, shards)
    for name in stored.keys() - present.keys():
        problems.append(_missing(name, stored[name], sizes, shards))
    for name in sorted(shards.names - stored.keys()):
        found = f"{shards.info(name).dtype} {list(shards.info(name).shape)}, which nothing would read"
        problems.append(Problem(shards.path(name), f"tensor {name!r}", f"only tensors of the {table.form} form", found))
    if problems:
        headline = "" if len(problems) == 1 else f"{shards.directory}: {len(problems)} problems, so nothing was loaded"
        raise CheckpointError(problems, headline)


def _missing(name: str, stored: Stored, sizes: dict[str, int], shards: Shards) -> Problem:
    where = shards.index or shards.directory
    return Problem(where, f"tensor {name!r}", f"{'/'.join(stored.dtypes)} {stored.shape(sizes)}", "no such tensor")


def _layer_count(table: Table, config: Config, shards: Shards, config_file: Path) -> list[Problem]:
    layers = table.layers_in(shards.names)
    # Layers 0 to n−1 for another n than the config's: the config is wrong. Anything else is missing or extra tensors.
    if not layers or layers != set(range(len(layers))) or len(layers) == config.n_layers:
        return []
    expected = f"{len(layers)}, for the tensors are of layers 0 to {max(layers)}"
    return [Problem(config_file, table.keys["n_layers"], expected, str(config.n_layers))]


def _sizes_of_tensors(
    table: Table, config: Config, present: dict[str, Stored], shards: Shards, config_file: Path
) -> tuple[dict[str, int], list[Problem]]:
    """The sizes that most tensors agree on, and a problem for each that the config says otherwise."""
    sizes = sizes_of(config)
    observed = [
        (axis, found * divisor)
        for name, tensor in present.items()
        if len(shards.info(name).shape) == len(tensor.axes)
        for (axis, divisor), found in zip(tensor.axes, shards.info(name).shape, strict=True)
    ]
    inferred = _infer(observed, sizes)
    problems = [
        Problem(config_file, table.keys[field], f"{value}, the size that the tensors have", str(sizes[field]))
        for field, value in inferred.items()
        if value != sizes[field]
    ]
    return sizes | inferred, problems


def _infer(observed: list[tuple[str, int]], stated: dict[str, int]) -> dict[str, int]:
    """Solve the axes for the sizes: those that stand alone first, then what remains in products (d_head, …).

    Where tensors disagree the majority counts, the stated size first among equals.
    """
    votes = Counter(observed)
    known: dict[str, int] = {}
    while True:
        ballots: dict[str, Counter[int]] = {}
        for (axis, found), count in votes.items():
            unknown = set(re.findall(r"[a-z_]+", axis)) - known.keys()
            if len(unknown) != 1:
                continue
            field = unknown.pop()
            offset = evaluate(axis, known | {field: 0})
            slope = evaluate(axis, known | {field: 1}) - offset
            if (found - offset) % slope == 0 and found > offset:
                ballots.setdefault(field, Counter())[(found - offset) // slope] += count
        if not ballots:
            return known
        for field, ballot in ballots.items():
            known[field] = max(ballot, key=lambda value, f=field, b=ballot: (b[value], value == stated[f]))


def _shapes_and_dtypes(present: dict[str, Stored], sizes: dict[str, int], shards: Shards) -> list[Problem]:
    problems = []
    for name, tensor in present.items():
        info, shape = shards.info(name), tensor.shape(sizes)
        if list(info.shape) != shape:
            problems.append(Problem(shards.path(name), f"tensor {name!r}", f"shape {shape}", f"{list(info.shape)}"))
        if info.dtype not in tensor.dtypes:
            expected = f"dtype {' or '.join(tensor.dtypes)}"
            problems.append(Problem(shards.path(name), f"tensor {name!r}", expected, info.dtype))
    return problems
