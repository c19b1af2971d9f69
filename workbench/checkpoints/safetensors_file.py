"""One safetensors file: its header checked in full, its tensors read in parts or mapped in place.

The format (github.com/huggingface/safetensors): 8 bytes of header length, a JSON header {name: {dtype, shape,
data_offsets}}, then the data, without holes. Read here rather than by the safetensors package so that each fault is
named (file, tensor, expected, found), and so that a tensor that must be cast or moved is read in parts straight into
place: mapped pages would count against memory a second time. What is used as it lies is mapped instead: opening 13 GB
then takes no time, and the pages are the system's to drop and to share between processes.
"""

from __future__ import annotations

import json
import math
import mmap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from workbench.checkpoints.errors import CheckpointError, Problem

TORCH_DTYPES = {
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "F32": torch.float32,
    "F64": torch.float64,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
    "BOOL": torch.bool,
}
_HEADER_LIMIT = 100_000_000  # the safetensors package's own
_LFS_POINTER = b"version https://git-lfs"


@dataclass(frozen=True)
class TensorInfo:
    """What the header says of a tensor. ``start`` and ``stop`` are bytes from the beginning of the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


class SafetensorsFile:
    """The tensors of one file, by name.

    Raises:
        CheckpointError: if the header does not hold together or the file is not as long as it says.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.tensors = _read_header(path)
        self._mapped: mmap.mmap | None = None

    def read(self, name: str, start: int | None = None, stop: int | None = None) -> Tensor:
        """A tensor, or its rows ``start`` to ``stop`` (along the first axis) without touching the others.

        Raises:
            CheckpointError: if the file ends before the tensor does.
        """
        info = self.tensors[name]
        shape, first, n_bytes = _rows_of(info, start, stop)
        out = torch.empty(shape, dtype=TORCH_DTYPES[info.dtype], device="cpu")
        if n_bytes:
            self._read_into(out, name, first, n_bytes)
        return out

    def map(self, name: str, start: int | None = None, stop: int | None = None) -> Tensor | None:
        """A tensor, or some of its rows, as pages of the file; None where its bytes do not lie as torch needs them.

        Private to this process: writing into it copies the page and never reaches the file. The file must stay as it
        is meanwhile (replacing it by renaming another one over it is safe).
        """
        info = self.tensors[name]
        dtype, (shape, first, n_bytes) = TORCH_DTYPES[info.dtype], _rows_of(info, start, stop)
        if first % dtype.itemsize or not n_bytes:
            return None
        if self._mapped is None:
            with self.path.open("rb") as file:
                # Copy-on-write and not read-only: an edit of a weight in place would end the process otherwise.
                self._mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        return torch.frombuffer(self._mapped, dtype=dtype, count=n_bytes // dtype.itemsize, offset=first).view(shape)

    def _read_into(self, out: Tensor, name: str, first: int, n_bytes: int) -> None:
        buffer = memoryview(out.reshape(-1).view(torch.uint8).numpy())  # pyright: ignore[reportArgumentType]
        with self.path.open("rb", buffering=0) as file:
            file.seek(first)
            done = 0
            while done < n_bytes:  # one read gives at most 2 GB on Linux
                got = file.readinto(buffer[done:])
                if not got:
                    raise CheckpointError(
                        Problem(self.path, f"tensor {name!r}", f"{n_bytes} bytes from byte {first}", f"only {done}")
                    )
                done += got


def _rows_of(info: TensorInfo, start: int | None, stop: int | None) -> tuple[tuple[int, ...], int, int]:
    """Shape, first byte and number of bytes of rows ``start`` to ``stop`` along the first axis."""
    shape, n_bytes = info.shape, info.stop - info.start
    if not shape or (start, stop) == (None, None):
        return shape, info.start, n_bytes
    begin, end, _ = slice(start, stop).indices(shape[0])
    row = n_bytes // max(shape[0], 1)
    return (end - begin, *shape[1:]), info.start + begin * row, (end - begin) * row


def _read_header(path: Path) -> dict[str, TensorInfo]:
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        length = int.from_bytes(prefix, "little")
        if len(prefix) < 8 or length > min(size - 8, _HEADER_LIMIT):
            raise CheckpointError(_no_header(path, prefix + file.read(32), size, length))
        raw = file.read(length)
    entries = _parse(path, raw)
    about = entries.pop("__metadata__", {})
    if not isinstance(about, dict) or not all(isinstance(words, str) for words in about.values()):
        raise CheckpointError(
            Problem(path, "__metadata__", "texts by name", f"{type(about).__name__} of something else")
        )
    tensors = {name: _tensor_info(path, name, entry, 8 + length) for name, entry in entries.items()}
    _check_layout(path, tensors, 8 + length, size)
    return tensors


def _no_header(path: Path, beginning: bytes, size: int, length: int) -> Problem:
    if beginning.startswith(_LFS_POINTER):
        return Problem(path, "", "a safetensors file", "a Git LFS pointer to one", "Run `git lfs pull` in its folder")
    found = f"{size} bytes in all" if size < 8 else f"{length} bytes of header announced in a file of {size}"
    hint = "The file is cut off, or is no safetensors file"
    return Problem(path, "header", f"8 bytes of header length, then a header of at most {_HEADER_LIMIT}", found, hint)


def _parse(path: Path, raw: bytes) -> dict[str, Any]:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for name, value in pairs:
            if name in made:
                raise CheckpointError(Problem(path, f"tensor {name!r}", "one entry in the header", "two"))
            made[name] = value
        return made

    try:
        entries = json.loads(raw.decode("utf-8"), object_pairs_hook=once)
    except CheckpointError:
        raise
    except (ValueError, RecursionError) as error:
        raise CheckpointError(Problem(path, "header", "JSON", f"{raw[:40]!r} ({error})")) from error
    if not isinstance(entries, dict):
        raise CheckpointError(Problem(path, "header", "a JSON object {name: tensor}", f"{raw[:40]!r}"))
    return entries


def _tensor_info(path: Path, name: str, entry: Any, data_start: int) -> TensorInfo:
    try:
        dtype, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        whole = all(type(n) is int and 0 <= n < 2**63 for n in (*shape, begin, end))
        known = set(entry) == {"dtype", "shape", "data_offsets"} and isinstance(entry["shape"], list)
        # A tensor of nothing may still say that it is 2**80 wide, which torch would refuse in its own words.
        if not (
            known and whole and isinstance(dtype, str) and begin <= end and math.prod(n or 1 for n in shape) < 2**60
        ):
            raise ValueError
    except (TypeError, ValueError, KeyError):
        expected = "a header entry with dtype, shape and data_offsets [begin, end]"
        raise CheckpointError(Problem(path, f"tensor {name!r}", expected, f"{entry!r:.120}")) from None
    if dtype in TORCH_DTYPES:
        n_bytes = math.prod(shape) * TORCH_DTYPES[dtype].itemsize
        if end - begin != n_bytes:
            expected = f"{n_bytes} bytes for {dtype} {list(shape)}"
            raise CheckpointError(Problem(path, f"tensor {name!r}", expected, f"{end - begin} bytes in data_offsets"))
    return TensorInfo(dtype, shape, data_start + begin, data_start + end)


def _check_layout(path: Path, tensors: dict[str, TensorInfo], data_start: int, size: int) -> None:
    """The tensors must follow each other without hole or overlap, and end where the file ends."""
    position = data_start
    for name, info in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].stop)):
        if info.start != position:
            what = f"data from byte {position} on, where the one before ends"
            raise CheckpointError(Problem(path, f"tensor {name!r}", what, f"from byte {info.start} on"))
        position = info.stop
        if position > size:
            hint = "The file is cut off: download or copy it again"
            raise CheckpointError(
                Problem(path, f"tensor {name!r}", f"a file of at least {position} bytes", f"{size} bytes", hint)
            )
    if position != size:
        raise CheckpointError(Problem(path, "", f"{position} bytes by its header", f"{size} bytes"))
