"""Which experts an implementation chooses for some tokens, and runs in which it must take given ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import MethodType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import GptOssForCausalLM

from workbench.model import HookedGptOss


class Implementation:
    """A model behind one face: tokens [pos] → logits [pos d_vocab] and router logits [layer pos expert].

    Ours and transformers' also take tokens [batch pos], and then everything has that axis before pos.
    """

    def __init__(self, model: HookedGptOss | GptOssForCausalLM | nn.Module) -> None:
        self.model = model
        if isinstance(model, HookedGptOss):
            self.routers = [block.mlp.hook_router_logits for block in model.blocks]
        elif isinstance(model, GptOssForCausalLM):
            self.routers = [layer.mlp.router for layer in model.model.layers]
        else:
            self.routers = [block.mlp.gate for block in model.block]

    @torch.no_grad()
    def run(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and router logits, both as float32."""
        seen: list[Tensor] = []
        with ExitStack() as hooks:
            for router in self.routers:
                handle = router.register_forward_hook(lambda module, given, made: seen.append(_first(made)))
                hooks.callback(handle.remove)
            logits = _first(self.model(tokens if self._takes_rows else torch.atleast_2d(tokens)))
        logits = logits.reshape(*tokens.shape, -1).float()
        return logits, torch.stack([made.reshape(*tokens.shape, -1).float() for made in seen])

    @torch.no_grad()
    def run_with(self, routes: Tensor, tokens: Tensor) -> Tensor:
        """Logits when each layer takes the experts in routes [layer pos slot], weighed by its own router."""
        with self.taking(routes):
            return self.run(tokens)[0]

    @contextmanager
    def taking(self, routes: Tensor) -> Iterator[None]:
        """Each layer takes the experts in routes [layer pos slot]: its top-k sees −inf at all the others."""
        if isinstance(self.model, GptOssForCausalLM):
            with _transformers_forced(self.routers, routes):
                yield
            return
        with ExitStack() as hooks:
            for router, chosen in zip(self.routers, routes, strict=True):
                handle = router.register_forward_hook(lambda module, given, made, chosen=chosen: only(made, chosen))
                hooks.callback(handle.remove)
            yield

    @property
    def _takes_rows(self) -> bool:
        return not isinstance(self.model, HookedGptOss | GptOssForCausalLM)


@contextmanager
def _transformers_forced(routers: list[nn.Module], routes: Tensor) -> Iterator[None]:
    """transformers' router picks inside its forward, so that function is said again here with the mask in it."""

    def forward(self: nn.Module, x: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        logits = F.linear(x, self.weight, self.bias)
        values, indices = only(logits, chosen).topk(self.top_k, dim=-1)
        return logits, F.softmax(values, dim=1, dtype=values.dtype), indices

    try:
        for router, chosen in zip(routers, routes, strict=True):
            router.forward = MethodType(lambda self, x, chosen=chosen: forward(self, x, chosen), router)
        yield
    finally:
        for router in routers:
            router.__dict__.pop("forward", None)


def only(logits: Tensor, chosen: Tensor) -> Tensor:
    """Router logits with every expert but the chosen ones at −inf."""
    where = chosen.reshape(*logits.shape[:-1], chosen.shape[-1])
    allowed = torch.zeros_like(logits, dtype=torch.bool).scatter(-1, where, True)
    return logits.masked_fill(~allowed, float("-inf"))


def sets(router_logits: Tensor, k: int) -> Tensor:
    """The k experts with the largest logits, by number: [… slot]."""
    return router_logits.topk(k, dim=-1).indices.sort(-1).values


def flips(first: Tensor, second: Tensor, k: int) -> Tensor:
    """[layer pos] where two runs' router logits choose different sets of experts."""
    return (sets(first, k) != sets(second, k)).any(-1)


def margins(router_logits: Tensor, k: int) -> Tensor:
    """[layer pos] by how much the last expert chosen beats the first one left out; infinite if none is left out."""
    if k == router_logits.shape[-1]:
        return torch.full(router_logits.shape[:-1], float("inf"))
    best = router_logits.topk(k + 1, dim=-1).values
    return best[..., k - 1] - best[..., k]


def _first(made: Any) -> Tensor:
    """The logits in what a model or a router of either kind returns."""
    return made if isinstance(made, Tensor) else made[0]
