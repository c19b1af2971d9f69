"""One expert taken out, by three policies, against the arithmetic done by hand."""

import copy
from dataclasses import FrozenInstanceError, asdict, replace

import pytest
import torch
from torch import Tensor

from tests.small import small_model
from workbench.activations import Run, run
from workbench.interventions import AblateExpert, all_edits, edits
from workbench.model import Config, HookedGptOss

LAYER = 1
AT = f"blocks.{LAYER}.mlp"


@pytest.fixture(scope="module")
def clean(model: HookedGptOss, tokens: Tensor) -> Run:
    return run(model, tokens, sites="all")


@pytest.fixture(scope="module")
def expert(clean: Run) -> int:
    """One that some tokens are routed to, and some are not."""
    counts = clean[f"{AT}.hook_expert_indices"].flatten().bincount(minlength=5)
    return int((counts.float() - 9).abs().argmin())


def contributions(clean: Run, weights: Tensor | None = None) -> Tensor:
    """[batch pos slot d_model] w·y."""
    weights = clean[f"{AT}.hook_expert_weights"] if weights is None else weights
    return weights[..., None] * clean[f"{AT}.hook_expert_out"]


def test_some_tokens_have_the_expert_and_some_have_not(clean: Run, expert: int) -> None:
    had = (clean[f"{AT}.hook_expert_indices"] == expert).any(-1)
    assert had.any() and not had.all()


def test_zero_leaves_the_stream_plus_what_the_others_wrote_with_their_old_weights(
    model: HookedGptOss, tokens: Tensor, clean: Run, expert: int
) -> None:
    done = run(model, tokens, [AblateExpert(LAYER, expert, "zero")])
    others = contributions(clean).masked_fill((clean[f"{AT}.hook_expert_indices"] == expert)[..., None], 0)
    stream = clean[f"blocks.{LAYER}.hook_resid_mid"] + others.sum(2)
    torch.testing.assert_close(done[f"blocks.{LAYER}.hook_resid_post"], stream)
    torch.testing.assert_close(done.logits, model.unembed(model.ln_final(stream)))
    assert torch.equal(done[f"{AT}.hook_expert_indices"], clean[f"{AT}.hook_expert_indices"])


def test_renormalise_divides_the_others_weights_by_what_is_left(
    model: HookedGptOss, tokens: Tensor, clean: Run, expert: int
) -> None:
    done = run(model, tokens, [AblateExpert(LAYER, expert, "renormalise")])
    weights, gone = clean[f"{AT}.hook_expert_weights"], clean[f"{AT}.hook_expert_indices"] == expert
    left = 1 - (weights * gone).sum(-1, keepdim=True)
    by_hand = torch.where(gone, torch.zeros_like(weights), weights / left)
    torch.testing.assert_close(done[f"{AT}.hook_expert_weights"], by_hand)
    torch.testing.assert_close(by_hand.sum(-1), torch.ones_like(by_hand[..., 0]))
    stream = clean[f"blocks.{LAYER}.hook_resid_mid"] + contributions(clean, by_hand).sum(2)
    torch.testing.assert_close(done[f"blocks.{LAYER}.hook_resid_post"], stream)


def test_rerouting_is_a_model_whose_router_never_picks_the_expert(
    model: HookedGptOss, tokens: Tensor, clean: Run, expert: int
) -> None:
    done = run(model, tokens, [AblateExpert(LAYER, expert)], sites="all")
    without = copy.deepcopy(model)
    without.blocks[LAYER].mlp.router.bias[expert] = float("-inf")
    torch.testing.assert_close(done.logits, without(tokens))
    # The strongest three of the other four, and their softmax.
    logits = clean[f"{AT}.hook_router_logits"].clone()
    others = [i for i in range(5) if i != expert]
    top = logits[..., others].sort(-1, descending=True)
    assert torch.equal(done[f"{AT}.hook_expert_indices"], torch.tensor(others)[top.indices[..., :3]])
    torch.testing.assert_close(done[f"{AT}.hook_expert_weights"], top.values[..., :3].softmax(-1))


@pytest.mark.parametrize("policy", ["zero", "renormalise", "reroute"])
def test_a_token_without_the_expert_is_untouched_at_that_layer(
    model: HookedGptOss, tokens: Tensor, clean: Run, expert: int, policy: str
) -> None:
    done = run(model, tokens, [AblateExpert(LAYER, expert, policy)])
    had = (clean[f"{AT}.hook_expert_indices"] == expert).any(-1)
    moved = (done[f"blocks.{LAYER}.hook_mlp_out"] - clean[f"blocks.{LAYER}.hook_mlp_out"]).abs().amax(-1) > 1e-9
    assert torch.equal(moved, had)
    assert torch.equal(done.flipped_routes[LAYER], had if policy == "reroute" else torch.zeros_like(had))


@pytest.mark.parametrize("policy", ["zero", "renormalise", "reroute"])
def test_only_the_named_positions_are_ablated(
    model: HookedGptOss, tokens: Tensor, clean: Run, expert: int, policy: str
) -> None:
    everywhere = run(model, tokens, [AblateExpert(LAYER, expert, policy)])
    some = run(model, tokens, [AblateExpert(LAYER, expert, policy, positions=(0, 3, 8))])
    expected = clean[f"blocks.{LAYER}.hook_mlp_out"].clone()
    expected[:, [0, 3, 8]] = everywhere[f"blocks.{LAYER}.hook_mlp_out"][:, [0, 3, 8]]
    torch.testing.assert_close(some[f"blocks.{LAYER}.hook_mlp_out"], expected)
    nowhere = run(model, tokens, [AblateExpert(LAYER, expert, policy, positions=())])
    assert torch.equal(nowhere.logits, clean.logits) and not nowhere.flipped_routes.any() and not nowhere.kl.any()


@pytest.mark.parametrize("policy", ["zero", "renormalise"])
def test_with_every_expert_gone_nothing_is_written(
    model: HookedGptOss, tokens: Tensor, clean: Run, policy: str
) -> None:
    done = run(model, tokens, [AblateExpert(LAYER, expert, policy) for expert in range(5)])
    assert not done[f"blocks.{LAYER}.hook_mlp_out"].any()
    assert torch.equal(done[f"blocks.{LAYER}.hook_resid_post"], clean[f"blocks.{LAYER}.hook_resid_mid"])


def test_an_expert_alone_in_its_slot_leaves_nothing_to_renormalise(form: str, shape: Config, tokens: Tensor) -> None:
    single = small_model(shape.with_(experts_per_token=1), form, 0)
    before = run(single, tokens)
    expert = int(before[f"{AT}.hook_expert_indices"][0, 0, 0])
    done = run(single, tokens, [AblateExpert(LAYER, expert, "renormalise")])
    had = (before[f"{AT}.hook_expert_indices"] == expert).any(-1)
    assert not done[f"blocks.{LAYER}.hook_mlp_out"][had].any()
    assert done[f"blocks.{LAYER}.hook_mlp_out"][~had].any() or had.all()


def test_two_ablations_act_as_both(model: HookedGptOss, tokens: Tensor, clean: Run) -> None:
    a, b = (int(i) for i in clean[f"{AT}.hook_expert_indices"][0, 0, :2])
    masked = copy.deepcopy(model)
    masked.blocks[LAYER].mlp.router.bias[[a, b]] = float("-inf")
    both = run(model, tokens, [AblateExpert(LAYER, a), AblateExpert(LAYER, b)])
    torch.testing.assert_close(both.logits, masked(tokens))
    zeroed = run(model, tokens, [AblateExpert(LAYER, a, "zero"), AblateExpert(LAYER, b, "zero")])
    indices = clean[f"{AT}.hook_expert_indices"]
    others = contributions(clean).masked_fill(((indices == a) | (indices == b))[..., None], 0).sum(2)
    torch.testing.assert_close(zeroed[f"blocks.{LAYER}.hook_mlp_out"], others)


def test_an_ablation_drops_the_expert_that_a_re_routing_brought_in(
    model: HookedGptOss, tokens: Tensor, clean: Run, expert: int
) -> None:
    rerouted = run(model, tokens, [AblateExpert(LAYER, expert)], sites="all")
    came = int(rerouted[f"{AT}.hook_expert_indices"][rerouted.flipped_routes[LAYER]][0, -1])
    done = run(model, tokens, [AblateExpert(LAYER, expert), AblateExpert(LAYER, came, "zero")])
    gone = rerouted[f"{AT}.hook_expert_indices"] == came
    expected = rerouted[f"{AT}.hook_expert_weights"].masked_fill(gone, 0)
    torch.testing.assert_close(done[f"{AT}.hook_expert_weights"], expected)


def test_generation_with_the_spec_is_a_generation_of_the_masked_model(model: HookedGptOss, tokens: Tensor) -> None:
    masked = copy.deepcopy(model)
    masked.blocks[LAYER].mlp.router.bias[2] = float("-inf")
    spec = AblateExpert(LAYER, 2)
    for use_cache in (True, False):
        steps = model.generate(tokens, max_new_tokens=4, fwd_hooks=edits(spec), use_cache=use_cache).finish()
        assert torch.equal(steps.tokens, masked.generate(tokens, max_new_tokens=4).finish().tokens)


REFUSED = [
    (AblateExpert(2, 0), r"there is no layer 2; there are 0 to 1, the nearest is 1"),
    (AblateExpert(-1, 0), r"there is no layer -1; there are 0 to 1, the nearest is 0"),
    (AblateExpert(0, 5), r"there is no expert 5; there are 0 to 4, the nearest is 4"),
    (AblateExpert(0, -2), r"there is no expert -2; there are 0 to 4, the nearest is 0"),
    (AblateExpert(0, 1, positions=(0, 9)), r"there is no position 9; there are 0 to 8, the nearest is 8"),
    (AblateExpert(0, 1, "zero", positions=(-1,)), r"there is no position -1; there are 0 to 8, the nearest is 0"),
]


@pytest.mark.parametrize(("spec", "message"), REFUSED)
def test_what_the_model_does_not_have_is_refused_with_the_nearest(
    model: HookedGptOss, tokens: Tensor, monkeypatch: pytest.MonkeyPatch, spec: AblateExpert, message: str
) -> None:
    monkeypatch.setattr(model, "_stream", None)  # nothing may run
    with pytest.raises(ValueError, match=r"AblateExpert\(.*\): " + message):
        run(model, tokens, [spec])


def test_an_unknown_policy_is_refused_with_the_known_ones(model: HookedGptOss, tokens: Tensor) -> None:
    spec = AblateExpert(0, 1)
    object.__setattr__(spec, "policy", "remove")  # as a notebook could say it: types are checked in tests only
    with pytest.raises(
        ValueError, match=r"policy 'remove', expected one of \('reroute', 'zero', 'renormalise', 'mean', 'resample'\)"
    ):
        run(model, tokens, [spec])


def test_re_routing_where_every_expert_is_chosen_is_refused(form: str, shape: Config, tokens: Tensor) -> None:
    every = small_model(shape.with_(n_experts=3), form, 0)
    with pytest.raises(ValueError, match=r"every expert is always chosen, .* use 'zero'"):
        run(every, tokens, [AblateExpert(0, 1)])
    assert run(every, tokens, [AblateExpert(0, 1, "zero")]).kl.max() > 0


def test_re_routings_that_leave_too_few_experts_are_refused_together(model: HookedGptOss, tokens: Tensor) -> None:
    three = [AblateExpert(LAYER, expert) for expert in (0, 2, 4)]
    message = r"experts \[0, 2, 4\] of layer 1 leaves 2 at position 0; a token needs 3\. Ablate fewer, or use policy"
    with pytest.raises(ValueError, match=message):
        run(model, tokens, three)
    apart = [replace(spec, positions=(i,)) for i, spec in enumerate(three)]
    assert torch.isfinite(run(model, tokens, apart).logits).all()
    assert torch.isfinite(run(model, tokens, three[:2]).logits).all()
    assert torch.isfinite(run(model, tokens, [*three[:2], replace(three[2], layer=0)]).logits).all()


def test_something_else_is_no_intervention() -> None:
    with pytest.raises(TypeError, match=r"3 is no intervention; expected one of \['AblateAttention', 'AblateExpert'"):
        all_edits([3])


def test_a_spec_is_frozen_data_without_tensors() -> None:
    spec = AblateExpert(1, 2, "zero", positions=(3, 4))
    assert asdict(spec) == {"layer": 1, "expert": 2, "policy": "zero", "positions": (3, 4)} | {
        "source": None,
        "seed": 0,
    }
    assert spec == AblateExpert(**asdict(spec)) and hash(spec) == hash(AblateExpert(**asdict(spec)))
    with pytest.raises(FrozenInstanceError):
        spec.expert = 3
