"""Heads, layers, positions and sites that are made to say nothing, against the arithmetic done by hand."""

import pytest
import torch
from torch import Tensor

from workbench.activations import Run, run
from workbench.interventions import (
    AblateAttention,
    AblateExpert,
    AblateHead,
    AblateLayer,
    AblateMLP,
    AblatePosition,
    AblateSite,
)
from workbench.model import HookedGptOss

LAYER = 1


@pytest.fixture(scope="module")
def clean(model: HookedGptOss, tokens: Tensor) -> Run:
    return run(model, tokens, sites="all", name="clean")


@pytest.fixture(scope="module")
def other(model: HookedGptOss, tokens: Tensor) -> Run:
    """Another text, with padding, of another length and number of rows."""
    draw = torch.Generator().manual_seed(5)
    there = torch.randint(model.config.d_vocab, (3, 6), generator=draw)
    mask = torch.ones(3, 6, dtype=torch.bool)
    mask[2, 4:] = False
    return run(model, there, sites="all", attention_mask=mask, name="other")


def real_tokens(other: Run, site: str) -> Tensor:
    values, mask = other[site], other.attention_mask
    assert mask is not None
    return torch.cat([values[row, mask[row]] for row in range(len(values))])


def after_attention(model: HookedGptOss, clean: Run, attn_out: Tensor) -> Tensor:
    """The logits of the last layer's attention having written this, step by step."""
    block = model.blocks[LAYER]
    mid = clean[f"blocks.{LAYER}.hook_resid_pre"] + attn_out
    indices, weights = block.mlp.route(block.mlp.router(block.ln2(mid)))
    out = block.mlp.expert_outputs(block.ln2(mid), indices)
    return model.unembed(model.ln_final(mid + (weights[..., None] * out).sum(2)))


def test_a_head_at_zero_writes_nothing_and_the_others_and_b_o_stay(model: HookedGptOss, tokens: Tensor, clean: Run):
    done = run(model, tokens, [AblateHead(LAYER, 2)])
    gone = clean[f"blocks.{LAYER}.attn.hook_result"][:, :, 2]
    expected = after_attention(model, clean, clean[f"blocks.{LAYER}.hook_attn_out"] - gone)
    torch.testing.assert_close(done.logits, expected, rtol=0, atol=1e-5)


def test_a_head_at_its_mean_writes_the_mean_over_the_sources_real_tokens(
    model: HookedGptOss, tokens: Tensor, clean: Run, other: Run
):
    done = run(model, tokens, [AblateHead(LAYER, 2, "mean", positions=(1, 3), source="o")], sources={"o": other})
    site = f"blocks.{LAYER}.attn.hook_result"
    change = real_tokens(other, site)[:, 2].mean(0) - clean[site][:, :, 2]
    change[:, [p for p in range(tokens.shape[1]) if p not in (1, 3)]] = 0
    expected = after_attention(model, clean, clean[f"blocks.{LAYER}.hook_attn_out"] + change)
    torch.testing.assert_close(done.logits, expected, rtol=0, atol=1e-5)


def test_a_resampled_head_holds_what_stood_at_real_tokens_of_the_source_and_the_seed_decides_which(
    model: HookedGptOss, tokens: Tensor, other: Run
):
    site = f"blocks.{LAYER}.attn.hook_z"
    there = {tuple(z.tolist()) for z in real_tokens(other, site)[:, 0]}

    def drawn(seed: int) -> Tensor:
        spec = AblateHead(LAYER, 0, "resample", source="o", seed=seed)
        return run(model, tokens, [spec], sites=site, sources={"o": other})[site]

    first = drawn(0)
    assert {tuple(z.tolist()) for z in first[:, :, 0].flatten(0, 1)} <= there
    assert torch.equal(drawn(0), first) and not torch.equal(drawn(1), first)
    plain = run(model, tokens, sites=site)[site]
    assert torch.equal(first[:, :, 1:], plain[:, :, 1:])


@pytest.mark.parametrize(
    ("spec", "sites"),
    [
        (AblateAttention(LAYER), ["hook_attn_out"]),
        (AblateMLP(LAYER), ["hook_mlp_out"]),
        (AblateLayer(LAYER), ["hook_attn_out", "hook_mlp_out"]),
    ],
)
def test_a_part_at_zero_leaves_the_stream_as_it_was_before_it(
    model: HookedGptOss, tokens: Tensor, clean: Run, spec, sites: list[str]
):
    done = run(model, tokens, [spec], sites="all")
    stream = clean[f"blocks.{LAYER}.hook_resid_pre"]
    if "hook_attn_out" not in sites:
        stream = clean[f"blocks.{LAYER}.hook_resid_mid"]
    left = done[f"blocks.{LAYER}.hook_resid_post" if "hook_mlp_out" in sites else f"blocks.{LAYER}.hook_resid_mid"]
    assert torch.equal(left, stream)
    for site in sites:
        assert not done[f"blocks.{LAYER}.{site}"].any()


def test_the_mean_of_a_layer_is_the_mean_of_each_of_its_parts(model: HookedGptOss, tokens: Tensor, other: Run):
    done = run(model, tokens, [AblateLayer(LAYER, "mean", source="o")], sites="all", sources={"o": other})
    for site in (f"blocks.{LAYER}.hook_attn_out", f"blocks.{LAYER}.hook_mlp_out"):
        mean = real_tokens(other, site).mean(0).expand_as(done[site])
        torch.testing.assert_close(done[site], mean, rtol=0, atol=1e-6)


def test_an_ablated_position_has_no_embedding_and_those_before_it_never_notice(
    model: HookedGptOss, tokens: Tensor, clean: Run
):
    done = run(model, tokens, [AblatePosition((4,))], sites="all")
    assert not done["hook_embed"][:, 4].any()
    torch.testing.assert_close(done.logits[:, :4], clean.logits[:, :4], rtol=0, atol=1e-5)
    assert (done.logits[:, 4:] - clean.logits[:, 4:]).abs().amax((0, 2)).gt(1e-4).all()


@pytest.mark.parametrize("site", ["blocks.0.hook_resid_mid", "blocks.1.attn.hook_q", "blocks.1.attn.hook_pattern"])
def test_any_site_can_be_zeroed_as_a_hook_of_ones_own_would(model: HookedGptOss, tokens: Tensor, site: str):
    def zero(x: Tensor, hook: object) -> Tensor:
        x = x.clone()
        (x[:, :, 2] if site.endswith("pattern") else x[:, 2]).zero_()
        return x

    expected = model.run_with_hooks(tokens, fwd_hooks=[(site, zero)])
    assert torch.equal(run(model, tokens, [AblateSite(site, positions=(2,))]).logits, expected)


def test_one_component_of_a_site_can_be_taken_alone(model: HookedGptOss, tokens: Tensor, clean: Run):
    site = "blocks.0.attn.hook_k"
    done = run(model, tokens, [AblateSite(site, component=1)], sites=site)
    assert not done[site][:, :, 1].any() and torch.equal(done[site][:, :, 0], clean[site][:, :, 0])


@pytest.mark.parametrize("policy", ["mean", "resample"])
def test_an_expert_writes_what_it_wrote_for_tokens_that_were_routed_to_it(
    model: HookedGptOss, tokens: Tensor, clean: Run, other: Run, policy
):
    at, out = f"blocks.{LAYER}.mlp.hook_expert_indices", f"blocks.{LAYER}.mlp.hook_expert_out"
    assert other.attention_mask is not None
    routed = [
        other[out][b, p, s] for b, p, s in (other[at] == 3).nonzero().tolist() if bool(other.attention_mask[b, p])
    ]
    spec = AblateExpert(LAYER, 3, policy, source="o")
    done = run(model, tokens, [spec], sites="all", sources={"o": other})
    its = clean[at] == 3
    assert its.any() and len(routed) > 1
    assert torch.equal(done[at], clean[at]) and torch.equal(done[out][~its], clean[out][~its])
    if policy == "mean":
        mean = torch.stack(routed).mean(0)
        torch.testing.assert_close(done[out][its], mean.expand(int(its.sum()), -1), rtol=0, atol=1e-6)
    else:
        assert {tuple(y.tolist()) for y in done[out][its]} <= {tuple(y.tolist()) for y in routed}


def test_what_an_ablation_needs_is_said_before_anything_runs(
    model: HookedGptOss, tokens: Tensor, clean: Run, monkeypatch: pytest.MonkeyPatch
):
    few = run(model, tokens, sites="hook_embed")
    monkeypatch.setattr(model, "_stream", None)  # nothing may run
    for spec, message in [
        (
            AblateHead(LAYER, 8),
            r"AblateHead\(layer=1, head=8\): there is no head 8; there are 0 to 3, the nearest is 3",
        ),
        (AblateHead(9, 0), r"there is no layer 9; there are 0 to 1, the nearest is 1"),
        (AblateHead(0, 0, positions=(99,)), r"there is no position 99; .* the nearest is 8"),
        (AblateHead(0, 0, "mean"), r"policy 'mean' needs source="),
        (AblateHead(0, 0, source="clean"), r"policy 'zero' takes nothing from source='clean'"),
        (AblateHead(0, 0, "mean", source="cleen"), r"there is no source 'cleen'; the sources are \['clean', 'few'\]"),
        (AblateSite("blocks.0.mlp.hook_expert_indices"), "expert numbers, which have no zero"),
        (AblateSite("blocks.0.attn.hook_pattern", "mean", source="clean"), "pairs of positions"),
        (AblateSite("blocks.0.hook_resid_mid", component=0), r"dims batch pos d_model, none of them"),
    ]:
        with pytest.raises(ValueError, match=message):
            run(model, tokens, [spec], sources={"clean": clean, "few": few})
    with pytest.raises(KeyError, match=r"closest is 'blocks.0.hook_resid_mid'"):
        run(model, tokens, [AblateSite("blocks.0.resid_mid")])
    with pytest.raises(KeyError, match=r"did not keep 'blocks.0.attn.hook_z'"):
        run(model, tokens, [AblateHead(0, 0, "mean", source="few")], sources={"few": few})
