"""The checkpoint's files: which tensor is where in them, and the bytes, written so that a killed run can go on."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from workbench.checkpoints.synth.numbers import PIECE, Table, bfloat16_table, code_table, piece, scale_table
from workbench.checkpoints.synth.scales import scales
from workbench.checkpoints.tables import Row, sizes_of
from workbench.checkpoints.tables import Table as NameTable
from workbench.model.config import Config

PARTIAL = ".partial"


@dataclass(frozen=True)
class Part:
    """A run of random bytes: one of the model's tensors, or the codes or the scales of one."""

    name: str
    n_bytes: int
    table: Table

    def pieces(self, seed: int) -> Iterator[bytes]:
        """Its bytes, a piece at a time."""
        for number, start in enumerate(range(0, self.n_bytes, PIECE)):
            yield piece(seed, self.name, number, self.table, min(PIECE, self.n_bytes - start)).tobytes()


@dataclass(frozen=True)
class StoredTensor:
    """A tensor as a file has it: its parts follow each other (queries, keys and values in OpenAI's form)."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    parts: tuple[Part, ...]

    @property
    def n_bytes(self) -> int:
        return sum(part.n_bytes for part in self.parts)


@dataclass(frozen=True)
class Shard:
    """One safetensors file, tensor for tensor in the order of the real ones: bfloat16 first, then by name."""

    file: str
    tensors: tuple[StoredTensor, ...]

    def header(self) -> bytes:
        """The file's beginning: the header's length in 8 bytes and the header, padded so that the data starts at a
        multiple of 8."""
        entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
        end = 0
        for tensor in self.tensors:
            start, end = end, end + tensor.n_bytes
            entries[tensor.name] = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [start, end]}
        text = json.dumps(entries, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        return len(text).to_bytes(8, "little") + text

    @property
    def n_bytes(self) -> int:
        """Of the whole file."""
        return len(self.header()) + sum(tensor.n_bytes for tensor in self.tensors)

    def pieces(self, seed: int) -> Iterator[bytes]:
        """The whole file's bytes, in order."""
        yield self.header()
        for tensor in self.tensors:
            for part in tensor.parts:
                yield from part.pieces(seed)


def plan_shards(names: NameTable, config: Config, max_shard_bytes: int) -> list[Shard]:
    """Every tensor of a packed form, dealt out to files in the order of the layers."""
    dealt: list[list[StoredTensor]] = [[]]
    filled = 0
    for tensor in _tensors(names, config):
        filled += tensor.n_bytes
        if dealt[-1] and filled > max_shard_bytes:
            dealt.append([])
            filled = tensor.n_bytes
        dealt[-1].append(tensor)
    last = len(dealt) - 1
    return [
        Shard(
            f"model-{number:05d}-of-{last:05d}.safetensors" if last else "model.safetensors",
            tuple(sorted(tensors, key=lambda tensor: (tensor.dtype != "BF16", tensor.name))),
        )
        for number, tensors in enumerate(dealt)
    ]


def index_json(shards: list[Shard]) -> dict[str, object]:
    """model.safetensors.index.json: which tensor is in which file."""
    weight_map = {tensor.name: shard.file for shard in shards for tensor in shard.tensors}
    total = sum(tensor.n_bytes for shard in shards for tensor in shard.tensors)
    return {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}


def _tensors(names: NameTable, config: Config) -> Iterator[StoredTensor]:
    """Every tensor of the form: the embedding, layer by layer what a block has, and what comes after the last."""
    stored, sizes = names.stored(config.n_layers), sizes_of(config)
    shapes, normals = config.shapes(), scales(config)
    fused: dict[str, list[Row]] = {}
    for row in sorted(names.expanded(config.n_layers), key=lambda row: _depth(row, config)):
        fused.setdefault(row.theirs, []).append(row)
    for theirs, rows in fused.items():
        ours, normal = rows[0].ours, normals[_in_block(rows[0].ours)]
        if rows[0].layout == "packed":
            tables = {"blocks": code_table(), "scales": scale_table(normal.std)}
            for name, (kind, table) in zip(names.packed_pair(rows[0]), tables.items(), strict=True):
                shape = tuple(stored[name].shape(sizes))
                yield StoredTensor(name, "U8", shape, (Part(f"{ours}.{kind}", math.prod(shape), table),))
        else:
            tables = {row.ours: bfloat16_table(normals[_in_block(row.ours)]) for row in rows}
            parts = tuple(Part(name, 2 * math.prod(shapes[name]), table) for name, table in tables.items())
            yield StoredTensor(theirs, "BF16", tuple(stored[theirs].shape(sizes)), parts)


def _depth(row: Row, config: Config) -> int:
    if row.ours.startswith("blocks."):
        return int(row.ours.split(".")[1])
    return -1 if row.ours == "embed.weight" else config.n_layers


def _in_block(name: str) -> str:
    return name.split(".", 2)[2] if name.startswith("blocks.") else name


def write_shard(shard: Shard, folder: Path, seed: int, made: Callable[[int], object]) -> None:
    """Write one file under a temporary name, and give it its own when it is whole and on the disk.

    What an earlier run left under the temporary name is compared with what it should be and kept as far as it is
    right: so a file that a crash or a full disk has damaged is repaired too.

    Args:
        made: is told the number of bytes after every piece.
    """
    temporary = folder / (shard.file + PARTIAL)
    temporary.touch()
    with temporary.open("r+b", buffering=0) as file:
        end, right = 0, True
        for data in shard.pieces(seed):
            right = right and file.read(len(data)) == data
            if not right:
                file.seek(end)
                _write_all(file, data)
            end += len(data)
            made(len(data))
        file.truncate(end)
        os.fsync(file.fileno())
    os.replace(temporary, folder / shard.file)


def _write_all(file: FileIO, data: bytes) -> None:
    """A raw file may take less than it is given, when the disk fills up."""
    done = 0
    while done < len(data):
        done += file.write(data[done:])
