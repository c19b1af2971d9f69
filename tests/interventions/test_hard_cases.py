"""Where specs meet: each other, shorter sources, KV caches, empty rows. None may do nothing without a word."""

import json
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from workbench.activations import Run, run
from workbench.interventions import (
    AblateExpert,
    AblateHead,
    AblateMLP,
    AblateSite,
    EditSink,
    ForceExpert,
    FreezeRouting,
    InterventionError,
    KnockOut,
    Patch,
    PatchExpert,
    ReweightExpert,
    Steer,
    SwapExperts,
    from_json,
    to_json,
)
from workbench.model import HookedGptOss

LAYER = 1
AT = f"blocks.{LAYER}.mlp"


@pytest.fixture(scope="module")
def clean(model: HookedGptOss, tokens: Tensor) -> Run:
    return run(model, tokens, sites="all", name="clean")


@pytest.fixture(scope="module")
def short(model: HookedGptOss, tokens: Tensor) -> Run:
    return run(model, tokens[:, :5], sites="all", name="short")


def test_zeroed_scores_never_show_a_query_what_comes_after_it(model: HookedGptOss, tokens: Tensor):
    for layer in (0, 1):  # sliding, full
        name = f"blocks.{layer}.attn.hook_pattern"
        plain = run(model, tokens, sites=name)[name]
        done = run(model, tokens, [AblateSite(f"blocks.{layer}.attn.hook_attn_scores")], sites=name)[name]
        assert torch.equal(done > 0, plain > 0)
        # All scores 0: the visible keys share what the sink leaves.
        visible, seen = plain > 0, (plain > 0).sum(-1, keepdim=True)
        sink = model.blocks[layer].attn.sinks.exp()[None, :, None, None]
        torch.testing.assert_close(done, (visible / (seen + sink)).to(done), rtol=0, atol=1e-6)


def test_a_resampled_part_is_the_same_draw_with_and_without_a_cache(model: HookedGptOss, tokens: Tensor, clean: Run):
    site = f"blocks.{LAYER}.attn.hook_z"
    for spec in (
        AblateHead(LAYER, 0, "resample", source="clean", seed=3),
        AblateExpert(LAYER, 3, "resample", source="clean"),
    ):
        with model.edited([spec], {"clean": clean}):
            whole = model(tokens)
            shorter = model(tokens[:, :6])
            cache = model.new_cache()
            pieces = [model(tokens[:, a:b], past_kv_cache=cache) for a, b in ((0, 4), (4, 5), (5, 9))]
        torch.testing.assert_close(shorter, whole[:, :6], rtol=0, atol=1e-5)
        torch.testing.assert_close(torch.cat(pieces, 1), whole, rtol=0, atol=1e-5)
    assert site in clean.cache.cache_dict


def test_renormalising_what_is_all_gone_leaves_every_gradient_finite(model: HookedGptOss, tokens: Tensor):
    for specs in (
        [AblateExpert(LAYER, expert, "renormalise") for expert in range(5)],
        [ReweightExpert(LAYER, expert, 0.0, renormalise=True) for expert in range(5)],
    ):
        stream: list[Tensor] = []

        def lead(x: Tensor, hook: object, stream: list[Tensor] = stream) -> Tensor:
            stream.append(x.detach().requires_grad_())
            return stream[0]

        with (
            torch.enable_grad(),
            model.edited(specs),
            model.hooks(fwd_hooks=[(f"blocks.{LAYER}.hook_resid_mid", lead)]),
        ):
            (gradient,) = torch.autograd.grad(model(tokens).logsumexp(-1).sum(), stream[0])
        assert gradient.isfinite().all()


@pytest.mark.parametrize(
    "spec",
    [
        EditSink(LAYER, 0, "remove"),
        EditSink(LAYER, None, "set", 0.5),
        EditSink(0, None, "scale", 0.0),
        KnockOut(LAYER, ((None, None),)),
        KnockOut(LAYER, ((None, 3),), freed="drop"),
    ],
)
def test_padding_on_either_side_changes_nothing_at_real_tokens_under_edits_of_attention(
    model: HookedGptOss, tokens: Tensor, spec
):
    padding = torch.zeros(2, 3, dtype=torch.long)
    ones, zeros = torch.ones(2, 9, dtype=torch.bool), torch.zeros(2, 3, dtype=torch.bool)
    shift = {"edges": tuple((q, None if k is None else k + 3) for q, k in spec.edges)} if hasattr(spec, "edges") else {}
    moved = replace(spec, **shift)
    alone = run(model, tokens, [spec]).logits
    right = run(model, torch.cat((tokens, padding), 1), [spec], attention_mask=torch.cat((ones, zeros), 1))
    left = run(model, torch.cat((padding, tokens), 1), [moved], attention_mask=torch.cat((zeros, ones), 1))
    torch.testing.assert_close(right.logits[:, :9], alone, rtol=0, atol=1e-5)
    torch.testing.assert_close(left.logits[:, 3:], alone, rtol=0, atol=1e-5)


def test_a_swap_that_keeps_weights_keeps_them_under_a_frozen_set_too(model: HookedGptOss, tokens: Tensor, clean: Run):
    for layer in (0, 1):
        swap = SwapExperts(layer, 0, 3, "keep")
        frozen = run(model, tokens, routing="frozen_set", routing_from=clean, sites="all")
        done = run(model, tokens, [swap], routing="frozen_set", routing_from=clean, sites="all")
        site = f"blocks.{layer}.mlp.hook_expert_weights"
        torch.testing.assert_close(done[site], frozen[site], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "spec",
    [
        AblateExpert(LAYER, 3, "zero"),
        AblateExpert(LAYER, 3, "mean", source="clean"),
        ForceExpert(LAYER, 3),
        SwapExperts(LAYER, 3, 0),
        ReweightExpert(LAYER, 3, 2.0),
        AblateSite(f"{AT}.hook_expert_weights"),
    ],
)
def test_what_edits_a_route_may_not_come_before_the_freeze_that_would_undo_it(
    model: HookedGptOss, tokens: Tensor, clean: Run, spec
):
    freeze, given = FreezeRouting("clean"), {"clean": clean}
    with pytest.raises(InterventionError, match=r"put FreezeRouting.* before it"):
        run(model, tokens, [spec, freeze], sources=given)
    run(model, tokens, [freeze, spec], sources=given)
    run(model, tokens, [spec, FreezeRouting("clean", layers=(0,))], sources=given)


def test_an_expert_is_patched_after_all_that_edits_its_routes(model: HookedGptOss, tokens: Tensor, clean: Run):
    corrupt = (tokens + 1) % model.config.d_vocab
    patch, given = PatchExpert(LAYER, 3, "clean"), {"clean": clean}
    for spec in (AblateExpert(LAYER, 3, "zero"), ReweightExpert(LAYER, 3, 0.5), ForceExpert(LAYER, 3)):
        with pytest.raises(InterventionError, match=r"put PatchExpert\(.*\) after it"):
            run(model, corrupt, [patch, spec], sources=given)
        done = run(model, corrupt, [spec, patch], sites="all", sources=given)
        others = run(model, corrupt, [spec, AblateExpert(LAYER, 3, "zero")], sites="all", sources=given)
        its = clean[f"{AT}.hook_expert_weights"] * (clean[f"{AT}.hook_expert_indices"] == 3)
        wrote = (its[..., None] * clean[f"{AT}.hook_expert_out"]).sum(2)
        expected = others[f"blocks.{LAYER}.hook_mlp_out"] + wrote
        torch.testing.assert_close(done[f"blocks.{LAYER}.hook_mlp_out"], expected, rtol=0, atol=1e-5)
    done = run(model, corrupt, [patch, AblateMLP(LAYER)], sites="all", sources=given)
    assert not done[f"blocks.{LAYER}.hook_mlp_out"].any()


def test_two_specs_that_would_fight_over_one_slot_are_refused(model: HookedGptOss, tokens: Tensor, clean: Run):
    given = {"clean": clean}
    with pytest.raises(InterventionError, match="patches the same expert"):
        run(
            model, tokens, [PatchExpert(LAYER, 3, "clean", (1, 2)), PatchExpert(LAYER, 3, "clean", (2,))], sources=given
        )
    run(model, tokens, [PatchExpert(LAYER, 3, "clean", (1,)), PatchExpert(LAYER, 3, "clean", (2,))], sources=given)
    with pytest.raises(InterventionError, match="displace"):
        run(model, tokens, [ForceExpert(LAYER, 3), ForceExpert(LAYER, 4, (0,))])
    run(model, tokens, [ForceExpert(LAYER, 3, (1,)), ForceExpert(LAYER, 4, (0,)), ForceExpert(0, 3)])


def test_what_would_do_nothing_is_refused_before_anything_runs(
    model: HookedGptOss, tokens: Tensor, clean: Run, short: Run, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(model, "_stream", None)
    given = {"clean": clean, "short": short, "v": torch.ones(3)}
    for spec, message in [
        (PatchExpert(LAYER, 3, "short", (2, 8)), r"source 'short' has positions 0 to 4"),
        (Patch("hook_embed", "short", (2, 8)), r"source 'short' has positions 0 to 4"),
        (Patch("hook_embed", "short", (2,), (7,)), r"source 'short' has positions 0 to 4"),
        (Patch("hook_embed", "short", (2,), (-1,)), r"there is no source position -1"),
        (Patch("hook_embed", "clean", (2, 2), (0, 1)), r"names a position twice"),
        (SwapExperts(LAYER, 3, 3), "with itself"),
        (KnockOut(0, ((8, 2),)), r"query 8 never sees key 2, which is 6 before it: .* window of 4"),
        (KnockOut(0, ((2, 5),)), r"query 2 never sees key 5, which comes after it"),
        (Steer("hook_embed", "v"), r"vector 'v' is \(3,\): expected \(\d+,\)"),
        (Steer("blocks.1.attn.hook_z", "v"), r"vector 'v' is \(3,\): expected \(16,\)"),
    ]:
        with pytest.raises(InterventionError, match=message):
            run(model, tokens, [spec], sources=given)


def test_an_expert_that_the_source_never_chose_is_refused_before_anything_runs(
    model: HookedGptOss, tokens: Tensor, monkeypatch: pytest.MonkeyPatch
):
    few = run(model, tokens[:1, :1], sites="all")
    never = next(e for e in range(5) if e not in few[f"{AT}.hook_expert_indices"])
    monkeypatch.setattr(model, "_stream", None)
    for policy in ("mean", "resample"):
        with pytest.raises(InterventionError, match="no token of source 'few' was routed to this expert"):
            run(model, tokens, [AblateExpert(LAYER, never, policy, source="few")], sources={"few": few})


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_are_none_are_refused(model: HookedGptOss, tokens: Tensor, number: float):
    for spec in (ReweightExpert(LAYER, 1, number), Steer("hook_embed", "v", number)):
        with pytest.raises(InterventionError, match="expected a number"):
            run(model, tokens, [spec], sources={"v": torch.ones(model.config.d_model)})


def test_a_whole_number_in_json_is_a_float_too():
    text = json.dumps([{"kind": "EditSink", "layer": 0, "head": None, "operation": "set", "value": 1}])
    assert from_json(text) == (EditSink(0, None, "set", 1.0),)
    assert from_json(to_json(from_json(text))) == from_json(text)


def test_json_nested_without_end_is_refused_as_such():
    for depth in (300, 900, 5_000, 100_000):
        with pytest.raises(InterventionError):
            from_json('[{"kind": "Steer", "vector": "v", "site": ' + "[" * depth + "]" * depth + "}]")


def test_one_spec_outside_of_a_list_is_refused_with_what_to_write(
    model: HookedGptOss, tokens: Tensor, as_in_a_notebook
):
    with pytest.raises((TypeError, ValueError), match=r"a list|\[AblateHead"):
        run(model, tokens, AblateHead(0, 0))
