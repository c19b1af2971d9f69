"""The mixture of experts: a router that picks k experts per token, and the experts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from workbench.model.config import Config
from workbench.model.engines import Linear, grouped_dense_linear
from workbench.model.packed import PackedExperts
from workbench.model.state import IndexWeights, Pass, listening, shown_apart

ExpertsForm = Literal["dense", "packed"]


@dataclass(frozen=True)
class Dispatch:
    """The (token, slot) pairs of a pass, sorted by expert, so that each expert meets its tokens as one matrix.

    ``row`` of the sorted order is pair ``order[row]`` of the flat [batch · pos · slot] order.
    """

    order: Int[Tensor, " row"]
    inverse: Int[Tensor, " row"]
    counts: list[int]
    expert_of_row: Int[Tensor, " row"]
    shape: tuple[int, int, int]

    @classmethod
    def of(cls, indices: Int[Tensor, "batch pos slot"], n_experts: int) -> Dispatch:
        """Sort the routes by expert (stable, so a token order that is the same gives the same sums)."""
        flat = indices.reshape(-1)
        order = flat.argsort(stable=True)
        counts = torch.bincount(flat, minlength=n_experts).tolist()
        batch, pos, slot = indices.shape
        inverse = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
        return cls(order, inverse, counts, flat[order], (batch, pos, slot))

    @property
    def token_of_row(self) -> Int[Tensor, " row"]:
        return self.order // self.shape[2]

    def to_slots(self, rows: Float[Tensor, "row d"]) -> Float[Tensor, "batch pos slot d"]:
        """From expert order back to tokens and slots."""
        return rows.index_select(0, self.inverse).view(*self.shape, rows.shape[1])

    def to_rows(self, slots: Float[Tensor, "batch pos slot d"]) -> Float[Tensor, "row d"]:
        """From tokens and slots to expert order."""
        return slots.reshape(-1, slots.shape[3]).index_select(0, self.order)

    def through(self, point: HookPoint, rows: Float[Tensor, "row d"]) -> Float[Tensor, "row d"]:
        """Show rows to a site, aligned with tokens and slots; without a listener nothing is moved."""
        return self.to_rows(point(self.to_slots(rows))) if listening(point) else rows


class Experts(nn.Module):
    """The experts' weights, [expert, out, in], and the two grouped matrix products on them.

    Whatever holds the weights (dense here, MXFP4 in :class:`~workbench.model.packed.PackedExperts`) answers the same
    two questions: ``gate_up`` and ``down`` of rows that are sorted by expert.
    """

    def __init__(self, config: Config, dtype: torch.dtype, device: torch.device | str | None = None) -> None:
        super().__init__()
        e, d, m = config.n_experts, config.d_model, config.d_mlp
        self.W_gate_up = nn.Parameter(torch.zeros(e, 2 * m, d, dtype=dtype, device=device))
        self.b_gate_up = nn.Parameter(torch.zeros(e, 2 * m, dtype=dtype, device=device))
        self.W_down = nn.Parameter(torch.zeros(e, d, m, dtype=dtype, device=device))
        self.b_down = nn.Parameter(torch.zeros(e, d, dtype=dtype, device=device))

    def gate_up(self, rows: Float[Tensor, "row d_model"], counts: list[int]) -> Float[Tensor, "row twice_d_mlp"]:
        """Gate and up of each row by its expert, interleaved: gate 0::2, up 1::2."""
        return grouped_dense_linear(rows, counts, self.W_gate_up, self.b_gate_up)

    def down(self, rows: Float[Tensor, "row d_mlp"], counts: list[int]) -> Float[Tensor, "row d_model"]:
        """What each row's expert writes, b_down included."""
        return grouped_dense_linear(rows, counts, self.W_down, self.b_down)


class MoE(nn.Module):
    """Router → top-k → softmax over the k chosen → experts → weighted sum. Sites are listed in ``model.sites``.

    gpt-oss takes softmax after top-k (Mixtral: before). Slots are in rank order: slot 0 is the strongest route.
    """

    def __init__(
        self,
        config: Config,
        dtype: torch.dtype,
        device: torch.device | str | None = None,
        experts: ExpertsForm = "dense",
    ) -> None:
        super().__init__()
        self.config = config
        self.router = Linear(config.d_model, config.n_experts, dtype=dtype, device=device)
        self.experts = {"dense": Experts, "packed": PackedExperts}[experts](config, dtype, device)
        self.hook_router_in, self.hook_expert_in = HookPoint(), HookPoint()
        self.hook_router_logits = HookPoint()
        self.hook_expert_indices, self.hook_expert_weights = HookPoint(), HookPoint()
        self.hook_expert_gate, self.hook_expert_up = HookPoint(), HookPoint()
        self.hook_expert_act, self.hook_expert_out = HookPoint(), HookPoint()

    def forward(self, x: Float[Tensor, "batch pos d_model"], this: Pass) -> Float[Tensor, "batch pos d_model"]:
        """What the layer adds to the residual stream, from the normalised stream x."""
        router_logits = self.hook_router_logits(self.router(shown_apart(self.hook_router_in, x)))
        indices, weights = self.route(router_logits, this.index_weights)
        written = self.expert_outputs(shown_apart(self.hook_expert_in, x), indices)
        return weighted_sum(written, weights)

    def route(
        self, router_logits: Float[Tensor, "batch pos expert"], index_weights: IndexWeights = "keep"
    ) -> tuple[Int[Tensor, "batch pos slot"], Float[Tensor, "batch pos slot"]]:
        """The k strongest experts and their weights, after every edit of either.

        An edit of the indices keeps the weight that stood in the slot, or with ``index_weights="recompute"`` takes the
        softmax over the new experts' own logits.

        Raises:
            ValueError: if an edit names an expert twice for one token, or one that does not exist.
        """
        values, indices = router_logits.topk(self.config.experts_per_token, dim=-1)
        if listening(self.hook_expert_indices):
            # A clone, so that an in-place edit cannot reach back into what topk returned.
            indices = self._checked(self.hook_expert_indices(indices.clone()), indices)
            if index_weights == "recompute":
                values = router_logits.gather(-1, indices)
        return indices, self.hook_expert_weights(values.softmax(-1))

    def expert_outputs(
        self, x: Float[Tensor, "batch pos d_model"], indices: Int[Tensor, "batch pos slot"]
    ) -> Float[Tensor, "batch pos slot d_model"]:
        """What the expert in each slot writes, before its routing weight."""
        dispatch = Dispatch.of(indices, self.config.n_experts)
        rows = x.reshape(-1, x.shape[2]).index_select(0, dispatch.token_of_row)
        gate_up = self.experts.gate_up(rows, dispatch.counts)
        gate = dispatch.through(self.hook_expert_gate, gate_up[:, 0::2])
        up = dispatch.through(self.hook_expert_up, gate_up[:, 1::2])
        act = dispatch.through(self.hook_expert_act, clamped_swiglu(gate, up, self.config))
        return self.hook_expert_out(dispatch.to_slots(self.experts.down(act, dispatch.counts)))

    def _checked(self, indices: Tensor, before: Tensor) -> Int[Tensor, "batch pos slot"]:
        name = self.hook_expert_indices.name
        whole = not (indices.is_floating_point() or indices.is_complex() or indices.dtype == torch.bool)
        if indices.shape != before.shape or not whole:
            raise ValueError(
                f"{name}: the edit returned {indices.dtype} {tuple(indices.shape)}; expected whole numbers of shape "
                f"{tuple(before.shape)} [batch pos slot]"
            )
        n = self.config.n_experts
        outside = (indices < 0) | (indices >= n)
        if bool(outside.any()):
            raise ValueError(f"{name}: the edit routes to expert {int(indices[outside][0])}; there are 0 to {n - 1}")
        ordered = indices.sort(-1).values
        twice = ordered[..., 1:] == ordered[..., :-1]
        if bool(twice.any()):
            batch, pos = (int(i) for i in twice.any(-1).nonzero()[0])
            raise ValueError(
                f"{name}: the edit routes token [batch {batch}, pos {pos}] to {indices[batch, pos].tolist()}: "
                f"an expert twice. "
                "Each slot needs an expert of its own; to strengthen one, edit hook_expert_weights"
            )
        return indices.to(before.dtype)


def weighted_sum(
    written: Float[Tensor, "batch pos slot d_model"], weights: Float[Tensor, "batch pos slot"]
) -> Float[Tensor, "batch pos d_model"]:
    """Σ_slot weight · written. As einsum would, and without its reading of a pattern at each layer."""
    batch, pos, slot, d = written.shape
    columns = written.reshape(-1, slot, d).mT
    return torch.bmm(columns, weights.reshape(-1, slot, 1)).view(batch, pos, d)


def clamped_swiglu(
    gate: Float[Tensor, "row d_mlp"], up: Float[Tensor, "row d_mlp"], config: Config
) -> Float[Tensor, "row d_mlp"]:
    """(up + 1) · gate · σ(α·gate), gate clamped above only, up on both sides (gpt-oss model card, arXiv 2508.10925)."""
    gate = gate.clamp(max=config.swiglu_limit)
    up = up.clamp(-config.swiglu_limit, config.swiglu_limit)
    return (up + 1) * (gate * torch.sigmoid(gate * config.swiglu_alpha))
