"""One MoE layer of ours on packed experts, with the engine that WORKBENCH_ENGINE names."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from workbench import load
from workbench.model.engines import engine_name
from workbench.model.state import begin_pass

INPUTS = 32  # different ones at few tokens, so that the experts of a call do not lie in the processor's cache


class Subject:
    """The layers of a checkpoint in turn, on random normalised streams."""

    def __init__(self, path: str, dtype: str) -> None:
        self.model = load(path, dtype=dtype)
        self.dtype = getattr(torch, dtype)
        found = engine_name("cpu", self.dtype)
        if found != os.environ["WORKBENCH_ENGINE"]:
            raise RuntimeError(f"the engine {os.environ['WORKBENCH_ENGINE']} is not available, {found} is")

    def about(self) -> dict[str, Any]:
        """The engine."""
        return {"engine": engine_name("cpu", self.dtype)}

    def layer(self, count: int) -> Callable[[], Tensor]:
        """Router, experts and weighted sum of one layer."""
        layers = [block.mlp for block in self.model.blocks]
        calls = itertools.cycle(itertools.product(self._inputs(count), layers))
        this = begin_pass((1, count), torch.device("cpu"), None, None, "keep")

        @torch.no_grad()
        def run() -> Tensor:
            x, mlp = next(calls)
            return mlp(x, this)

        return run

    def answer(self, count: int) -> Callable[[], Any]:
        """The first layer's output as numbers to compare."""
        run = self.layer(count)
        return lambda: run().float().numpy()

    @torch.no_grad()
    def hits(self, count: int) -> dict[str, Any]:
        """Experts that a call reads, on average over the inputs and layers."""
        layers = [block.mlp for block in self.model.blocks]
        found = [
            len(mlp.router(x).topk(self.model.config.experts_per_token).indices.unique())
            for x in self._inputs(count)
            for mlp in layers
        ]
        return {"hits": sum(found) / len(found)}

    def _inputs(self, count: int) -> list[Tensor]:
        make = torch.Generator().manual_seed(count)
        shape = (1, count, self.model.config.d_model)
        return [torch.randn(shape, generator=make).to(self.dtype) for _ in range(max(1, INPUTS // count))]
