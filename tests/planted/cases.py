"""What is asked of each planted model, and how the answers of the methods are read."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import xarray as xr

from tests.planted.models import planted
from workbench.experiments.attribution.gradients import attribution_patching, integrated_gradients
from workbench.experiments.patching.grid import component_patching
from workbench.prompts import Pair

N = 2  # prompts of each model


class Case(NamedTuple):
    """A planted model, the pairs that are asked of it, and the edges that were written (E: the expert that answers)."""

    model: str
    options: tuple[tuple[str, str], ...] = ()
    edges: tuple[str, ...] = ()
    boundary: bool = False  # clean and corrupt are routed to different experts

    def __str__(self) -> str:
        return " ".join([self.model.replace("_", " "), *(f"({value})" for _, value in self.options)])

    def pairs(self, seed: int) -> list[Pair]:
        return planted(self.model).pairs(N, seed, **dict(self.options))


CASES = (
    Case("induction", edges=("embed->L0KV0.v", "L0H0->L1KV1.k", "L1H2->logits")),
    Case("token_class_router", (("change", "index"),), ("embed->{E}.in", "{E}->logits")),
    Case("routed_by_attention", (("change", "index"),), ("embed->L0KV0.v", "L0H1->{E}.in", "{E}->logits")),
    Case("sink_head", edges=("embed->L0KV0.v", "L0H0->logits")),
    Case("retrieval_beyond_window", edges=("embed->L1KV0.v", "L1H1->logits")),
    Case("steering_direction", edges=("embed->L0KV1.v", "L0H2->logits")),
    Case("busy_expert", edges=("embed->L0E2.in", "L0E2->logits")),
)
BOUNDARY = (
    Case("token_class_router", (("change", "class"),), ("embed->L0router", "{E}->logits", "{F}->logits"), True),
    Case("routed_by_attention", (("change", "class"),),
         ("embed->L0KV0.v", "L0H1->L0router", "{E}->logits", "{F}->logits"), True),
)  # fmt: skip
SATURATED = Case("saturated", edges=("embed->L0KV0.v", "L0H1->L0E0.in", "L0E0->logits"))
BACKDOOR = Case("backdoor", boundary=True)
EVERY = (*CASES, *BOUNDARY, SATURATED, BACKDOOR)
each = pytest.mark.parametrize("case", CASES, ids=str)
every = pytest.mark.parametrize("case", EVERY, ids=str)


def asked(case: Case, pair: Pair) -> tuple[Any, torch.Tensor, torch.Tensor, tuple[int, int]]:
    """What the methods take: model, clean, corrupt, metric."""
    assert isinstance(pair.right, int) and isinstance(pair.wrong, int)
    return planted(case.model).model, torch.tensor([pair.clean]), torch.tensor([pair.corrupt]), (pair.right, pair.wrong)


def true_edges(case: Case, pair: Pair) -> list[str]:
    # The token class is six ids wide, and the expert is its number.
    experts = {"E": f"L0E{int(pair.right) // 6}", "F": f"L0E{int(pair.wrong) // 6}"}
    return [edge.format(**experts) for edge in case.edges]


def by_node(data: xr.Dataset, name: str) -> dict[str, float]:
    """The size of what a dataset has for each head and expert at each position, by the node's name."""
    found = {}
    for kind in ("head", "expert"):
        values = data[f"{kind}_{name}"].transpose("layer", kind, "pos").values
        for layer, index, pos in np.ndindex(values.shape):
            found[f"L{layer}{'H' if kind == 'head' else 'E'}{index}@{pos}"] = abs(float(values[layer, index, pos]))
    return found


def patched(case: Case, pair: Pair) -> dict[str, float]:
    both = {
        f"{kind}_recovered": component_patching(*asked(case, pair), kind, progress=False).recovered
        for kind in ("head", "expert")
    }
    return by_node(xr.Dataset(both), "recovered")


def by_edge(data: xr.Dataset) -> dict[str, float]:
    values = np.abs(data.share.values)
    up, down = data.upstream.values, data.downstream.values
    return {f"{up[i]}->{down[j]}": float(values[i, j]) for i, j in zip(*np.isfinite(values).nonzero(), strict=True)}


def rank(scores: dict[str, float], names: Iterable[str]) -> int:
    """The place of the last of these, from 1; equal scores count against it."""
    lowest = min(scores[name] for name in names)
    return sum(score >= lowest for score in scores.values())


Method = tuple[str, Callable[..., xr.Dataset]]
ON_NODES: tuple[Method, ...] = (("attribution", attribution_patching), ("integrated", integrated_gradients))
ON_EDGES: tuple[tuple[str, str], ...] = (("EAP", "eap"), ("EAP-IG", "eap-ig"))


def guessed(case: Case, pair: Pair, method: Callable[..., xr.Dataset]) -> xr.Dataset:
    more = {"progress": False} if method is integrated_gradients else {}
    return method(*asked(case, pair), **more)
