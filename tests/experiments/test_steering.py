"""Steering vectors against numpy's means, a planted direction, and additions done by hand."""

import numpy as np
import pytest
import torch

from workbench.activations import run
from workbench.experiments.directions.steering import (
    SteeringVector,
    contrastive_activation_addition,
    difference_of_means,
    steer,
)
from workbench.figures.steering import steering_effect

SITE = "blocks.1.hook_resid_post"
PARKS = ["Mia went to the park", "Tom is in the park", "Ana saw the park"]
MILLS = ["Mia went to the mill", "Tom is in the mill", "Ana saw the mill"]
quiet = {"progress": False}


def by_hand(model, texts, at):
    rows = [run(model, text)[SITE][0].numpy() for text in texts]
    return np.stack([row[-1] if at == "last" else row.mean(0) for row in rows])


@pytest.mark.parametrize("at", ["last", "mean"])
def test_a_difference_of_means_is_numpys(model, at):
    made = difference_of_means(model, PARKS, MILLS[:2], SITE, at=at, **quiet)
    expected = by_hand(model, PARKS, at).mean(0) - by_hand(model, MILLS[:2], at).mean(0)
    assert made.vector == pytest.approx(expected, abs=1e-6)


def test_paired_and_unpaired_means_are_the_same_vector_with_other_controls(model):
    paired = contrastive_activation_addition(model, list(zip(PARKS, MILLS, strict=True)), SITE, **quiet)
    unpaired = difference_of_means(model, PARKS, MILLS, SITE, **quiet)
    assert paired.vector == pytest.approx(unpaired.vector, abs=1e-6)
    assert paired.shuffled.shape == unpaired.shuffled.shape == (16, model.config.d_model)
    # Turned around or not, every pair's difference is in a control with one sign or the other.
    differences = by_hand(model, PARKS, "last") - by_hand(model, MILLS, "last")
    signed = {tuple(np.round((np.array(s)[:, None] * differences).mean(0), 4)) for s in np.ndindex(2, 2, 2)
              for s in [[1 - 2 * i for i in s]]}  # fmt: skip
    for control in paired.shuffled:
        assert min(np.abs(np.array(s) - control).max() for s in signed) < 1e-3


def test_a_vector_comes_back_from_its_file(model, tmp_path):
    made = difference_of_means(model, PARKS, MILLS, SITE, **quiet)
    made.save(tmp_path / "park.safetensors")
    back = SteeringVector.load(tmp_path / "park.safetensors")
    assert back.site == SITE
    assert back.provenance == made.provenance
    assert np.array_equal(back.vector, made.vector)
    assert np.array_equal(back.shuffled, made.shuffled)


def test_effects_are_those_of_the_stream_moved_by_hand(model):
    vector = difference_of_means(model, PARKS, MILLS, SITE, **quiet)
    texts = ["Mia went to the", "Tom is"]
    made = steer(model, texts, vector, (" park", " mill"), scales=[0.5, 3.0], controls=3, **quiet)
    right, wrong = (model.to_single_token(word) for word in (" park", " mill"))
    for text in range(2):
        tokens = model.to_tokens(texts[text])
        for scale in (0.5, 3.0):

            def add(x, hook, scale=scale):
                return x + scale * torch.tensor(vector.vector)

            logits = model.run_with_hooks(tokens, fwd_hooks=[(SITE, add)])[0, -1]
            found = float(made.metric.sel(scale=scale, text=text))
            assert found == pytest.approx((logits[right] - logits[wrong]).item(), abs=1e-4)
        logits = model(tokens)[0, -1]
        assert float(made.plain.sel(text=text)) == pytest.approx((logits[right] - logits[wrong]).item(), abs=1e-4)
    assert made.effect.values == pytest.approx((made.metric - made.plain).mean("text").values)
    assert not model.list_hooks()


def test_the_last_token_alone_can_be_steered(model):
    vector = SteeringVector(SITE, np.ones(model.config.d_model, np.float32))
    texts = ["Mia went to the", "Tom is"]
    made = steer(model, texts, vector, (" park", " mill"), scales=[1.0], positions="last", controls=0, **quiet)

    def add(x, hook):
        return torch.cat((x[:, :-1], x[:, -1:] + 1), 1)

    right, wrong = (model.to_single_token(word) for word in (" park", " mill"))
    for text in range(2):
        logits = model.run_with_hooks(model.to_tokens(texts[text]), fwd_hooks=[(SITE, add)])[0, -1]
        assert float(made.metric[0, text]) == pytest.approx((logits[right] - logits[wrong]).item(), abs=1e-4)


def test_the_direction_of_a_token_raises_it_and_controls_of_its_norm_do_not(model):
    """Planted truth: at the last stream, the direction γ ⊙ W_U[:, right] − W_U[:, wrong] is what the metric reads."""
    right, wrong = (model.to_single_token(word) for word in (" park", " mill"))
    direction = model.tokens_to_residual_directions(torch.tensor([right, wrong]))
    vector = (direction[0] - direction[1]).detach().numpy()
    planted = SteeringVector("blocks.2.hook_resid_post", vector / np.linalg.norm(vector))
    made = steer(model, ["Mia went to the", "Tom is"], planted, (right, wrong), scales=[1.0, 2.0], controls=30, **quiet)
    assert (made.effect > made.control_effect.max("control")).all()
    assert (made.percentile == 1).all()
    nothing = SteeringVector(
        "blocks.2.hook_resid_post", np.random.default_rng(8).standard_normal(32).astype(np.float32)
    )
    chance = steer(model, ["Mia went to the"], nothing, (right, wrong), scales=[1.0], controls=40, **quiet)
    low, high = chance.control_effect.min(), chance.control_effect.max()
    assert low < float(chance.effect[0]) < high


def test_controls_have_the_norm_of_the_vector_and_are_repeatable(model):
    from workbench.experiments.directions.steering import _controls

    vector = difference_of_means(model, PARKS, MILLS, SITE, shuffles=4, **quiet)
    controls, kinds = _controls(vector, 6, seed=1)
    assert kinds == ["random"] * 6 + ["shuffled labels"] * 4
    assert np.linalg.norm(controls, axis=1) == pytest.approx(vector.norm, rel=1e-5)
    assert np.array_equal(controls, _controls(vector, 6, seed=1)[0])


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"site": "blocks.0.attn.hook_pattern"}, "expected one of"),
        ({"scales": []}, "at least one scale"),
        ({"metric": lambda logits: logits}, "one number a row"),
        ({"vector": SteeringVector(SITE, np.ones(5, np.float32))}, r"shape \(5,\)"),
    ],
)
def test_what_does_not_fit_is_refused(model, given, told):
    asked = {"vector": SteeringVector(SITE, np.ones(32, np.float32)), "metric": (1, 2)} | given
    with pytest.raises(ValueError, match=told):
        steer(model, "Mia", **asked, **quiet)


def test_the_figure_shows_the_effect_over_its_controls(model, tmp_path):
    vector = difference_of_means(model, PARKS, MILLS, SITE, shuffles=4, **quiet)
    made = steer(model, "Mia went to the", vector, (" park", " mill"), controls=5, **quiet)
    drawn = steering_effect(made)
    assert list(drawn.data[1].y) == pytest.approx(made.effect.values)
    assert len(drawn.data) == 2
    made.to_netcdf(tmp_path / "stored.nc", engine="scipy")
    with pytest.raises(ValueError, match=r"experiments\.steer returns"):
        steering_effect(made.drop_vars("effect"))
