"""Contexts of experts, against every token of the corpus looked at one by one."""

import threading

import numpy as np
import pytest

from workbench.activations import run
from workbench.experiments import routing_statistics
from workbench.experiments.experts.expert_contexts import context_tokens, expert_contexts

TEXTS = [
    "Mia lives in the park.",
    "Tom",
    "One day Ana walked to the mill. The mill was old.",
    "12+5=17",
    "Where is Tom?",
]
DOMAINS = ["people", "people", "story", "sums", "people"]


@pytest.fixture(scope="module")
def found(model):
    return expert_contexts(model, TEXTS, DOMAINS, n=4, per_text=2, around=3, progress=False)


@pytest.fixture(scope="module")
def runs(model):
    return [run(model, text) for text in TEXTS]


def brute_force(runs, layer, expert, per_text):
    made = []
    for number, done in enumerate(runs):
        here = f"blocks.{layer}.mlp.hook_expert"
        pairs = zip(done[f"{here}_indices"][0].tolist(), done[f"{here}_weights"][0].tolist(), strict=True)
        served = [(w[e.index(expert)], at) for at, (e, w) in enumerate(pairs) if expert in e]
        served.sort(key=lambda pair: -pair[0])
        made += [(weight, number, at, done.tokens[0].tolist()) for weight, at in served[:per_text]]
    return sorted(made, key=lambda each: -each[0])


def test_they_are_the_hardest_that_looking_at_every_token_finds(model, runs, found):
    for layer in range(model.config.n_layers):
        for expert in range(model.config.n_experts):
            here = found.sel(layer=layer, expert=expert)
            expected = brute_force(runs, layer, expert, per_text=2)[:4]
            n = len(expected)
            assert here.weight.values[:n] == pytest.approx([each[0] for each in expected], abs=1e-6)
            assert np.isnan(here.weight.values[n:]).all()
            assert here.text.values.tolist()[:n] == [each[1] for each in expected]
            assert here.position.values.tolist()[:n] == [each[2] for each in expected]
            for row, (_, _, at, ids) in zip(here.token_id.values.tolist(), expected, strict=False):
                around = [ids[i] if 0 <= i < len(ids) else -1 for i in range(at - 3, at + 4)]
                assert row == around


def test_loads_of_domains_are_those_of_the_statistics(model, found):
    expected = routing_statistics(model, TEXTS, DOMAINS, shuffles=0, progress=False)
    assert found.domain.values.tolist() == expected.domain.values.tolist()
    assert np.allclose(found.domain_load, expected.domain_load)
    assert np.allclose(found["load"], expected["load"])
    assert int(found.domain_tokens.sum()) == expected.attrs["n_tokens"]


def test_cancelled_and_gone_on_with_it_is_the_same(model, found):
    stop, seen = threading.Event(), []

    def heard(n, so_far):
        seen.append((n, so_far.attrs["n_done"]))
        if n == 2:
            stop.set()

    how = {"n": 4, "per_text": 2, "around": 3, "progress": False}
    part = expert_contexts(model, TEXTS, DOMAINS, cancel=stop, on_result=heard, **how)
    assert part.attrs["n_done"] == 2 and seen == [(1, 1), (2, 2)]
    rest = expert_contexts(model, TEXTS, DOMAINS, resume=part, **how)
    for name in found:
        assert np.array_equal(rest[name], found[name], equal_nan=True), name
    with pytest.raises(ValueError, match="another corpus"):
        expert_contexts(model, TEXTS[:3], DOMAINS[:3], resume=part, **how)


def test_snippets_mark_the_token_where_the_expert_fired(model, runs, found):
    layer, expert = 1, int(runs[1]["blocks.1.mlp.hook_expert_indices"][0, 0, 0])
    snippets = context_tokens(model, found, layer, expert)
    here = found.sel(layer=layer, expert=expert)
    assert len(snippets) == int(np.isfinite(here.weight).sum()) > 0
    for (tokens, at), number, position in zip(snippets, here.text.values, here.position.values, strict=False):
        assert tokens[at] == runs[number].str_tokens()[position]


def test_what_does_not_fit_is_refused(model):
    for bad in ({"domains": ["a"]}, {"n": 0}, {"per_text": 0}, {"around": -1}):
        with pytest.raises(ValueError):
            expert_contexts(model, TEXTS, progress=False, **bad)
