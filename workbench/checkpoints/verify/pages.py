"""Let mapped pages of a file go once they were read, so that a walk through 14 GB stays small."""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections.abc import Iterable
from functools import lru_cache

from torch import Tensor

_PAGEOUT = 21  # MADV_PAGEOUT, Linux 5.4: unlike MADV_DONTNEED it loses nothing, not even a page that was written to


def let_go(tensors: Iterable[Tensor]) -> None:
    """Tell the system that these are not needed soon. Only Linux listens; elsewhere it decides by itself, as always."""
    libc = _libc()
    if libc is None:
        return
    for tensor in tensors:
        # Memory of torch's own can grow; what is mapped cannot, and only that has a file to come back from.
        if tensor.device.type != "cpu" or tensor.untyped_storage().resizable():
            continue
        start = tensor.data_ptr()
        first = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
        last = (start + tensor.numel() * tensor.element_size()) // mmap.PAGESIZE * mmap.PAGESIZE
        if last > first:
            libc.madvise(ctypes.c_void_p(first), ctypes.c_size_t(last - first), _PAGEOUT)


@lru_cache(maxsize=1)
def _libc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if sys.platform == "linux" else None
