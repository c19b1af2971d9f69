"""RMSNorm, in float32 inside, with TransformerLens' two sites."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint


class RMSNorm(nn.Module):
    """x / sqrt(mean(x²) + eps) · w (arXiv 1910.07467).

    Computed in float32 and cast down after the gain (Llama casts before it). Sites: ``hook_scale`` [batch pos 1], the
    root mean square; ``hook_normalized`` [batch pos d_model], x / scale before the gain; both float32.
    """

    def __init__(self, d_model: int, eps: float, device: torch.device | str | None = None) -> None:
        super().__init__()
        self.eps = eps
        self.w = nn.Parameter(torch.ones(d_model, dtype=torch.float32, device=device))
        self.hook_scale = HookPoint()
        self.hook_normalized = HookPoint()

    def forward(self, x: Float[Tensor, "*lead d_model"]) -> Float[Tensor, "*lead d_model"]:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        scale = self.hook_scale((wide.pow(2).mean(-1, keepdim=True) + self.eps).sqrt())
        normalized = self.hook_normalized(wide / scale)
        return (normalized * self.w.to(wide.dtype)).to(x.dtype)
