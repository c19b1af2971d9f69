"""The eager engine: torch operations on any device. Each expert that has rows is unpacked into one scratch buffer."""

from __future__ import annotations

import threading

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from workbench.model.mxfp4 import BLOCK, DTYPES, unpack

__all__ = ["grouped_linear", "matrix", "release_scratch", "unpack"]


class _Held(threading.local):
    """Each thread's own scratch buffers."""

    def __init__(self) -> None:
        self.buffers: dict[tuple[torch.dtype, torch.device], Tensor] = {}


_held = _Held()


def grouped_linear(
    rows: Float[Tensor, "row d_in"],
    counts: list[int],
    blocks: UInt8[Tensor, "expert d_out group 16"],
    scales: UInt8[Tensor, "expert d_out group"],
    bias: Float[Tensor, "expert d_out"] | None = None,
) -> Float[Tensor, "row d_out"]:
    """Each run of ``counts[e]`` rows times expert e's matrix, and its bias. Experts without rows are not read."""
    out = rows.new_empty(len(rows), scales.shape[1])
    first = 0
    for expert, count in enumerate(counts):
        if count:
            part = slice(first, first + count)
            torch.mm(rows[part], matrix(blocks[expert], scales[expert], rows.dtype, unpack).T, out=out[part])
            # The bias joins the rounded product, as in both references and in the dense experts.
            if bias is not None:
                out[part] += bias[expert]
            first += count
    return out


def matrix(
    blocks: UInt8[Tensor, "d_out group 16"], scales: UInt8[Tensor, "d_out group"], dtype: torch.dtype, unpack=unpack
) -> Float[Tensor, "d_out d_in"]:
    """One expert's matrix, in this thread's scratch buffer: good until the next call.

    A buffer for each call would be 33 MB of fresh pages each time, which costs more than the unpacking.
    """
    # MXFP4 has tables for three types; a wider one holds every float32 value.
    stored = dtype if dtype in DTYPES else torch.float32
    shape = (*scales.shape[:-1], scales.shape[-1] * BLOCK)
    out = _scratch(scales.numel() * BLOCK, stored, blocks.device).view(shape)
    return unpack(blocks, scales, stored, out).to(dtype)


def _scratch(numel: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    key = (dtype, device)
    buffers = _held.buffers
    if key not in buffers or buffers[key].numel() < numel:
        with torch.inference_mode(False):
            buffers[key] = torch.empty(numel, dtype=dtype, device=device)
    return buffers[key][:numel]


def release_scratch() -> None:
    """Give back this thread's scratch buffers (33 MB an engine and dtype at the real size)."""
    _held.buffers.clear()
