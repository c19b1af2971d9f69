"""Experts that were not chosen, against runs in which they were forced."""

import numpy as np
import pytest
import torch

import workbench as wb
from workbench.activations import run
from workbench.experiments.experts.unchosen import unchosen_experts
from workbench.experiments.lenses.direct import direct_logit_attribution

RIGHT, WRONG = " park", " mill"


def direction(done, right, wrong, position):
    """Onto what the final norm and the unembedding read, by hand."""
    model = done.model
    scale = done["ln_final.hook_scale"][0, position]
    difference = model.unembed.weight[right] - model.unembed.weight[wrong]
    return (difference * model.ln_final.w / scale).detach()


@pytest.fixture(scope="module")
def whole(done):
    return run(done.model, done.tokens, sites="all")


@pytest.mark.parametrize(("layer", "position"), [(0, 3), (1, 11), (2, -1)])
def test_a_forced_run_writes_what_was_foretold(whole, layer, position):
    model = whole.model
    at = position % whole.tokens.shape[1]
    ids = [model.to_single_token(word) for word in (RIGHT, WRONG)]
    data = unchosen_experts(whole, layer, position, (RIGHT, WRONG), n=3)
    onto = direction(whole, *ids, at)
    k = model.config.experts_per_token
    assert data.chosen.values.tolist() == [True] * k + [False] * 3
    for rank in range(k, k + 3):
        expert = int(data.expert[rank])
        forced = run(model, whole.tokens, [wb.ForceExpert(layer, expert, (at,))], sites="all")
        here = f"blocks.{layer}.mlp.hook_expert"
        assert int(forced[f"{here}_indices"][0, at, -1]) == expert
        weight, out = forced[f"{here}_weights"][0, at, -1], forced[f"{here}_out"][0, at, -1]
        assert float(data.weight[rank]) == pytest.approx(float(weight), abs=1e-6)
        assert float(data.output_norm[rank]) == pytest.approx(float(out.norm()), rel=1e-4)
        assert float(data.written_norm[rank]) == pytest.approx(float((weight * out).norm()), rel=1e-4)
        assert float(data.direct[rank]) == pytest.approx(float((weight * out) @ onto), abs=1e-4)
        written = [made[f"blocks.{layer}.hook_mlp_out"][0, at] for made in (whole, forced)]
        assert float(data.forced[rank]) == pytest.approx(float((written[1] - written[0]) @ onto), abs=1e-4)


def test_of_the_chosen_it_says_what_direct_attribution_says(done):
    expected = direct_logit_attribution(done, (RIGHT, WRONG), position=-1)
    for layer in range(done.model.config.n_layers):
        data = unchosen_experts(done, layer, -1, (RIGHT, WRONG), n=0)
        assert data.expert.values.tolist() == expected.chosen.sel(layer=layer).values.tolist()
        assert np.allclose(data.direct, expected.slots.sel(layer=layer), atol=1e-5)
        assert not data.forced.values.any()


def test_the_order_and_the_probabilities_are_the_routers(done):
    data = unchosen_experts(done, 1, 5, n=99)
    logits = done["blocks.1.mlp.hook_router_logits"][0, 5].double().numpy()
    assert data.expert.values.tolist() == np.argsort(-logits).tolist()
    assert data.probability.values == pytest.approx(np.sort(np.exp(logits) / np.exp(logits).sum())[::-1], abs=1e-6)
    assert float(data.probability.sum()) == pytest.approx(1, abs=1e-5)


def test_a_long_texts_run_that_kept_little_says_the_same(done):
    streams = ["hook_embed", "resid_post", "expert_indices", "expert_weights", "ln_final.hook_scale"]
    lean = run(done.model, done.tokens, sites=lambda site: any(name in site for name in streams))
    for name, values in unchosen_experts(done, 2, 4).items():
        if values.dtype.kind == "f":
            assert np.allclose(unchosen_experts(lean, 2, 4)[name], values, atol=1e-5)


def test_of_an_edited_run_it_is_what_forcing_would_add_to_its_edits(done):
    first = int(done["blocks.1.mlp.hook_expert_indices"][0, 6, 0])
    for policy in ("reroute", "zero"):
        edits = [wb.AblateExpert(1, first, policy)]
        edited = run(done.model, done.tokens, edits)
        data = unchosen_experts(edited, 1, 6, (RIGHT, WRONG), n=2)
        rank = done.model.config.experts_per_token
        spec = wb.ForceExpert(1, int(data.expert[rank]), (6,))
        forced = run(done.model, done.tokens, [*edits, spec])
        onto = direction(edited, *(done.model.to_single_token(word) for word in (RIGHT, WRONG)), 6)
        change = (forced["blocks.1.hook_mlp_out"] - edited["blocks.1.hook_mlp_out"])[0, 6] @ onto
        assert float(data.forced[rank]) == pytest.approx(float(change), abs=1e-4)
        if policy == "reroute":
            banned = unchosen_experts(edited, 1, 6, n=99)
            assert int(banned.expert[-1]) == first and float(banned.probability[-1]) == 0


def test_the_tokens_that_it_raises_are_those_of_its_direction(done, whole):
    data = unchosen_experts(done, 1, 5, n=0, top_k=4)
    out = whole["blocks.1.mlp.hook_expert_out"][0, 5]
    logits = (out * done.model.ln_final.w.detach()) @ done.model.unembed.weight.detach().T
    assert data.top_id.values.tolist() == logits.topk(4).indices.tolist()


def test_what_is_not_there_is_refused(done):
    for bad in ({"layer": 9}, {"layer": 0, "position": 10_000}, {"layer": 0, "n": -1}, {"layer": 0, "top_k": 0}):
        with pytest.raises(ValueError):
            unchosen_experts(done, **bad)
    assert torch.isfinite(torch.tensor(unchosen_experts(done, 0, 0).direct.values)).all()
