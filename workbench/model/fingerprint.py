"""A short name for exactly these weights, so that a result says which model it came from."""

from __future__ import annotations

import hashlib
import json
import zlib
from dataclasses import asdict
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

if TYPE_CHECKING:
    from workbench.model.transformer import HookedGptOss

WHOLE_BYTES = 16 * 2**20
RUNS, RUN = 256, 256
AT_ONCE = 2**20  # 32-bit words


def fingerprint(model: HookedGptOss) -> str:
    """16 hex digits of SHA-256 over the config and the weights as they are now, whatever their dtype is called on disk.

    Tensors of up to 16 MB are read whole: a change of any bit of them, made in whatever way, gives another name. Larger
    ones are read at 256 evenly spaced runs of 256 elements, so that 13 GB of mapped file are not read for a name. A
    change of one stretch of theirs is seen wherever it is as long as 1/255 of the tensor (a head of gpt-oss, an
    expert); a shorter one, such as a single row, may lie between two runs: then the name stays what it was. What must
    be right to the last byte is verified, not named.

    Packed experts have another name than the same ones unpacked, for their sums are rounded otherwise.
    """
    weights = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    now = model.config, [(name, tuple(tensor.shape), tensor.dtype, _marks(tensor)) for name, tensor in weights.items()]
    known = model.__dict__.get("_fingerprint")
    if known and known[0] == now:
        return known[1]
    digest = hashlib.sha256(json.dumps(asdict(model.config), sort_keys=True).encode())
    for name, tensor in weights.items():
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(_read(tensor).cpu().numpy().data)
    found = digest.hexdigest()[:16]
    model.__dict__["_fingerprint"] = (now, found)
    return found


def _read(tensor: Tensor) -> UInt8[Tensor, " byte"]:
    """The bytes that the name is made of."""
    flat = tensor.reshape(-1)
    if flat.numel() * flat.element_size() > WHOLE_BYTES:
        step = (flat.numel() - RUN) // (RUNS - 1)
        flat = flat.unfold(0, RUN, step)[:RUNS].reshape(-1)
    return flat.contiguous().view(torch.uint8)


def _marks(tensor: Tensor) -> list[int]:
    """Changes when the bytes read do, for much less than SHA-256, and where they are: nothing is copied from a GPU.

    An edit through ``.data`` moves no counter, and one that only puts elements elsewhere changes no plain sum.
    """
    read = _read(tensor)
    return [zlib.crc32(read.numpy().data)] if read.device.type == "cpu" else products(read)


def products(read: UInt8[Tensor, " byte"]) -> list[int]:
    """Of each stretch the sum of its 32-bit words, each times an odd number of its own, drawn at random, modulo 2⁶⁴.

    One changed word is always seen, and several are missed with a chance of about 2⁻³².
    """
    whole = len(read) // 4 * 4
    # A word must begin at a multiple of four bytes of its storage, and a tensor that was cut out of another may not.
    words = (read[:whole] if read.storage_offset() % 4 == 0 else read[:whole].clone()).view(torch.int32)
    factors = _factors(read.device)
    sums = torch.stack([(part * factors[: len(part)]).sum() for part in words.split(AT_ONCE)])
    return [*sums.tolist(), *read[whole:].tolist()]


@lru_cache(maxsize=8)
def _factors(device: torch.device) -> Int64[Tensor, " word"]:
    drawn = torch.randint(-(2**63), 2**63 - 1, (AT_ONCE,), generator=torch.Generator().manual_seed(0))
    return (drawn | 1).to(device)
