"""A trace that is asked more: other nodes, more edges, what nodes promote; let go, stopped, and what it takes."""

import numpy as np
import pytest
import torch

from tests.experiments.pairs import RIGHT, WRONG, cached, exact_model, written
from tests.small import rows
from workbench.experiments.graphs.cost import graph_cost
from workbench.experiments.graphs.graph import attribution_graph
from workbench.experiments.graphs.trace import Trace
from workbench.experiments.nodes import Node
from workbench.model import HookedGptOss


@pytest.fixture(scope="module")
def model() -> HookedGptOss:
    return exact_model().requires_grad_(False)


@pytest.fixture(scope="module")
def tokens(model: HookedGptOss, seed: int) -> torch.Tensor:
    return rows(model.config, seed)[:1]


@pytest.fixture
def trace(model: HookedGptOss, tokens: torch.Tensor) -> Trace:
    return Trace(model, tokens, (RIGHT, WRONG), 30)


def test_another_number_of_nodes_is_what_tracing_anew_gives_also_after_it_was_let_go(trace, model, tokens) -> None:
    trace.release()
    trace.prune(60)
    assert trace.dataset().equals(attribution_graph(model, tokens, (RIGHT, WRONG), n_nodes=60, confirm=0))


def test_edges_confirmed_by_name_are_those_confirmed_among_the_strongest(trace, model, tokens) -> None:
    whole = attribution_graph(model, tokens, (RIGHT, WRONG), n_nodes=30, confirm=40)
    wanted = [str(name) for name in whole.edge.values[[35, 2]]]
    trace.release()
    trace.confirm([tuple(name.split(" → ")) for name in wanted])
    found = trace.dataset()
    assert found.edge.values.tolist() == wanted
    for name in ("predicted", "frozen_effect", "live_effect"):
        np.testing.assert_allclose(found[name], whole[name][[35, 2]], atol=1e-12)


def test_stopped_it_keeps_what_it_has_and_goes_on_from_there(trace, model, tokens) -> None:
    class Stop(Exception):
        pass

    def stop(done: int, total: int) -> None:
        if done >= total // 2:
            raise Stop

    with pytest.raises(Stop):
        trace.confirm(40, stop)
    assert 20 <= trace.dataset().sizes["edge"] < 40
    steps: list[tuple[int, int]] = []
    trace.confirm(40, lambda *step: steps.append(step))
    assert steps[0][0] > 20 and steps[-1] == (40, 40)
    assert trace.dataset().equals(attribution_graph(model, tokens, (RIGHT, WRONG), n_nodes=30, confirm=40))


def test_what_a_node_promotes_is_its_write_through_the_final_norm_and_the_unembedding(trace, model, tokens) -> None:
    cache = cached(model, tokens)
    for name in map(str, trace.dataset().source.values[[0, 12, -1]]):
        node = Node.parse(name)
        write = written(model, cache, node.kind, node.layer, node.index)[node.pos]
        logits = model.unembed.weight @ (write / cache["ln_final.hook_scale"][0, node.pos] * model.ln_final.w)
        found = trace.promoted(name, 4)
        for direction, largest in (("raised", True), ("lowered", False)):
            expected = logits.topk(4, largest=largest)
            assert found.token_id.sel(direction=direction).values.tolist() == expected.indices.tolist()
            # It is read in float32.
            np.testing.assert_allclose(found.logit.sel(direction=direction), expected.values, rtol=1e-4, atol=1e-6)


def test_gates_are_the_patterns_and_the_routing_weights_of_the_run(trace, model, tokens) -> None:
    cache, data = cached(model, tokens), trace.dataset()
    seen = 0
    for i, target in enumerate(map(str, data.target.values[:-1])):
        node = Node.parse(target)
        if node.kind == "expert":
            slot = cache[f"blocks.{node.layer}.mlp.hook_expert_indices"][0, node.pos].tolist().index(node.index)
            weight = cache[f"blocks.{node.layer}.mlp.hook_expert_weights"][0, node.pos, slot]
            assert float(data.routing_weight[i]) == pytest.approx(float(weight), rel=1e-6)
            assert bool(data.attention[i].isnull().all())
            continue
        pattern = cache[f"blocks.{node.layer}.attn.hook_pattern"][0, node.index, node.pos]
        for j in np.flatnonzero(data.adjacency[i]):
            assert float(data.attention[i, j]) == pytest.approx(float(pattern[int(data.source_pos[j])]), rel=1e-6)
            seen += 1
    assert seen > 10


def test_at_every_node_the_shares_of_what_comes_in_are_its_influence(model, tokens) -> None:
    data = attribution_graph(model, tokens, (RIGHT, WRONG), n_nodes=10_000, confirm=0)
    shares = data.edge_influence.sum("source") + data.bias_influence + data.error_influence
    of = dict(zip(data.source.values.tolist(), data.influence.values.tolist(), strict=True)) | {"logits": 1.0}
    np.testing.assert_allclose(shares, [of[name] for name in data.target.values.tolist()], atol=1e-12)


def test_the_cost_counts_every_node_and_every_edge_that_can_be(model, tokens) -> None:
    frozen = Trace(model, tokens, RIGHT, 1).frozen
    cost = graph_cost(model, tokens.shape[1])
    assert cost.nodes == len(frozen.nodes)
    edges = sum(int((stage.weight[:, frozen.pos[: stage.sees]] != 0).sum()) for stage in frozen.stages[:-1])
    assert cost.edges == edges
    assert cost.n_bytes > frozen.writes.nbytes + sum(stage.weight.nbytes for stage in frozen.stages) * 4 / 8


def test_what_cannot_fit_is_refused_before_anything_runs(model, tokens, monkeypatch) -> None:
    from workbench.experiments.graphs import cost as module
    from workbench.model.memory import Free

    monkeypatch.setattr(module, "free_memory", lambda device: Free(10_000, "a test"))
    monkeypatch.setattr(model, "_stream", None)
    with pytest.raises(MemoryError, match=r"needs .* and 10\.0 kB are free \(says a test\)\. Nothing was run"):
        Trace(model, tokens, RIGHT)


def test_edges_that_are_not_there_cannot_be_confirmed(trace) -> None:
    first = str(trace.dataset().source.values[0])
    for edge, message in (
        ((first, "logits"), "is exact"),
        (("L9H9@0", first), "not among"),
        ((first, first), "no edge"),
    ):
        with pytest.raises(ValueError, match=message):
            trace.confirm([edge])
    with pytest.raises(ValueError, match="not among"):
        trace.promoted("nonsense")
