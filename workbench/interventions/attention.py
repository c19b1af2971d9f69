"""Interventions on attention: sinks scaled, set or removed, and edges of the pattern knocked out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from workbench.interventions.base import Hook, Intervention, InterventionError, Positions
from workbench.interventions.context import Context
from workbench.interventions.writing import site_of, written
from workbench.model import Config

SinkOperation = Literal["remove", "scale", "set"]
Freed = Literal["redistribute", "drop"]
Edge = tuple[int | None, int | None]


class _OfHead(Intervention):
    """What they share: a layer, and a head of it or all."""

    layer: int
    head: int | None

    def check(self, config: Config, n_pos: int | None) -> None:
        self.check_index("layer", self.layer, config.n_layers)
        if self.head is not None:
            self.check_index("head", self.head, config.n_heads)


@dataclass(frozen=True, repr=False)
class EditSink(_OfHead):
    """Change how much of a head's attention its sink takes, at every query or at some.

    ``remove`` takes the sink out of the softmax: the keys share all. ``scale`` multiplies the mass it takes (the result
    stays within 0 to 1), ``set`` gives it a mass; the keys share what is left, in the proportions that they had.
    ``head`` None: all heads of the layer.
    """

    layer: int
    head: int | None
    operation: SinkOperation = "remove"
    value: float | None = None
    positions: Positions = None

    def check(self, config: Config, n_pos: int | None) -> None:
        super().check(config, n_pos)
        self.check_choice("operation", self.operation, get_args(SinkOperation))
        self.check_positions(self.positions, n_pos)
        if self.operation == "remove":
            fits, expected = self.value is None, "no value"
        elif self.operation == "set":
            fits, expected = self.value is not None and 0 <= self.value <= 1, "a value from 0 to 1"
        else:
            fits, expected = self.value is not None and 0 <= self.value < float("inf"), "a value of 0 or more"
        if not fits:
            raise InterventionError(
                f"{self}: operation {self.operation!r} with value={self.value}: expected {expected}"
            )

    def hooks(self, context: Context) -> list[Hook]:
        kind = "hook_sink_logit" if self.operation == "remove" else "hook_sink"
        name = f"blocks.{self.layer}.attn.{kind}"
        site = site_of(name)

        def edit(x: Float[Tensor, "batch pos head"], hook: object) -> Tensor:
            chosen = context.chosen(self.positions, x.shape[1], x.device)
            return written(x, site, self.head, chosen, self._edited(x))

        return [(name, edit)]

    def _edited(self, x: Float[Tensor, "batch pos head"]) -> Tensor:
        if self.operation == "remove":
            return torch.full_like(x, float("-inf"))
        assert self.value is not None
        return (x * self.value).clamp(max=1) if self.operation == "scale" else torch.full_like(x, self.value)


@dataclass(frozen=True, repr=False)
class KnockOut(_OfHead):
    """Cut attention edges: the queries named no longer see the keys named.

    Args:
        edges: (query, key) positions; None in a place means every one: ``(None, 3)`` hides position 3 from everybody.
        head: None for all heads of the layer.
        freed: what becomes of the mass that the edge had: ``redistribute`` it by the softmax over what is left (the
            score becomes −inf), or ``drop`` it (the pattern becomes 0, as if the value there were 0).
    """

    layer: int
    edges: tuple[Edge, ...]
    head: int | None = None
    freed: Freed = "redistribute"

    def check(self, config: Config, n_pos: int | None) -> None:
        super().check(config, n_pos)
        self.check_choice("freed", self.freed, get_args(Freed))
        if not isinstance(self.edges, tuple) or not all(isinstance(e, tuple) and len(e) == 2 for e in self.edges):
            raise InterventionError(f"{self}: edges={self.edges!r}: expected pairs (query, key)")
        for query, key in self.edges:
            for what, position in (("query", query), ("key", key)):
                if position is not None:
                    self.check_positions((position,), n_pos, what)
            if query is not None and key is not None and key > query:
                raise InterventionError(f"{self}: query {query} never sees key {key}, which comes after it")
            window = config.window(self.layer)
            if query is not None and key is not None and window is not None and query - key >= window:
                raise InterventionError(
                    f"{self}: query {query} never sees key {key}, which is {query - key} before it: layer {self.layer} "
                    f"has a window of {window}, itself included"
                )

    def hooks(self, context: Context) -> list[Hook]:
        name, put = ("hook_attn_scores", float("-inf")) if self.freed == "redistribute" else ("hook_pattern", 0.0)

        def cut(x: Float[Tensor, "batch head query_pos key_pos"], hook: object) -> Tensor:
            gone = self._gone(context, x)[None, None]
            if self.head is not None:
                head = torch.arange(x.shape[1], device=x.device) == self.head
                gone = gone & head[None, :, None, None]
            return x.masked_fill(gone, put)

        return [(f"blocks.{self.layer}.attn.{name}", cut)]

    def _gone(
        self, context: Context, x: Float[Tensor, "batch head query_pos key_pos"]
    ) -> Bool[Tensor, "query_pos key_pos"]:
        first, (n_queries, n_keys) = context.first_column, x.shape[2:]
        # The last key is the last query; a sliding layer's cache no longer has the first ones.
        queries = torch.arange(first, first + n_queries, device=x.device)[:, None]
        keys = torch.arange(first + n_queries - n_keys, first + n_queries, device=x.device)[None]
        gone = torch.zeros(n_queries, n_keys, dtype=torch.bool, device=x.device)
        for query, key in self.edges:
            gone |= (queries == query if query is not None else queries >= 0) & (
                keys == key if key is not None else keys >= 0
            )
        return gone
