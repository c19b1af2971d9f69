"""Experts forced, swapped, biased and weighed anew, against the router's arithmetic done by hand."""

import pytest
import torch
from torch import Tensor

from workbench.activations import Run, run
from workbench.interventions import BiasExpert, ForceExpert, FreezeRouting, ReweightExpert, SwapExperts
from workbench.model import HookedGptOss

LAYER = 1
AT = f"blocks.{LAYER}.mlp"
INDICES, WEIGHTS, LOGITS = (f"{AT}.hook_{name}" for name in ("expert_indices", "expert_weights", "router_logits"))


@pytest.fixture(scope="module")
def clean(model: HookedGptOss, tokens: Tensor) -> Run:
    return run(model, tokens, sites="all", name="clean")


def routes(done: Run) -> list[dict[int, float]]:
    """Of every token, expert → weight."""
    pairs = zip(done[INDICES].flatten(0, 1).tolist(), done[WEIGHTS].flatten(0, 1).tolist(), strict=True)
    return [dict(zip(*pair, strict=True)) for pair in pairs]


def softmax_over(logits: Tensor, experts: set[int]) -> dict[int, float]:
    chosen = sorted(experts)
    return dict(zip(chosen, logits[chosen].softmax(-1).tolist(), strict=True))


def test_a_forced_expert_displaces_the_weakest_and_weights_are_the_softmax_of_the_new_set(
    model: HookedGptOss, tokens: Tensor, clean: Run
):
    done = run(model, tokens, [ForceExpert(LAYER, 4)], sites="all")
    logits, before, moved = clean[LOGITS].flatten(0, 1), routes(clean), 0
    for token, now in enumerate(routes(done)):
        order = clean[INDICES].flatten(0, 1)[token].tolist()
        expected = set(order) if 4 in order else {*order[:-1], 4}
        moved += 4 not in order
        assert now == pytest.approx(softmax_over(logits[token], expected), abs=1e-6)
        if 4 in order:
            assert now == before[token]
    assert moved
    share = float(done.flips_per_layer[LAYER])
    assert share == pytest.approx(moved / tokens.numel()) and float(done.flips_per_layer[0]) == 0


@pytest.mark.parametrize("weights", ["keep", "recompute"])
def test_swapped_experts_stand_in_each_others_slots(model: HookedGptOss, tokens: Tensor, clean: Run, weights):
    done = run(model, tokens, [SwapExperts(LAYER, 0, 3, weights)], sites="all")
    other = {0: 3, 3: 0}
    logits = clean[LOGITS].flatten(0, 1)
    for token, (now, before) in enumerate(zip(routes(done), routes(clean), strict=True)):
        swapped = {other.get(expert, expert): weight for expert, weight in before.items()}
        if weights == "recompute" and swapped != before:
            swapped = softmax_over(logits[token], set(swapped))
        assert now == pytest.approx(swapped, abs=1e-6)


def test_a_bias_acts_as_if_the_routers_own_bias_had_it(model: HookedGptOss, tokens: Tensor):
    done = run(model, tokens, [BiasExpert(LAYER, 2, 1.5)], sites="all")
    bias = model.blocks[LAYER].mlp.router.bias
    before = bias.detach().clone()
    with torch.no_grad():
        bias[2] += 1.5
        try:
            expected = model(tokens)
        finally:
            bias.copy_(before)
    torch.testing.assert_close(done.logits, expected, rtol=0, atol=1e-5)
    assert done.kl.max() > 0


@pytest.mark.parametrize("renormalise", [False, True])
def test_a_reweighted_expert_has_its_weight_times_the_factor(
    model: HookedGptOss, tokens: Tensor, clean: Run, renormalise: bool
):
    done = run(model, tokens, [ReweightExpert(LAYER, 1, 0.25, renormalise, positions=(0, 2, 5))], sites="all")
    for token, (now, before) in enumerate(zip(routes(done), routes(clean), strict=True)):
        expected = dict(before)
        if token % tokens.shape[1] in (0, 2, 5) and 1 in before:
            expected[1] *= 0.25
            total = sum(expected.values()) if renormalise else 1
            expected = {expert: weight / total for expert, weight in expected.items()}
        assert now == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("what", ["set", "set_and_weights"])
def test_routing_frozen_by_a_spec_is_the_frozen_routing_of_the_run(
    model: HookedGptOss, tokens: Tensor, clean: Run, what
):
    edit = BiasExpert(0, 1, 0.0)  # nothing, but an intervention
    corrupt = (tokens + 1) % model.config.d_vocab
    mode = {"set": "frozen_set", "set_and_weights": "frozen_set_and_weights"}[what]
    whole = run(model, corrupt, routing=mode, routing_from=clean, sites="all")
    by_spec = run(model, corrupt, [FreezeRouting("clean", what)], sites="all", sources={"clean": clean})
    torch.testing.assert_close(by_spec.logits, whole.logits, rtol=0, atol=1e-6)
    assert torch.equal(by_spec[INDICES], clean[INDICES])
    one = run(model, corrupt, [FreezeRouting("clean", what, layers=(1,)), edit], sites="all", sources={"clean": clean})
    plain = run(model, corrupt, sites="all")
    assert torch.equal(one[INDICES], clean[INDICES])
    assert torch.equal(one["blocks.0.mlp.hook_expert_indices"], plain["blocks.0.mlp.hook_expert_indices"])


def test_an_edit_of_routing_wins_at_its_layer_and_the_freeze_governs_the_others(
    model: HookedGptOss, tokens: Tensor, clean: Run
):
    corrupt = (tokens + 1) % model.config.d_vocab
    specs = [FreezeRouting("clean"), ForceExpert(LAYER, 4)]
    done = run(model, corrupt, specs, sites="all", sources={"clean": clean})
    assert (done[INDICES] == 4).any(-1).all()
    assert torch.equal(done["blocks.0.mlp.hook_expert_indices"], clean["blocks.0.mlp.hook_expert_indices"])
    with pytest.raises(ValueError, match=r"BiasExpert\(.*\) re-routes .* and FreezeRouting\(source='clean'\) takes"):
        run(model, corrupt, [BiasExpert(0, 1, 1.0), specs[0]], sources={"clean": clean})


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (ForceExpert(1, 5), "there is no expert 5; there are 0 to 4, the nearest is 4"),
        (SwapExperts(1, 0, 7), "there is no expert 7"),
        (BiasExpert(1, 0, float("inf")), "expected a number; to take it out, AblateExpert"),
    ],
)
def test_what_does_not_exist_is_refused(model: HookedGptOss, tokens: Tensor, spec, message: str):
    with pytest.raises(ValueError, match=message):
        run(model, tokens, [spec])
