"""The workbench."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.bench.common.sites import WHOLE_ANSWER, shared_sites
from tests.bench.common.subjects.base import TorchSubject, frozen
from workbench import load
from workbench.experiments import patching_grid


class Subject(TorchSubject):
    """``workbench.load`` and what its user calls."""

    def __init__(self, path: str, dtype: str) -> None:
        self.model: Any = load(path, dtype=dtype)
        frozen(self.model)
        self.embedding = self.model.embed

    def logits(self, tokens: Tensor) -> Tensor:
        return self.model(tokens)

    def generate(self, tokens: Tensor, count: int) -> Any:
        return self.model.generate(tokens, count, stop_at_eos=False).finish()

    def cache_shared(self, tokens: list[int]) -> Callable[[], Any]:
        """run_with_cache of the sites that TransformerBridge has too."""
        return self._cached(tokens, [ours for ours, _ in shared_sites(self.model.config.n_layers)])

    def cache_everything(self, tokens: list[int]) -> Callable[[], Any]:
        """run_with_cache without a filter: every site, the experts' too."""
        return self._cached(tokens, None)

    def cache_outputs(self, tokens: list[int]) -> Callable[[], Any]:
        """What transformers can return: the stream before each layer, the attention, the router's logits."""
        ends = ("hook_resid_pre", "hook_pattern", "hook_router_logits", "ln_final.hook_normalized")
        return self._cached(tokens, lambda name: name.endswith(ends))

    def cache_stream(self, tokens: list[int]) -> Callable[[], Any]:
        """Every residual, attention and routing site, but not each head's write (64 streams wide)."""
        return self._cached(tokens, lambda name: name.endswith(WHOLE_ANSWER))

    def cache_over_forward(self, tokens: list[int]) -> Callable[[], float]:
        """How many times as long as the plain forward cache_stream takes, one right after the other."""
        plain, cached = self.forward(tokens), self.cache_stream(tokens)

        def run() -> float:
            marks = [time.perf_counter()]
            for work in (plain, cached):
                work()
                marks.append(time.perf_counter())
            return (marks[2] - marks[1]) / (marks[1] - marks[0])

        return run

    def _cached(self, tokens: list[int], names_filter: Any) -> Callable[[], Any]:
        row = torch.tensor([tokens])

        @torch.no_grad()
        def run() -> Any:
            return self.model.run_with_cache(row, names_filter=names_filter)

        return run

    def grid(self, tokens: list[int], corrupted: list[int], answers: tuple[int, int]) -> Callable[[], np.ndarray]:
        """The clean run, then resid_pre patched into the corrupted one, at every layer and position."""
        clean, broken, metric = torch.tensor([tokens]), torch.tensor([corrupted]), (answers[0], answers[1])

        def run() -> np.ndarray:
            done = patching_grid(self.model, clean, broken, metric, sites=("resid_pre",), progress=False)
            return done["metric"].sel(site="resid_pre").values

        return run

    # ------------------------------------------------------------------------------------------------ questions
    def experts_hit(self, tokens: list[int]) -> dict[str, Any]:
        """How many experts each layer reads for these tokens."""
        with torch.no_grad():
            _, cache = self.model.run_with_cache(
                torch.tensor([tokens]), names_filter=lambda name: name.endswith("hook_expert_indices")
            )
        return {"hits": [len(indices.unique()) for indices in cache.values()]}
