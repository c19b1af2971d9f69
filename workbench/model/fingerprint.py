"""A short name for exactly these weights, so that a result says which model it came from."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from workbench.model.transformer import HookedGptOss

WHOLE_BYTES = 16 * 2**20
RUNS, RUN = 256, 256


def fingerprint(model: HookedGptOss) -> str:
    """16 hex digits of SHA-256 over the config and the weights, whatever their dtype is called on disk.

    Tensors of up to 16 MB are read whole; larger ones at 256 evenly spaced runs of 256 elements, so that 13 GB of
    mapped file are not read for a name: two checkpoints that differ only between those get the same one. Packed
    experts have another name than the same ones unpacked, for their sums are rounded otherwise.
    """
    versions = tuple(_version(tensor) for tensor in (*model.parameters(), *model.buffers()))
    known = model.__dict__.get("_fingerprint")
    if known and known[0] == versions:
        return known[1]
    digest = hashlib.sha256(json.dumps(asdict(model.config), sort_keys=True).encode())
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(_bytes(tensor))
    found = digest.hexdigest()[:16]
    model.__dict__["_fingerprint"] = (versions, found)
    return found


def _version(tensor: Tensor) -> tuple[int, int, float]:
    """Changes when the tensor does. An edit through ``.data`` moves no counter, so small tensors are summed as well."""
    small = tensor.numel() * tensor.element_size() <= WHOLE_BYTES
    return tensor.data_ptr(), tensor._version, float(tensor.detach().sum(dtype=torch.float64)) if small else 0.0


def _bytes(tensor: Tensor) -> bytes:
    flat = tensor.detach().reshape(-1)
    if flat.numel() * flat.element_size() > WHOLE_BYTES:
        step = (flat.numel() - RUN) // (RUNS - 1)
        flat = torch.cat([flat[start : start + RUN] for start in range(0, RUNS * step, step)])
    return flat.contiguous().cpu().view(torch.uint8).numpy().tobytes()
