"""Interventions on routing: experts ablated, forced, swapped, biased, weighed anew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from workbench.interventions.base import Hook, Intervention, InterventionError, Positions
from workbench.interventions.context import Context, overlap
from workbench.model import Config

ExpertPolicy = Literal["reroute", "zero", "renormalise", "mean", "resample"]
Weights = Literal["keep", "recompute"]


class _OfExpert(Intervention):
    """What all of them share: a layer, an expert, positions."""

    layer: int
    expert: int
    positions: Positions

    @property
    def site(self) -> str:
        return f"blocks.{self.layer}.mlp"

    def check(self, config: Config, n_pos: int | None) -> None:
        self.check_index("layer", self.layer, config.n_layers)
        self.check_index("expert", self.expert, config.n_experts)
        self.check_positions(self.positions, n_pos)


@dataclass(frozen=True, repr=False)
class AblateExpert(_OfExpert):
    """Take one expert of one layer out, at every position or at some.

    Policies: ``reroute`` masks its router logit, so that the next expert takes its place and weights are those
    of the new set; ``zero`` leaves the others' weights as they were and drops its contribution;
    ``renormalise`` drops it and scales the others' weights to sum to 1 again (none left: nothing is written);
    ``mean`` lets it write, at its weight, the mean of what it wrote in the source run over the tokens that were routed
    to it; ``resample`` what it wrote there for one of them at random.
    """

    by_row: ClassVar[bool] = False

    layer: int
    expert: int
    policy: ExpertPolicy = "reroute"
    positions: Positions = None
    source: str | None = None
    seed: int = 0

    @property
    def reroutes(self) -> bool:  # type: ignore[override]
        """Whether it acts on the router's logits, which a routing taken from another run would override."""
        return self.policy == "reroute"

    def check(self, config: Config, n_pos: int | None) -> None:
        super().check(config, n_pos)
        self.check_choice("policy", self.policy, get_args(ExpertPolicy))
        if self.policy == "reroute" and config.n_experts == config.experts_per_token:
            raise InterventionError(
                f"{self}: every expert is always chosen, so there is none to re-route to; use 'zero'"
            )
        self.check_index("seed", self.seed, 2**63)
        takes = self.policy in ("mean", "resample")
        if takes != (self.source is not None):
            expected = "needs source=, the name of a run" if takes else "takes nothing from a source; leave it out"
            raise InterventionError(f"{self}: policy {self.policy!r} {expected}")

    def check_among(self, specs: Sequence[Any], config: Config, n_pos: int | None) -> None:
        if not self.reroutes:
            return
        others = [s for s in specs if isinstance(s, AblateExpert) and s.reroutes and s.layer == self.layer]
        for position in self.positions or (0,):
            masked = {s.expert for s in others if s.positions is None or position in s.positions}
            if (left := config.n_experts - len(masked)) < config.experts_per_token:
                raise InterventionError(
                    f"re-routing from experts {sorted(masked)} of layer {self.layer} leaves {left} at position "
                    f"{position}; a token needs {config.experts_per_token}. Ablate fewer, or use policy 'zero'"
                )

    def reads(self, config: Config) -> list[tuple[str, str | None]]:
        if self.source is None:
            return []
        return [(self.source, f"{self.site}.{name}") for name in ("hook_expert_indices", "hook_expert_out")]

    def check_sources(self, config: Config, sources: Mapping[str, Any], n_rows: int | None) -> None:
        super().check_sources(config, sources, n_rows)
        if self.source is not None and not bool(self._routed(Context(sources=sources)).any()):
            raise InterventionError(
                f"{self}: no token of source {self.source!r} was routed to this expert, so there is nothing to take"
            )

    def _routed(self, context: Context) -> Bool[Tensor, "batch pos slot"]:
        """Where the source went to this expert, at real tokens."""
        assert self.source is not None
        indices = context.sources[self.source][f"{self.site}.hook_expert_indices"]
        return (indices == self.expert) & context.real(self.source).to(indices.device)[..., None]

    def hooks(self, context: Context) -> list[Hook]:
        if self.policy == "reroute":
            return [(f"{self.site}.hook_router_logits", lambda x, hook: self._masked(context, x))]
        routes: dict[str, Tensor] = {}

        def remember(indices: Int[Tensor, "batch pos slot"], hook: object) -> None:
            chosen = context.chosen(self.positions, indices.shape[1], indices.device)
            routes["gone"] = (indices == self.expert) & chosen[None, :, None]

        first = (f"{self.site}.hook_expert_indices", remember)
        if self.source is not None:
            return [first, (f"{self.site}.hook_expert_out", lambda x, hook: self._replaced(context, x, routes["gone"]))]
        return [first, (f"{self.site}.hook_expert_weights", lambda x, hook: self._dropped(x, routes["gone"]))]

    def _masked(self, context: Context, logits: Float[Tensor, "batch pos expert"]) -> Tensor:
        chosen = context.chosen(self.positions, logits.shape[1], logits.device)
        expert = torch.arange(logits.shape[2], device=logits.device) == self.expert
        return logits.masked_fill(chosen[:, None] & expert, float("-inf"))

    def _dropped(self, weights: Float[Tensor, "batch pos slot"], gone: Bool[Tensor, "batch pos slot"]) -> Tensor:
        kept = weights.masked_fill(gone, 0.0)
        if self.policy == "zero":
            return kept
        total = kept.sum(-1, keepdim=True)
        # Not x / 0, even where it is not taken: its gradient is no number.
        left = total > 0
        return torch.where(gone.any(-1, keepdim=True) & left, kept / total.masked_fill(~left, 1), kept)

    def _replaced(
        self, context: Context, out: Float[Tensor, "batch pos slot d_model"], gone: Bool[Tensor, "batch pos slot"]
    ) -> Tensor:
        assert self.source is not None
        there = context.sources[self.source][f"{self.site}.hook_expert_out"]
        wrote = there[self._routed(context).to(there.device)]
        if self.policy == "mean":
            wide = wrote.to(torch.promote_types(wrote.dtype, torch.float32))
            return torch.where(gone[..., None], wide.mean(0).to(out), out)
        drawn = context.draw(len(wrote), tuple(out.shape[:3]), self.seed).to(wrote.device)
        return torch.where(gone[..., None], wrote[drawn].to(out), out)


@dataclass(frozen=True, repr=False)
class ForceExpert(_OfExpert):
    """Route to an expert: where it was not chosen, it displaces the weakest slot, and the weights are the softmax over
    the new set's own logits. Where it was chosen nothing changes."""

    layer: int
    expert: int
    positions: Positions = None

    def check_among(self, specs: Sequence[Any], config: Config, n_pos: int | None) -> None:
        for other in specs:
            same = isinstance(other, ForceExpert) and other.layer == self.layer and other.expert != self.expert
            if same and overlap(self.positions, other.positions):
                raise InterventionError(
                    f"{self} and {other} both take the weakest slot of layer {self.layer}, so the second would "
                    "displace the first; force one at a position, or raise both with BiasExpert"
                )

    def hooks(self, context: Context) -> list[Hook]:
        return _rewired(context, self.site, self._indices, "recompute")

    def _indices(self, context: Context, indices: Int[Tensor, "batch pos slot"]) -> Tensor:
        chosen = context.chosen(self.positions, indices.shape[1], indices.device)[None, :]
        missing = chosen & ~(indices == self.expert).any(-1)
        last = torch.where(missing, torch.full_like(indices[..., -1], self.expert), indices[..., -1])
        return torch.cat((indices[..., :-1], last[..., None]), -1)


@dataclass(frozen=True, repr=False)
class SwapExperts(_OfExpert):
    """Tokens that are routed to one expert go to the other, and the other way round.

    ``weights``: "keep" what stood in the slot; "recompute" them as the softmax over the new set's own logits.
    """

    layer: int
    expert: int
    other: int
    weights: Weights = "keep"
    positions: Positions = None

    def check(self, config: Config, n_pos: int | None) -> None:
        super().check(config, n_pos)
        self.check_index("expert", self.other, config.n_experts)
        self.check_choice("weights", self.weights, get_args(Weights))
        if self.other == self.expert:
            raise InterventionError(f"{self}: an expert swapped with itself changes nothing; name two")

    def hooks(self, context: Context) -> list[Hook]:
        return _rewired(context, self.site, self._indices, self.weights)

    def _indices(self, context: Context, indices: Int[Tensor, "batch pos slot"]) -> Tensor:
        chosen = context.chosen(self.positions, indices.shape[1], indices.device)[None, :, None]
        to_other, to_expert = chosen & (indices == self.expert), chosen & (indices == self.other)
        return indices.masked_fill(to_other, self.other).masked_fill(to_expert, self.expert)


@dataclass(frozen=True, repr=False)
class BiasExpert(_OfExpert):
    """Add to an expert's router logit, so that it is chosen more (or, below 0, less) often and weighs more."""

    reroutes: ClassVar[bool] = True

    layer: int
    expert: int
    amount: float
    positions: Positions = None

    def check(self, config: Config, n_pos: int | None) -> None:
        super().check(config, n_pos)
        self.check_finite("amount", self.amount, "; to take it out, AblateExpert")

    def hooks(self, context: Context) -> list[Hook]:
        def biased(logits: Float[Tensor, "batch pos expert"], hook: object) -> Tensor:
            chosen = context.chosen(self.positions, logits.shape[1], logits.device)
            expert = torch.arange(logits.shape[2], device=logits.device) == self.expert
            return torch.where(chosen[:, None] & expert, logits + self.amount, logits)

        return [(f"{self.site}.hook_router_logits", biased)]


@dataclass(frozen=True, repr=False)
class ReweightExpert(_OfExpert):
    """Multiply the routing weight of an expert where it is chosen. The others keep theirs, unless ``renormalise``."""

    layer: int
    expert: int
    factor: float
    renormalise: bool = False
    positions: Positions = None

    def check(self, config: Config, n_pos: int | None) -> None:
        super().check(config, n_pos)
        self.check_finite("factor", self.factor)
        if self.renormalise and self.factor < 0:
            raise InterventionError(f"{self}: weights below 0 cannot be scaled to sum to 1; leave renormalise out")

    def hooks(self, context: Context) -> list[Hook]:
        routes: dict[str, Tensor] = {}

        def remember(indices: Int[Tensor, "batch pos slot"], hook: object) -> None:
            chosen = context.chosen(self.positions, indices.shape[1], indices.device)
            routes["its"] = (indices == self.expert) & chosen[None, :, None]

        def weighed(weights: Float[Tensor, "batch pos slot"], hook: object) -> Tensor:
            made = torch.where(routes["its"], weights * self.factor, weights)
            if not self.renormalise:
                return made
            total = made.sum(-1, keepdim=True)
            left = total > 0
            return torch.where(routes["its"].any(-1, keepdim=True) & left, made / total.masked_fill(~left, 1), made)

        return [(f"{self.site}.hook_expert_indices", remember), (f"{self.site}.hook_expert_weights", weighed)]


def _rewired(context: Context, site: str, change, weights: Weights) -> list[Hook]:
    """Hooks that change which experts a token goes to, and perhaps weigh the new ones by their own logits."""
    seen: dict[str, Tensor] = {}

    def remember(logits: Float[Tensor, "batch pos expert"], hook: object) -> None:
        seen["logits"] = logits

    def rewire(indices: Int[Tensor, "batch pos slot"], hook: object) -> Tensor:
        seen["indices"] = change(context, indices)
        seen["changed"] = (seen["indices"] != indices).any(-1, keepdim=True)
        return seen["indices"]

    def weigh(given: Float[Tensor, "batch pos slot"], hook: object) -> Tensor:
        own = seen["logits"].gather(-1, seen["indices"]).softmax(-1)
        return torch.where(seen["changed"], own.to(given), given)

    hooks: list[Hook] = [(f"{site}.hook_expert_indices", rewire)]
    if weights == "keep":
        return hooks
    return [(f"{site}.hook_router_logits", remember), *hooks, (f"{site}.hook_expert_weights", weigh)]
