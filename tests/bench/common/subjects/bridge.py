"""TransformerLens' TransformerBridge around transformers' model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformer_lens import patching
from transformer_lens.model_bridge import TransformerBridge

from tests.bench.common.sites import shared_sites
from tests.bench.common.subjects.base import TorchSubject, difference, frozen
from tests.bench.common.subjects.transformers_model import load


class Subject(TorchSubject):
    """``TransformerBridge.boot_transformers``, as its documentation shows it."""

    def __init__(self, path: str, dtype: str) -> None:
        model = load(path, dtype)
        self.model: Any = TransformerBridge.boot_transformers(path, dtype=getattr(torch, dtype), hf_model=model)
        frozen(self.model)
        self.embedding = self.model.embed

    def logits(self, tokens: Tensor) -> Tensor:
        return self.model(tokens, prepend_bos=False)

    def generate(self, tokens: Tensor, count: int) -> Any:
        exact = {"stop_at_eos": False, "do_sample": False, "verbose": False}
        return self.model.generate(tokens, max_new_tokens=count, **exact)

    def cache_shared(self, tokens: list[int]) -> Callable[[], Any]:
        """run_with_cache of the sites that we have too."""
        return self._cached(tokens, [theirs for _, theirs in shared_sites(self.model.cfg.n_layers)])

    def cache_everything(self, tokens: list[int]) -> Callable[[], Any]:
        """run_with_cache without a filter."""
        return self._cached(tokens, None)

    def _cached(self, tokens: list[int], names_filter: Any) -> Callable[[], Any]:
        row = torch.tensor([tokens])

        @torch.no_grad()
        def run() -> Any:
            return self.model.run_with_cache(row, names_filter=names_filter)

        return run

    def grid(self, tokens: list[int], corrupted: list[int], answers: tuple[int, int]) -> Callable[[], Tensor]:
        """The clean run, then TransformerLens' own patching function."""
        clean, broken = torch.tensor([tokens]), torch.tensor([corrupted])

        @torch.no_grad()
        def run() -> Tensor:
            _, cache = self.model.run_with_cache(clean, names_filter=lambda name: name.endswith("hook_resid_pre"))
            return patching.get_act_patch_resid_pre(self.model, broken, cache, difference(answers))

        return run
