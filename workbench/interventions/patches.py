"""Interventions that put something of another run, or a vector, into this one: patches, frozen parts, steering."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.interventions.ablate import check_component
from workbench.interventions.base import Hook, Intervention, InterventionError, Positions
from workbench.interventions.context import Context, of_rows, overlap
from workbench.interventions.order import ROUTES, edits_slots, places
from workbench.interventions.writing import axis_of_positions, site_of, writer, written
from workbench.model import Config
from workbench.model.sites import Site, Sites

FrozenRouting = Literal["set", "set_and_weights"]


@dataclass(frozen=True, repr=False)
class Patch(Intervention):
    """Put what a site held in a source run in the place of what it holds here.

    Args:
        positions: where to put it; None: every position that the source has.
        source_positions: where to take it from, one for each of ``positions``; None: the same ones.
        component: one head, key-value head, expert or slot of the site; None for all.
    """

    site: str
    source: str
    positions: Positions = None
    source_positions: Positions = None
    component: int | None = None

    def check(self, config: Config, n_pos: int | None) -> None:
        site = Sites(config.n_layers)[self.site]
        self.check_positions(self.positions, n_pos)
        self.check_positions(self.source_positions, None, "source position")
        check_component(self, site, self.component, config)
        if self.positions is not None and len(set(self.positions)) < len(self.positions):
            raise InterventionError(f"{self}: positions={self.positions} names a position twice; each can hold one")
        if self.source_positions is not None and len(self.source_positions) != len(self.positions or ()):
            raise InterventionError(
                f"{self}: source_positions and positions belong together, one for one; "
                f"got {len(self.source_positions)} and {len(self.positions or ())}"
            )

    def check_sources(self, config: Config, sources: Mapping[str, Any], n_rows: int | None) -> None:
        super().check_sources(config, sources, n_rows)
        taken = self.positions if self.source_positions is None else self.source_positions
        _check_within(self, taken, self.source, sources[self.source])

    def reads(self, config: Config) -> list[tuple[str, str | None]]:
        return [(self.source, self.site)]

    def hooks(self, context: Context) -> list[Hook]:
        site = site_of(self.site)
        return [(self.site, lambda x, hook: self._patched(context, site, x))]

    def _patched(self, context: Context, site: Site, x: Tensor) -> Tensor | None:
        axis, there = axis_of_positions(site), context.values(self.source, self.site, x)
        first, n = context.first_column, x.shape[axis]
        targets = range(there.shape[axis]) if self.positions is None else self.positions
        origins = targets if self.source_positions is None else self.source_positions
        pairs = [(to - first, origin) for to, origin in zip(targets, origins, strict=True) if first <= to < first + n]
        if not pairs:
            return None
        at, taken = (torch.tensor(list(each), device=x.device) for each in zip(*pairs, strict=True))
        values = of_rows(there, len(x)).index_select(axis, taken)
        if values.shape[:axis] + values.shape[axis + 1 :] != x.shape[:axis] + x.shape[axis + 1 :]:
            raise InterventionError(
                f"{self}: source {self.source!r} holds {tuple(there.shape)} there and this run {tuple(x.shape)} "
                f"[{' '.join(site.dims)}]: they must fit in all but the positions"
            )
        chosen = torch.zeros(n, dtype=torch.bool, device=x.device).index_fill(0, at, True)
        return written(x, site, self.component, chosen, x.index_copy(axis, at, values))


@dataclass(frozen=True, repr=False)
class PatchExpert(Intervention):
    """Put what one expert wrote in a source run (its weight times its output; nothing where it was not chosen) in the
    place of what it writes here. The other experts write what they write here."""

    layer: int
    expert: int
    source: str
    positions: Positions = None

    def check(self, config: Config, n_pos: int | None) -> None:
        self.check_index("layer", self.layer, config.n_layers)
        self.check_index("expert", self.expert, config.n_experts)
        self.check_positions(self.positions, n_pos)

    def check_among(self, specs: Sequence[Any], config: Config, n_pos: int | None) -> None:
        _, after = places(self, specs)
        for other in after:
            same = isinstance(other, PatchExpert) and (other.layer, other.expert) == (self.layer, self.expert)
            if same and overlap(self.positions, other.positions):
                raise InterventionError(f"{other} patches the same expert at the same positions as {self}; keep one")
            if edits_slots(other, self.layer, config, (*ROUTES, "hook_expert_out")):
                raise InterventionError(
                    f"{self} changes what an expert has written, and {other} what it writes: put {self} after it"
                )

    def check_sources(self, config: Config, sources: Mapping[str, Any], n_rows: int | None) -> None:
        super().check_sources(config, sources, n_rows)
        _check_within(self, self.positions, self.source, sources[self.source])

    def reads(self, config: Config) -> list[tuple[str, str | None]]:
        parts = ("hook_expert_indices", "hook_expert_weights", "hook_expert_out")
        return [(self.source, f"blocks.{self.layer}.mlp.{part}") for part in parts]

    def hooks(self, context: Context) -> list[Hook]:
        at, seen = f"blocks.{self.layer}.mlp", {}

        def remember(part: str) -> Callable:
            def keep(x: Tensor, hook: object) -> None:
                seen[part] = x

            return keep

        def replace(x: Float[Tensor, "batch pos d_model"], hook: object) -> Tensor | None:
            source = context.sources[self.source]
            first, n = context.first_column, x.shape[1]
            end = min(first + n, source.tokens.shape[1])
            if end <= first:
                return None
            kinds = ("indices", "weights", "out")
            there = [of_rows(source[f"{at}.hook_expert_{kind}"], len(x))[:, first:end].to(x.device) for kind in kinds]
            here = [seen[kind][:, : end - first] for kind in kinds]
            change = self._written(*there).to(x) - self._written(*here).to(x)
            chosen = context.chosen(self.positions, n, x.device)[: end - first, None]
            return torch.cat((x[:, : end - first] + change * chosen, x[:, end - first :]), 1)

        kinds = [(f"{at}.hook_expert_{kind}", remember(kind)) for kind in ("indices", "weights", "out")]
        return [*kinds, (f"blocks.{self.layer}.hook_mlp_out", replace)]

    def _written(self, indices: Tensor, weights: Tensor, out: Tensor) -> Float[Tensor, "batch pos d_model"]:
        return ((weights * (indices == self.expert))[..., None] * out).sum(2)


@dataclass(frozen=True, repr=False)
class Steer(Intervention):
    """Add a vector, times ``scale``, at a site: ``wb.run(…, sources={"truth": vector})``.

    ``component``: one head, expert or so of the site; None for all.
    """

    site: str
    vector: str
    scale: float = 1.0
    positions: Positions = None
    component: int | None = None

    def check(self, config: Config, n_pos: int | None) -> None:
        site = Sites(config.n_layers)[self.site]
        self.check_positions(self.positions, n_pos)
        check_component(self, site, self.component, config)
        self.check_finite("scale", self.scale)
        if site.is_integer or "key_pos" in site.dims:
            raise InterventionError(f"{self}: {self.site} holds {' '.join(site.dims)}, to which no vector can be added")

    def check_sources(self, config: Config, sources: Mapping[str, Any], n_rows: int | None) -> None:
        super().check_sources(config, sources, n_rows)
        last, shape = Sites(config.n_layers)[self.site].dims[-1], tuple(sources[self.vector].shape)
        size = {"head": config.n_heads, "kv_head": config.n_key_value_heads, "expert": config.n_experts,
                "slot": config.experts_per_token}.get(last, getattr(config, last, None))  # fmt: skip
        if size is not None and shape != (size,):
            raise InterventionError(
                f"{self}: vector {self.vector!r} is {shape}: expected ({size},), the {last} axis of {self.site}"
            )
        if not bool(sources[self.vector].isfinite().all()):
            raise InterventionError(f"{self}: vector {self.vector!r} holds NaN or infinity: expected numbers")

    def reads(self, config: Config) -> list[tuple[str, str | None]]:
        return [(self.vector, None)]

    def hooks(self, context: Context) -> list[Hook]:
        site = site_of(self.site)

        def steered(x: Tensor) -> Tensor:
            return x + self.scale * context.sources[self.vector].to(x)

        return [(self.site, writer(context, site, self.component, self.positions, steered))]


@dataclass(frozen=True, repr=False)
class FreezeRouting(Intervention):
    """Take each token's experts from a source run, at all layers or some, as far as that run goes.

    ``what``: "set" weighs them by this run's own logits; "set_and_weights" takes their weights from there too.
    """

    source: str
    what: FrozenRouting = "set"
    layers: tuple[int, ...] | None = None

    def check(self, config: Config, n_pos: int | None) -> None:
        self.check_choice("what", self.what, get_args(FrozenRouting))
        for layer in self.layers or ():
            self.check_index("layer", layer, config.n_layers)

    def reads(self, config: Config) -> list[tuple[str, str | None]]:
        kinds = ("indices", "weights") if self.what == "set_and_weights" else ("indices",)
        return [(self.source, f"blocks.{layer}.mlp.hook_expert_{kind}") for layer in self.of(config) for kind in kinds]

    def check_among(self, specs: Sequence[Any], config: Config, n_pos: int | None) -> None:
        refuse_rerouting(specs, self.of(config), str(self))
        before, _ = places(self, specs)
        for other in before:
            if any(edits_slots(other, layer, config) for layer in self.of(config)):
                raise InterventionError(
                    f"{self} would undo {other}, which edits routes at a layer that it governs: put {self} before it"
                )

    def of(self, config: Config) -> tuple[int, ...]:
        """The layers that it governs."""
        return tuple(range(config.n_layers)) if self.layers is None else self.layers

    def hooks(self, context: Context) -> list[Hook]:
        config = context.sources[self.source].model.config
        return [hook for layer in self.of(config) for hook in self._of_layer(context, f"blocks.{layer}.mlp")]

    def _of_layer(self, context: Context, at: str) -> list[Hook]:
        seen: dict[str, Tensor] = {}

        def remember(logits: Float[Tensor, "batch pos expert"], hook: object) -> None:
            seen["logits"] = logits

        def put(x: Tensor, hook: object) -> Tensor:
            seen["indices"] = self._from_source(context, f"{at}.hook_expert_indices", x)
            return seen["indices"]

        def weigh(x: Tensor, hook: object) -> Tensor:
            if self.what == "set_and_weights":
                return self._from_source(context, f"{at}.hook_expert_weights", x)
            return seen["logits"].gather(-1, seen["indices"]).softmax(-1).to(x)

        return [
            (f"{at}.hook_router_logits", remember),
            (f"{at}.hook_expert_indices", put),
            (f"{at}.hook_expert_weights", weigh),
        ]

    def _from_source(self, context: Context, site: str, x: Tensor) -> Tensor:
        there, first = of_rows(context.values(self.source, site, x), len(x)), context.first_column
        taken = there[:, first : first + x.shape[1]]
        return torch.cat((taken, x[:, taken.shape[1] :]), 1)


def _check_within(spec: Intervention, positions: Positions, name: str, source: Any) -> None:
    """Refuse positions that a source does not have: nothing would be put there."""
    n = source.tokens.shape[1]
    if positions and max(positions) >= n:
        raise InterventionError(f"{spec}: source {name!r} has positions 0 to {n - 1}; name others")


def refuse_rerouting(specs: Iterable[Any], frozen: Iterable[int], by: str) -> None:
    """Refuse specs that act on the router's logits of a layer whose routing is taken from another run."""
    layers = set(frozen)
    for spec in specs:
        if getattr(spec, "reroutes", False) and spec.layer in layers:
            raise InterventionError(
                f"{spec} re-routes through the router's logits, and {by} takes every token's experts from another run, "
                "so it would do nothing; use policy 'zero' or 'renormalise', ForceExpert, or live routing there"
            )


@dataclass(frozen=True, repr=False)
class FreezePatterns(Intervention):
    """Take attention patterns from a source run of the same length, at all layers and heads or some.

    What the sink holds is not shown anew: the pattern alone decides what is mixed.
    """

    by_row: ClassVar[bool] = True

    source: str
    layers: tuple[int, ...] | None = None
    heads: tuple[int, ...] | None = None

    def check(self, config: Config, n_pos: int | None) -> None:
        for layer in self.layers or ():
            self.check_index("layer", layer, config.n_layers)
        for head in self.heads or ():
            self.check_index("head", head, config.n_heads)

    def reads(self, config: Config) -> list[tuple[str, str | None]]:
        layers = range(config.n_layers) if self.layers is None else self.layers
        return [(self.source, f"blocks.{layer}.attn.hook_pattern") for layer in layers]

    def hooks(self, context: Context) -> list[Hook]:
        config = context.sources[self.source].model.config
        return [(str(site), self._hook(context, str(site))) for _, site in self.reads(config)]

    def _hook(self, context: Context, site: str) -> Callable:
        def freeze(x: Float[Tensor, "batch head query_pos key_pos"], hook: object) -> Tensor:
            there = of_rows(context.values(self.source, site, x), len(x))
            if there.shape != x.shape:
                raise InterventionError(
                    f"{self}: source {self.source!r} has patterns {tuple(there.shape)} and this run {tuple(x.shape)}: "
                    "expected a run of the same length, whole and without a KV cache"
                )
            if self.heads is None:
                return there
            chosen = torch.isin(torch.arange(x.shape[1], device=x.device), torch.tensor(self.heads, device=x.device))
            return torch.where(chosen[None, :, None, None], there, x)

        return freeze
