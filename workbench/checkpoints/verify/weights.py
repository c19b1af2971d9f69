"""Our weights beside transformers', number by number: they must be the same bits, packed or not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

# transformers' parameter of a layer → ours.
LAYER = {
    "input_layernorm.weight": "ln1.w",
    **{f"self_attn.{x}_proj.{kind}": f"attn.{x}.{kind}" for x in "qkvo" for kind in ("weight", "bias")},
    "self_attn.sinks": "attn.sinks",
    "post_attention_layernorm.weight": "ln2.w",
    "mlp.router.weight": "mlp.router.weight",
    "mlp.router.bias": "mlp.router.bias",
    "mlp.experts.gate_up_proj": "mlp.experts.W_gate_up",
    "mlp.experts.gate_up_proj_bias": "mlp.experts.b_gate_up",
    "mlp.experts.down_proj": "mlp.experts.W_down",
    "mlp.experts.down_proj_bias": "mlp.experts.b_down",
}
_BY_EXPERT = ("mlp.experts.W_gate_up", "mlp.experts.W_down")  # [expert, out, in] here, [expert, in, out] there


def differing(ours: nn.Module, theirs: nn.Module, names: Mapping[str, str]) -> dict[str, str]:
    """Our name → how it differs, for each weight that does. Packed experts are unpacked one at a time, by us."""
    found: dict[str, str] = {}
    for their_name, our_name in names.items():
        their = theirs.get_parameter(their_name)
        parts = list(_pairs(_attribute(ours, our_name), their, our_name in _BY_EXPERT))
        wrong = {where: n for where, mine, other in parts if (n := _n_differing(mine, other))}
        if wrong:
            first = next(iter(wrong))
            at = f", first in expert {first}" if our_name in _BY_EXPERT else ""
            found[our_name] = f"{sum(wrong.values()):,} of {their.numel():,} numbers differ{at}"
    return found


def _pairs(ours: Any, theirs: Tensor, by_expert: bool) -> Iterator[tuple[int, Tensor, Tensor]]:
    if not by_expert:
        yield 0, ours, theirs
        return
    for expert in range(len(theirs)):
        yield expert, ours[expert], theirs[expert].T


def _n_differing(ours: Tensor, theirs: Tensor) -> int:
    ours = ours.detach().to(theirs.device)
    if ours.shape != theirs.shape:
        return max(ours.numel(), theirs.numel())
    if ours.dtype == theirs.dtype and torch.equal(ours, theirs):
        return 0
    return int((ours.float() != theirs.float()).sum())


def _attribute(module: Any, path: str) -> Any:
    for name in path.split("."):
        module = getattr(module, name)
    return module
