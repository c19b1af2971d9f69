"""Ablations: a head, an attention layer, the experts of a layer, a layer, a position or any site made to say nothing.

``zero`` writes 0. ``mean`` writes the mean over the real tokens of a source run: it keeps what is the same everywhere
and removes what depends on the text. ``resample`` writes what stood at a random real token of the source, drawn anew
for each row and position: activations as they really occur, as causal scrubbing has them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, get_args

import torch
from torch import Tensor

from workbench.interventions.base import Hook, Intervention, InterventionError, Positions
from workbench.interventions.context import Context
from workbench.interventions.writing import COMPONENTS, axis_of_component, axis_of_positions, site_of, writer
from workbench.model import Config
from workbench.model.sites import Site, Sites

Policy = Literal["zero", "mean", "resample"]


class _Ablation(Intervention):
    """What all of them do: write to a site or two, perhaps to one component of it."""

    by_row: ClassVar[bool] = False

    if TYPE_CHECKING:  # the fields of every ablation; each declares them itself, after what it names
        policy: Policy
        positions: Positions
        source: str | None
        seed: int

    def sites(self) -> list[tuple[str, int | None]]:
        """(site, component) of each place that is written to."""
        raise NotImplementedError

    def check(self, config: Config, n_pos: int | None) -> None:
        self.check_choice("policy", self.policy, get_args(Policy))
        self.check_positions(self.positions, n_pos)
        self.check_index("seed", self.seed, 2**63)
        if self.policy != "zero" and self.source is None:
            raise InterventionError(f"{self}: policy {self.policy!r} needs source=, the name of a run to take it from")
        if self.policy == "zero" and self.source is not None:
            raise InterventionError(f"{self}: policy 'zero' takes nothing from source={self.source!r}; leave it out")

    def reads(self, config: Config) -> list[tuple[str, str | None]]:
        return [] if self.source is None else [(self.source, site) for site, _ in self.sites()]

    def hooks(self, context: Context) -> list[Hook]:
        return [(site, self._hook(context, site, component)) for site, component in self.sites()]

    def _hook(self, context: Context, name: str, component: int | None) -> Callable:
        site = site_of(name)
        return writer(context, site, component, self.positions, lambda x: self._values(context, site, x))

    def _values(self, context: Context, site: Site, x: Tensor) -> Tensor:
        if self.source is None:
            zero = torch.zeros((), dtype=x.dtype, device=x.device)
            # What a query cannot see stays unseen: a score of 0 would show it.
            return torch.where(x.isneginf(), x, zero) if site.name.endswith("hook_attn_scores") else zero
        axis = axis_of_positions(site)
        # [token rest]: the real tokens of all rows.
        tokens = context.sources[self.source][site.name].movedim(axis, 1)[context.real(self.source)]
        rest = [i for i in range(x.ndim) if i not in (0, axis)]
        if self.policy == "mean":
            mean = tokens.to(torch.promote_types(tokens.dtype, torch.float32)).mean(0).to(x)
            return mean.view([x.shape[i] if i in rest else 1 for i in range(x.ndim)])
        drawn = context.draw(len(tokens), (x.shape[0], x.shape[axis]), self.seed).to(tokens.device)
        return tokens[drawn].movedim(1, axis).to(x)


@dataclass(frozen=True, repr=False)
class AblateSite(_Ablation):
    """Take away what any site holds; ``component`` is one head, key-value head, expert or slot of it, None all.

    Sites of pairs of positions (scores, pattern) have no mean over tokens: there only "zero".
    """

    site: str
    policy: Policy = "zero"
    positions: Positions = None
    source: str | None = None
    seed: int = 0
    component: int | None = None

    def sites(self) -> list[tuple[str, int | None]]:
        return [(self.site, self.component)]

    def check(self, config: Config, n_pos: int | None) -> None:
        super().check(config, n_pos)
        site = Sites(config.n_layers)[self.site]
        if site.is_integer:
            raise InterventionError(f"{self}: {self.site} holds expert numbers, which have no zero; use AblateExpert")
        if "key_pos" in site.dims and self.policy != "zero":
            raise InterventionError(f"{self}: {self.site} holds pairs of positions: expected policy 'zero', or Patch")
        check_component(self, site, self.component, config)


@dataclass(frozen=True, repr=False)
class AblateHead(_Ablation):
    """Take away what one head writes: its z, the pattern-weighted values, at hook_z. The layer's b_O stays."""

    layer: int
    head: int
    policy: Policy = "zero"
    positions: Positions = None
    source: str | None = None
    seed: int = 0

    def sites(self) -> list[tuple[str, int | None]]:
        return [(f"blocks.{self.layer}.attn.hook_z", self.head)]

    def check(self, config: Config, n_pos: int | None) -> None:
        self.check_index("layer", self.layer, config.n_layers)
        self.check_index("head", self.head, config.n_heads)
        super().check(config, n_pos)


class _OfLayer(_Ablation):
    """Ablations that name a layer alone."""

    writes: ClassVar[tuple[str, ...]]

    if TYPE_CHECKING:
        layer: int

    def sites(self) -> list[tuple[str, int | None]]:
        return [(f"blocks.{self.layer}.{site}", None) for site in self.writes]

    def check(self, config: Config, n_pos: int | None) -> None:
        self.check_index("layer", self.layer, config.n_layers)
        super().check(config, n_pos)


@dataclass(frozen=True, repr=False)
class AblateAttention(_OfLayer):
    """Take away what a layer's attention adds to the residual stream, b_O included."""

    writes: ClassVar[tuple[str, ...]] = ("hook_attn_out",)

    layer: int
    policy: Policy = "zero"
    positions: Positions = None
    source: str | None = None
    seed: int = 0


@dataclass(frozen=True, repr=False)
class AblateMLP(_OfLayer):
    """Take away what all experts of a layer together add to the residual stream."""

    writes: ClassVar[tuple[str, ...]] = ("hook_mlp_out",)

    layer: int
    policy: Policy = "zero"
    positions: Positions = None
    source: str | None = None
    seed: int = 0


@dataclass(frozen=True, repr=False)
class AblateLayer(_OfLayer):
    """Take away what a layer adds to the residual stream, attention and experts: with "zero", it is skipped."""

    writes: ClassVar[tuple[str, ...]] = ("hook_attn_out", "hook_mlp_out")

    layer: int
    policy: Policy = "zero"
    positions: Positions = None
    source: str | None = None
    seed: int = 0


@dataclass(frozen=True, repr=False)
class AblatePosition(_Ablation):
    """Take away what the model is told at some positions: their embeddings. Others still see the (empty) position;
    to hide it from them, knock out its edges with :class:`KnockOut`."""

    positions: Positions
    policy: Policy = "zero"
    source: str | None = None
    seed: int = 0

    def sites(self) -> list[tuple[str, int | None]]:
        return [("hook_embed", None)]


def check_component(spec: Intervention, site: Site, component: int | None, config: Config) -> None:
    """Refuse a component that a site does not have."""
    if component is None:
        return
    at = axis_of_component(site)
    if at is None:
        raise InterventionError(
            f"{spec}: {site.name} has dims {' '.join(site.dims)}, none of them one of {COMPONENTS}; leave component out"
        )
    sizes = {"head": config.n_heads, "kv_head": config.n_key_value_heads, "expert": config.n_experts}
    kind = site.dims[at]
    spec.check_index(kind.replace("_", " "), component, sizes.get(kind, config.experts_per_token))
