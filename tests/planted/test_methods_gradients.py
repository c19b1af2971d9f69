"""Methods of gradients on every planted model: what they must find, and where they must fail."""

from __future__ import annotations

import numpy as np
import pytest

from tests.planted.cases import (
    BOUNDARY,
    ON_EDGES,
    ON_NODES,
    SATURATED,
    Case,
    asked,
    by_edge,
    by_node,
    each,
    guessed,
    patched,
    true_edges,
)
from tests.planted.models import planted
from tests.planted.scores import Scores
from workbench.experiments.attribution.edges import edge_attribution
from workbench.experiments.attribution.gradients import attribution_patching, integrated_gradients
from workbench.experiments.circuits.circuit import auroc


@each
def test_gradients_find_what_was_planted_where_nothing_saturates_and_no_route_changes(
    case: Case, seed: int, scores: Scores
) -> None:
    for pair in case.pairs(seed):
        for name, method in ON_NODES:
            data = guessed(case, pair, method)
            assert not bool(data.routes_differ[:, -1].any())
            score = auroc(by_node(data, "effect"), planted(case.model).truth.nodes(pair))
            scores.record(str(case), name, score)
            assert score >= 0.95, name
        for name, method in ON_EDGES:
            data = edge_attribution(*asked(case, pair), method)
            score = auroc(by_edge(data), true_edges(case, pair))
            scores.record(str(case), name, score)
            assert score >= 0.95, name


@each
def test_integrated_gradients_add_up_to_the_effect_but_for_the_gap_that_they_report(case: Case, seed: int) -> None:
    pair = case.pairs(seed)[0]
    data = guessed(case, pair, integrated_gradients)
    span = float(data.clean - data.corrupted)
    # The stream itself passes through attention, which turns too fast for 16 steps; what layers write does not.
    own = data.gap.sel(path=["attn_out", "mlp_out"]).isel(layer=-1)
    assert float(abs(own).max()) < 0.02 * abs(span)
    whole = data.head_effect.sum(["head", "pos"]) - data.joint_effect.sel(path="attn_out")
    np.testing.assert_allclose(whole, data.gap.sel(path="attn_out"), atol=1e-3 * abs(span))


def test_in_saturation_the_gradient_ranks_every_decoy_before_the_circuit_and_its_integral_does_not(
    seed: int, scores: Scores
) -> None:
    for pair in SATURATED.pairs(seed):
        exact, true = patched(SATURATED, pair), planted("saturated").truth.nodes(pair)
        at = f"@{len(pair.clean) - 1}"
        heads = [f"L0H{head}{at}" for head in range(4)]
        found = {}
        for name, method in ON_NODES:
            data = guessed(SATURATED, pair, method)
            found[name] = by_node(data, "recovered")
            scores.record(str(SATURATED), name, auroc(found[name], true))
        attribution, integrated = found["attribution"], found["integrated"]
        assert min(heads, key=exact.__getitem__) != f"L0H1{at}" == max(heads, key=exact.__getitem__)
        assert min(heads, key=attribution.__getitem__) == f"L0H1{at}", "the gradient puts it last of all heads"
        assert max(heads, key=integrated.__getitem__) == f"L0H1{at}"
        assert attribution[f"L0H1{at}"] < 0.02 * exact[f"L0H1{at}"]
        assert integrated[f"L0H1{at}"] == pytest.approx(exact[f"L0H1{at}"], rel=0.02)
        of_edges = {}
        for name, method in ON_EDGES:
            data = edge_attribution(*asked(SATURATED, pair), method, steps=16)
            of_edges[name] = auroc(by_edge(data), true_edges(SATURATED, pair))
            scores.record(str(SATURATED), name, of_edges[name])
        assert of_edges["EAP"] < 0.9 < 0.99 < of_edges["EAP-IG"]


@pytest.mark.parametrize("case", BOUNDARY, ids=str)
def test_beyond_a_top_k_boundary_gradients_miss_the_router_and_the_dataset_says_where(
    case: Case, seed: int, scores: Scores
) -> None:
    for pair in case.pairs(seed):
        for name, method in ON_NODES:
            data = guessed(case, pair, method)
            assert bool(data.routes_differ[0, -1]), "the two runs choose other experts there"
            scores.record(str(case), name, auroc(by_node(data, "effect"), planted(case.model).truth.nodes(pair)))
        if case.model == "routed_by_attention":
            exact, last = patched(case, pair), f"L0H1@{len(pair.clean) - 1}"
            slope = by_node(guessed(case, pair, attribution_patching), "recovered")
            assert exact[last] > 0.95 and slope[last] < 0.1, "what the head does, it does by the route"
        for name, method in ON_EDGES:
            found, true = by_edge(edge_attribution(*asked(case, pair), method)), true_edges(case, pair)
            scores.record(str(case), name, auroc(found, true))
            assert auroc(found, true) < 0.95
            assert max(score for edge, score in found.items() if edge.endswith("router")) < 1e-3
