"""Direct logit attribution against TransformerLens' own, against plain loops, and against the logits themselves."""

import numpy as np
import pytest
import torch

import workbench as wb
from tests.experiments.pairs import RIGHT, WRONG, cached, exact_model, far, written
from workbench.activations import run
from workbench.experiments.lenses.direct import direct_logit_attribution

PARTS = ("embed", "heads", "attn_bias", "experts")


@pytest.fixture(scope="module")
def answers(model):
    return " park", model.to_single_token(" mill")


def sum_of_parts(data) -> float:
    return sum(float(data[name].sum()) for name in PARTS)


@pytest.mark.parametrize("position", [-1, -4, 0, 6])
def test_the_parts_add_up_to_the_difference_of_the_logits(done, model, answers, position):
    data = direct_logit_attribution(done, answers, position=position)
    logits = done.logits[0, position]
    assert float(data.total) == pytest.approx(float(logits[model.to_single_token(" park")] - logits[answers[1]]))
    assert abs(float(data.total)) > 1e-3
    assert sum_of_parts(data) == pytest.approx(float(data.total), abs=1e-4)
    assert float(data.residual) == pytest.approx(float(data.total) - sum_of_parts(data), abs=1e-5)


def test_one_token_is_its_logit_and_two_are_the_difference_of_one_each(done, answers):
    right, wrong = (direct_logit_attribution(done, token) for token in answers)
    both = direct_logit_attribution(done, answers)
    assert float(right.residual) == pytest.approx(0, abs=1e-4)
    for name in (*PARTS, "total"):
        assert np.allclose(right[name] - wrong[name], both[name], atol=1e-5)


@pytest.mark.parametrize("position", [-1, 5])
@torch.no_grad()
def test_heads_embedding_and_bias_are_transformer_lens_numbers(model, done, answers, position):
    _, cache = model.run_with_cache(done.tokens)
    tokens = [model.to_single_token(" park"), answers[1]]
    stack, labels = cache.stack_head_results(pos_slice=position, return_labels=True)
    theirs = cache.logit_attrs(stack, tokens[0], tokens[1], pos_slice=position, has_batch_dim=True)[:, 0]
    data = direct_logit_attribution(done, answers, position=position)
    expected = {name: float(value) for name, value in zip(labels, theirs, strict=True)}
    for layer in range(3):
        ours = data.heads.sel(layer=layer).values
        assert ours == pytest.approx([expected[f"L{layer}H{head}"] for head in range(4)], abs=1e-5)
    outer, names = cache.decompose_resid(pos_slice=position, return_labels=True)
    shares = cache.logit_attrs(outer, tokens[0], tokens[1], pos_slice=position, has_batch_dim=True)[:, 0]
    layers = dict(zip(names, shares.tolist(), strict=True))
    assert float(data.embed) == pytest.approx(layers["embed"], abs=1e-5)
    for layer in range(3):
        here = data.sel(layer=layer)
        assert float(here.experts.sum()) == pytest.approx(layers[f"{layer}_mlp_out"], abs=1e-5)
        assert float(here.heads.sum() + here.attn_bias) == pytest.approx(layers[f"{layer}_attn_out"], abs=1e-5)


def test_each_expert_is_what_plain_loops_say_and_0_where_it_is_not_routed():
    model = exact_model()
    tokens, position = far(model)[0], 6
    cache = cached(model, tokens)
    data = direct_logit_attribution(run(model, tokens), (RIGHT, WRONG), position=position)
    u = model.unembed.weight.detach()
    direction = (u[RIGHT] - u[WRONG]) * model.ln_final.w.detach() / cache["ln_final.hook_scale"][0, position]
    for layer in range(3):
        expected = [float(written(model, cache, "expert", layer, e)[position] @ direction) for e in range(6)]
        here = data.sel(layer=layer)
        assert here.experts.values == pytest.approx(expected, abs=1e-12)
        chosen = cache[f"blocks.{layer}.mlp.hook_expert_indices"][0, position].tolist()
        assert here.chosen.values.tolist() == chosen
        assert here.slots.values == pytest.approx([expected[e] for e in chosen], abs=1e-12)
        assert np.flatnonzero(here.experts.values).tolist() == sorted(chosen)


def test_what_the_experts_put_out_is_computed_again_where_it_was_not_kept(model, done, answers):
    kept = run(model, done.tokens, sites="all")
    assert "blocks.0.mlp.hook_expert_out" not in done.cache.cache_dict
    for name in PARTS:
        once, again = (direct_logit_attribution(r, answers, position=3)[name] for r in (kept, done))
        assert np.allclose(once, again, atol=1e-6)


def test_an_edited_run_is_split_as_edited(model, done, answers):
    edit = [wb.AblateExpert(1, int(done["blocks.1.mlp.hook_expert_indices"][0, -1, 0]), "zero")]
    data = direct_logit_attribution(run(model, done.tokens, edit, sites="all"), answers)
    assert float(data.residual) == pytest.approx(0, abs=1e-4)
    assert float(data.total) != pytest.approx(float(direct_logit_attribution(done, answers).total), abs=1e-6)
    with pytest.raises(KeyError, match=r"did not keep 'blocks\.0\.mlp\.hook_expert_out'"):
        direct_logit_attribution(run(model, done.tokens, edit), answers)


def test_what_somebody_put_into_the_stream_itself_is_the_residual(model, done, answers):
    added = torch.randn(model.config.d_model, generator=torch.Generator().manual_seed(3))
    with model.hooks(fwd_hooks=[("blocks.1.hook_resid_post", lambda x, hook: x + added)]):
        edited = run(model, done.tokens)
    u = model.unembed.weight.detach()
    direction = (u[model.to_single_token(" park")] - u[answers[1]]) * model.ln_final.w.detach()
    expected = float(added @ direction / edited["ln_final.hook_scale"][0, -1])
    assert abs(expected) > 1e-2
    assert float(direct_logit_attribution(edited, answers).residual) == pytest.approx(expected, abs=1e-4)


def test_a_padded_row_is_the_row(model, padded, answers):
    alone = direct_logit_attribution(run(model, padded.tokens[1:2, :1]), answers)
    beside = direct_logit_attribution(padded, answers, row=1)
    assert beside.attrs["position"] == 0 and beside.attrs["token"] == "Tom"
    for name in (*PARTS, "total"):
        assert np.allclose(alone[name], beside[name], atol=1e-5)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"position": 400}, "position=400: the run has positions 0 to"),
        ({"position": -400}, "position=-400"),
        ({"row": 3}, "row=3: this run has rows 0 to 0"),
        ({"answers": 5000}, "token=5000"),
    ],
)
def test_what_is_not_there_is_refused(done, given, told):
    with pytest.raises(ValueError, match=told):
        direct_logit_attribution(**({"run": done, "answers": 5} | given))
