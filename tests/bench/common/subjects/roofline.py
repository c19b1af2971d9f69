"""What this machine can do at best: bytes read a second from mapped file pages, floating-point operations a second."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

MOST_BYTES = 1 << 30  # of the file, more than any cache holds
# Reductions whose arithmetic hides behind the reads on some processor: the fastest one counts.
READERS: tuple[Callable[[Tensor], Any], ...] = (
    lambda block: block.view(torch.int64).sum(),
    lambda block: block.view(torch.int64).amax(),
    lambda block: block.aminmax(),
)
GEMM = (2880, 5760)  # inputs and outputs: gate and up of one expert of the real shape


class Subject:
    """Maps the largest weight file of a folder, as the weights themselves are mapped."""

    def __init__(self, path: str) -> None:
        file = max(Path(path).glob("*.safetensors"), key=lambda found: found.stat().st_size)
        size = min(file.stat().st_size // 8 * 8, MOST_BYTES)
        self.pages = torch.from_file(str(file), shared=False, size=size, dtype=torch.uint8)
        self._factors: dict[tuple[str, int], tuple[Tensor, Tensor]] = {}

    def about(self) -> dict[str, Any]:
        """How much is read."""
        return {"bytes_read": self.pages.numel()}

    def read(self) -> Callable[[], float]:
        """Seconds a byte, of the fastest reader."""

        def run() -> float:
            return min(_seconds(lambda r=reader: r(self.pages)) for reader in READERS) / self.pages.numel()

        return run

    def gemm(self, dtype: str, rows: int = 1024) -> Callable[[], float]:
        """Seconds a floating-point operation, in products of the experts' size."""
        key = (dtype, rows)
        if key not in self._factors:
            make = torch.Generator().manual_seed(0)
            shapes = ((rows, GEMM[0]), (GEMM[1], GEMM[0]))
            x, w = (torch.randn(shape, generator=make).to(getattr(torch, dtype)) for shape in shapes)
            self._factors[key] = x, w
        x, w = self._factors[key]
        operations = 2 * rows * GEMM[0] * GEMM[1]
        return lambda: min(_seconds(lambda: torch.nn.functional.linear(x, w)) for _ in range(3)) / operations


def _seconds(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
