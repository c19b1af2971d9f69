"""Telling that memory ran out, and making room. No torch in here, unless a measure has loaded it."""

from __future__ import annotations

import gc
import sys

NAMES = frozenset({"OutOfMemoryError", "NotEnoughMemory", "KilledWorker"})
# What torch's allocator for CPUs says in a plain RuntimeError.
SAID = ("can't allocate memory", "not enough memory", "out of memory")


def ran_out(error: BaseException) -> bool:
    """Whether an error says that there was too little memory, on any device.

    A Dask worker that is killed again and again with one batch counts: running out of memory is why they mostly are.
    """
    if isinstance(error, MemoryError) or type(error).__name__ in NAMES:
        return True
    return isinstance(error, RuntimeError) and any(said in str(error).lower() for said in SAID)


def make_room() -> None:
    """Free what nothing refers to any more, and what torch keeps for later on a GPU."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
