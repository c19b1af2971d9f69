"""Mediation: exact identities on random models, runs put together by hand, and a split written into weights."""

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.experiments.pairs import RIGHT, WRONG, cached, difference, exact_model, written
from tests.small import rows
from workbench import compiled
from workbench.activations import run
from workbench.experiments.effects.mediation import mediation
from workbench.experiments.metrics import logit_difference
from workbench.interventions import AblateExpert, AblateHead, ForceExpert, Patch, Steer
from workbench.model import HookedGptOss
from workbench.prompts import stack

METRIC = (RIGHT, WRONG)
N_LAYERS = 3
PARTS = ("routing", "content", "interaction")


@pytest.fixture(scope="module")
def model() -> HookedGptOss:
    return exact_model()


@pytest.fixture(scope="module")
def tokens(model: HookedGptOss, seed: int) -> Tensor:
    return rows(model.config, seed)


def push(model: HookedGptOss, seed: int) -> tuple[list, dict]:
    """A vector at layer 0 that moves many routes."""
    vector = 3 * torch.randn(model.config.d_model, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return [Steer("blocks.0.hook_attn_out", "push")], {"push": vector}


def scored(model: HookedGptOss, tokens: Tensor, hooks: list) -> np.ndarray:
    with torch.no_grad():
        return difference(model.run_with_hooks(tokens, fwd_hooks=hooks)[:, -1]).numpy()


def routed_as(cache: dict[str, Tensor], layers=range(N_LAYERS)) -> list:
    sites = [f"blocks.{layer}.mlp.hook_expert_{part}" for layer in layers for part in ("indices", "weights")]
    return [(site, lambda x, hook: cache[hook.name]) for site in sites]


def test_the_four_runs_are_what_hooks_by_hand_make_them(model: HookedGptOss, tokens: Tensor, seed: int) -> None:
    specs, sources = push(model, seed)
    data = mediation(model, tokens, specs, METRIC, sources, progress=False)
    add = [("blocks.0.hook_attn_out", lambda x, hook: x + sources["push"])]
    clean = cached(model, tokens)
    with torch.no_grad(), model.hooks(fwd_hooks=add):
        edited = dict(model.run_with_cache(tokens)[1])
    table = data.metric.transpose("routing_from", "content_from", "batch")
    for i, routing in enumerate((clean, edited)):
        for j, edit in enumerate(([], add)):
            np.testing.assert_allclose(table[i, j], scored(model, tokens, [*edit, *routed_as(routing)]), atol=1e-12)
    assert float(data.routes_changed.min()) >= 0 and float(data.routes_changed.max()) > 0
    np.testing.assert_allclose(data.total, data.metric[1, 1] - data.metric[0, 0], atol=1e-13)
    np.testing.assert_allclose(data.total, sum(data[part] for part in PARTS), atol=1e-13)
    assert all(float(abs(data[part]).max()) > 1e-4 for part in PARTS)


def test_the_layers_add_up_to_routing_and_to_the_interaction(model: HookedGptOss, tokens: Tensor, seed: int) -> None:
    specs, sources = push(model, seed)
    data = mediation(model, tokens, specs, METRIC, sources, by_expert=False, progress=False)
    np.testing.assert_allclose(data.layer_routing.sum("layer"), data.routing, atol=1e-12)
    np.testing.assert_allclose(data.layer_interaction.sum("layer"), data.interaction, atol=1e-12)
    clean = cached(model, tokens)
    edited = run(model, tokens, specs, sites="all", sources=sources).cache.cache_dict
    one = scored(model, tokens, routed_as(edited, [0]) + routed_as(clean, [1, 2]))
    two = scored(model, tokens, routed_as(edited, [0, 1]) + routed_as(clean, [2]))
    np.testing.assert_allclose(data.layer_routing.sel(layer=1), two - one, atol=1e-12)


def test_each_experts_parts_are_what_plain_loops_make_them(model: HookedGptOss, tokens: Tensor, seed: int) -> None:
    specs, sources = push(model, seed)
    data = mediation(model, tokens[:1], specs, METRIC, sources, progress=False)
    clean = cached(model, tokens[:1])
    edited = run(model, tokens[:1], specs, sites="all", sources=sources).cache.cache_dict
    plain, compared = scored(model, tokens[:1], []), 0
    for layer in range(N_LAYERS):
        site = f"blocks.{layer}.mlp.hook_expert_"
        for expert in range(model.config.n_experts):
            changes = torch.zeros(3, *clean["hook_embed"].shape, dtype=torch.float64)
            for pos in range(tokens.shape[1]):
                weights = [
                    sum(
                        float(cache[f"{site}weights"][0, pos, slot])
                        for slot in range(2)
                        if cache[f"{site}indices"][0, pos, slot] == expert
                    )
                    for cache in (clean, edited)
                ]
                read = [cache[f"{site}in"][0, pos] for cache in (clean, edited)]
                out = [_expert(model, layer, expert, x) for x in read]
                changes[0, 0, pos] = (weights[1] - weights[0]) * out[0]
                changes[1, 0, pos] = weights[0] * (out[1] - out[0])
                changes[2, 0, pos] = (weights[1] - weights[0]) * (out[1] - out[0])
            for part, change in zip(PARTS, changes, strict=True):
                into = (f"blocks.{layer}.hook_mlp_out", lambda x, hook, c=change: x + c)
                effect = scored(model, tokens[:1], [into, *routed_as(clean)]) - plain
                found = data[f"expert_{part}"].sel(layer=layer, expert=expert)
                np.testing.assert_allclose(found, effect, atol=1e-12)
                compared += bool(abs(effect[0]) > 1e-9)
            whole = [written(model, cache, "expert", layer, expert) for cache in (clean, edited)]
            torch.testing.assert_close(changes.sum(0)[0], whole[1] - whole[0], atol=1e-12, rtol=0)
    assert compared > 10


@torch.no_grad()
def _expert(model: HookedGptOss, layer: int, expert: int, x: Tensor) -> Tensor:
    held = model.blocks[layer].mlp.experts
    gate_up = held.W_gate_up[expert] @ x + held.b_gate_up[expert]
    gate, up = gate_up[0::2].clamp(max=7), gate_up[1::2].clamp(-7, 7)
    return held.W_down[expert] @ ((up + 1) * gate * torch.sigmoid(1.702 * gate)) + held.b_down[expert]


def test_an_edit_that_moves_no_route_is_all_content(model: HookedGptOss, tokens: Tensor) -> None:
    data = mediation(model, tokens, [AblateHead(2, 1)], METRIC, what="set", progress=False)
    last = mediation(
        model, tokens, [Steer("blocks.2.hook_mlp_out", "v")], METRIC, {"v": torch.ones(24)}, progress=False
    )
    assert not float(abs(last.routing).max()) and not float(abs(last.interaction).max())
    np.testing.assert_array_equal(last.content, last.total)
    assert not float(abs(data.layer_routing[:, :2]).max()), "what comes before the edit is as it was"


def test_an_edit_of_the_routing_itself_is_no_mediator(model: HookedGptOss, tokens: Tensor) -> None:
    expert = int(cached(model, tokens)["blocks.1.mlp.hook_expert_indices"][0, -1, 0])
    for spec in (AblateExpert(1, expert), AblateExpert(1, expert, "zero"), ForceExpert(1, (expert + 1) % 6)):
        data = mediation(model, tokens, [spec], METRIC, by_expert=False, progress=False)
        assert data.mediates.values.tolist() == [True, False, True]
        assert not float(abs(data.layer_routing.sel(layer=[0, 1])).max())
        np.testing.assert_allclose(data.total, sum(data[part] for part in PARTS), atol=1e-13)
    final = mediation(model, tokens, [AblateExpert(2, 0)], METRIC, by_expert=False, progress=False)
    np.testing.assert_array_equal(final.content, final.total)


def test_routing_as_the_choice_alone_leaves_the_weights_to_content(
    model: HookedGptOss, tokens: Tensor, seed: int
) -> None:
    specs, sources = push(model, seed)
    data = mediation(model, tokens, specs, METRIC, sources, what="set", by_expert=False, progress=False)
    for what, run_from, edits in (("routing", "edited", ()), ("content", "clean", specs)):
        source = run(model, tokens, specs if run_from == "edited" else (), sources=sources)
        frozen = run(model, tokens, edits, sources=sources, routing="frozen_set", routing_from=source)
        effect = difference(frozen.logits[:, -1]).numpy() - data.metric[0, 0].values
        np.testing.assert_allclose(data[what], effect, atol=1e-12)


@pytest.mark.parametrize("change", ["class", "index", "both"])
@pytest.mark.parametrize("metric", ["", ", right logit"])
def test_a_planted_split_is_found(change: str, metric: str, seed: int) -> None:
    planted = compiled.routed_by_attention()
    pairs = stack(planted.pairs(8, seed, change=change))
    right, wrong = pairs.right.tolist(), pairs.wrong.tolist()

    def right_logit(logits: Tensor) -> Tensor:
        return logits.gather(1, pairs.right[:, None])[:, 0]

    measure = right_logit if metric else logit_difference(right, wrong)
    sources = {"clean": run(planted.model, pairs.clean)}
    specs = [Patch("blocks.0.hook_resid_pre", "clean")]
    data = mediation(planted.model, pairs.corrupt, specs, measure, sources, by_expert=False, progress=False)
    for part in PARTS:
        share = data[part] / data.total
        np.testing.assert_allclose(share, planted.truth.numbers[f"{change}{metric}: {part} share"], atol=1e-4)


def test_the_experts_that_carry_a_planted_split_are_named(seed: int) -> None:
    planted = compiled.routed_by_attention()
    pairs = planted.pairs(8, seed, change="class")
    tokens = stack(pairs)
    sources = {"clean": run(planted.model, tokens.clean)}
    metric = logit_difference(tokens.right.tolist(), tokens.wrong.tolist())
    specs = [Patch("blocks.0.hook_resid_pre", "clean")]
    data = mediation(planted.model, tokens.corrupt, specs, metric, sources, progress=False)
    for row in range(len(pairs)):
        involved = {int(tokens.right[row]) // 6, int(tokens.wrong[row]) // 6}
        found = data.expert_routing[row, 0]
        assert {int(i) for i in np.flatnonzero(abs(found) > 0.01)} == involved
        assert not float(abs(data.expert_content[row]).max()) > 1e-4


def test_padding_does_not_matter(model: HookedGptOss, tokens: Tensor) -> None:
    padded, mask = torch.cat((tokens[:1], torch.zeros(1, 3, dtype=torch.long)), 1), torch.arange(12)[None] < 9
    with_it = mediation(model, padded, [AblateHead(0, 1)], METRIC, attention_mask=mask, progress=False)
    without = mediation(model, tokens[:1], [AblateHead(0, 1)], METRIC, progress=False)
    for name in without.data_vars:
        np.testing.assert_allclose(with_it[name], without[name], atol=1e-12)


def test_what_cannot_be_split_is_refused(model: HookedGptOss, tokens: Tensor, tmp_path) -> None:
    with pytest.raises(ValueError, match="no interventions were given"):
        mediation(model, tokens, [], METRIC)
    with pytest.raises(ValueError, match="there is no head 9"):
        mediation(model, tokens, [AblateHead(0, 9)], METRIC)
    with pytest.raises(ValueError, match="there is no source 'clean'"):
        mediation(model, tokens, [Patch("hook_embed", "clean")], METRIC)
    data = mediation(model, tokens, [AblateHead(0, 1)], METRIC, progress=False)
    data.to_netcdf(tmp_path / "mediation.nc")
    assert not model.list_hooks()


def test_what_an_edit_of_the_experts_own_output_does_is_content(model: HookedGptOss, tokens: Tensor) -> None:
    source = run(model, tokens.flip(1), sites="all")
    expert = int(run(model, tokens)["blocks.1.mlp.hook_expert_indices"][0, -1, 0])
    spec = AblateExpert(1, expert, "mean", source="other")
    data = mediation(model, tokens, [spec], METRIC, {"other": source}, progress=False)
    np.testing.assert_allclose(data.expert_content.sel(layer=1, expert=expert), data.content, atol=1e-12)
    assert float(abs(data.content).max()) > 1e-3
    assert not data.expert_routing.sel(layer=1).any() and not data.expert_interaction.sel(layer=1).any()


def test_a_routing_that_there_is_not_is_refused(model: HookedGptOss, tokens: Tensor, as_in_a_notebook: None) -> None:
    with pytest.raises(ValueError, match="what='weights': expected one of"):
        mediation(model, tokens, [AblateHead(0, 1)], METRIC, what="weights", progress=False)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="expected a list"):
        mediation(model, tokens, AblateHead(0, 1), METRIC, progress=False)  # type: ignore[arg-type]
