"""Attribution graphs and circuits on every planted model: what they must show, and what they cannot."""

from __future__ import annotations

import numpy as np
import pytest

from tests.planted.cases import (
    BACKDOOR,
    BOUNDARY,
    CASES,
    ON_NODES,
    SATURATED,
    Case,
    asked,
    by_edge,
    by_node,
    each,
    guessed,
    rank,
    true_edges,
)
from tests.planted.models import planted
from tests.planted.scores import Scores
from workbench.experiments.attribution.edges import edge_attribution
from workbench.experiments.circuits.circuit import Circuit, auroc
from workbench.experiments.circuits.faithfulness import faithfulness, faithfulness_curve, minimality
from workbench.experiments.graphs.graph import attribution_graph


@pytest.mark.parametrize("case", [case for case in (*CASES, *BOUNDARY) if case.model != "induction"], ids=str)
def test_the_attribution_graph_gives_most_influence_to_what_was_planted(case: Case, seed: int, scores: Scores) -> None:
    for pair in case.pairs(seed):
        model, clean, _, metric = asked(case, pair)
        data = attribution_graph(model, clean, metric, n_nodes=10_000)
        there = dict(zip(data.source.values.tolist(), data.influence.values.tolist(), strict=True))
        inner = {name: value for name, value in there.items() if not name.startswith("embed")}
        # An expert that only the corrupted text goes to is no node of the clean text's graph.
        true = [name for name in planted(case.model).truth.nodes(pair) if name in inner]
        scores.record(str(case), "graph", auroc(inner, true))
        assert rank(inner, true) == len(true)
        coming = data.adjacency.sum("source") + data.bias + data.error + data.rest
        np.testing.assert_allclose(coming, data.total, atol=1e-4)


def test_the_graph_of_induction_shows_the_head_that_copies_and_not_the_one_that_only_moves_attention(
    seed: int, scores: Scores
) -> None:
    """Patterns are held, so what acts by keys alone cannot be in it: the graph's known blind spot."""
    for pair in CASES[0].pairs(seed):
        model, clean, _, metric = asked(CASES[0], pair)
        data = attribution_graph(model, clean, metric, n_nodes=10_000)
        there = dict(zip(data.source.values.tolist(), data.influence.values.tolist(), strict=True))
        inner = {name: value for name, value in there.items() if not name.startswith("embed")}
        true = planted("induction").truth.nodes(pair)
        scores.record(str(CASES[0]), "graph", auroc(inner, true))
        assert rank(inner, [true[-1]]) == 1 and inner[true[-1]] > 0.5
        assert max(inner[name] for name in true[:-1]) < 0.05


def test_in_saturation_the_graph_says_that_it_does_not_know(seed: int, scores: Scores) -> None:
    """What the flat neuron adds is all remainder: of where it comes from, its Jacobian says nothing."""
    for pair in SATURATED.pairs(seed):
        model, clean, _, metric = asked(SATURATED, pair)
        data = attribution_graph(model, clean, metric, n_nodes=10_000)
        head, expert = planted("saturated").truth.nodes(pair)
        assert float(data.error.sel(target=expert)) == pytest.approx(float(data.total.sel(target=expert)), rel=0.02)
        assert float(data.error_share) > 0.5 and float(data.influence.sel(source=head)) < 0.05
        inner = data.influence[data.source_kind != "embed"]
        named = dict(zip(inner.source.values.tolist(), inner.values.tolist(), strict=True))
        scores.record(str(SATURATED), "graph", auroc(named, (head, expert)))


def test_the_backdoor_is_found_by_every_method_that_ranks_nodes(seed: int, scores: Scores) -> None:
    """In nano, among what it knows besides: gradients need not rank it first, as the trigger changes routes."""
    for pair in BACKDOOR.pairs(seed)[:1]:
        true = planted("backdoor").truth.nodes(pair)
        for name, method in ON_NODES:
            found = by_node(guessed(BACKDOOR, pair, method), "effect")
            scores.record(str(BACKDOOR), name, auroc(found, true))
            assert rank(found, true) <= 10
        model, clean, _, metric = asked(BACKDOOR, pair)
        data = attribution_graph(model, clean, metric, n_nodes=10_000)
        inner = data.influence[data.source_kind != "embed"]
        named = dict(zip(inner.source.values.tolist(), inner.values.tolist(), strict=True))
        scores.record(str(BACKDOOR), "graph", auroc(named, true))
        assert rank(named, true) <= 10


@pytest.mark.parametrize("case", (*CASES, *BOUNDARY, SATURATED), ids=str)
def test_the_planted_circuit_alone_does_what_the_model_does_and_has_no_part_to_spare(
    case: Case, seed: int, scores: Scores
) -> None:
    model = planted(case.model).model
    # In the saturated model the decoys do the rest, on purpose.
    spare = 0.1 if case is SATURATED else 0.02
    for pair in case.pairs(seed)[:2]:
        nodes = Circuit(planted(case.model).truth.nodes(pair))
        edges = Circuit(tuple(true_edges(case, pair)), "edges")
        for circuit in (nodes, edges):
            f = float(faithfulness(model, circuit, [pair], progress=False).faithfulness[0])
            assert f == pytest.approx(1, abs=spare), circuit
        scores.record(str(case), "circuit f", f)
        assert float(minimality(model, edges, [pair], progress=False).worth.min()) > 0.4


@each
def test_a_good_ranking_has_a_small_cmd_and_a_large_cpr(case: Case, seed: int) -> None:
    pair = case.pairs(seed)[0]
    found = by_edge(edge_attribution(*asked(case, pair), "eap-ig"))
    shuffled = list(found)
    np.random.default_rng(0).shuffle(shuffled)
    sizes = (0, 0.02, 0.05, 0.1, 0.2, 0.5, 1)
    model = planted(case.model).model
    good, bad = (
        faithfulness_curve(model, ranking, [pair], of="edges", sizes=sizes, progress=False)
        for ranking in (found, shuffled)
    )
    assert float(good.cmd) < 0.1 and float(good.cpr) > 0.9
    assert float(bad.cmd) > 2 * float(good.cmd) and float(bad.cpr) < float(good.cpr)
