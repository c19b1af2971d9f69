"""Attention, router, experts and block alone, against the same part of transformers and of OpenAI."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from tests.forms import DENSE, only
from tests.golden.distances import check_distances, largest, rms
from tests.golden.measured import Measured
from tests.golden.parts import Parts
from tests.golden.references import openai_code
from tests.golden.shapes import normal
from workbench.model.moe import clamped_swiglu

TOLERANCE = 1e-5  # of the stream's own size
N_TRIALS = 24
PARTS = ("attention", "experts", "block")
LAYERS = {"sliding": 0, "full": 1}


@pytest.fixture(scope="module", autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def wide(form: str, seed: int) -> list[Parts]:
    return [Parts(seed + n, torch.float32, form) for n in range(N_TRIALS // 3)]


@pytest.fixture(scope="module")
def narrow(form: str, seed: int) -> list[Parts]:
    return [Parts(seed + n, torch.bfloat16, form) for n in range(N_TRIALS)]


@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS.keys())
@pytest.mark.parametrize("part", PARTS)
def test_each_part_equals_both_references_in_float32(
    wide: list[Parts], form: str, part: str, layer: int, measured: Measured
):
    for parts in wide:
        after = getattr(parts, part)(layer)
        for reference in ("transformers", "openai"):
            distance = largest(after["ours"] - after[reference])
            measured.record_in(form, f"{part} alone, float32, max |Δ|", reference, distance)
            assert distance <= TOLERANCE * rms(after["ours"]), f"{reference}, {parts}"


@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS.keys())
@pytest.mark.parametrize("part", PARTS)
def test_each_part_is_no_farther_in_bfloat16_than_the_references_are_apart(narrow, form, part, layer, measured, seed):
    trials = [getattr(parts, part)(layer) for parts in narrow]
    check_distances(trials, form, f"{part} alone, bfloat16, rms Δ", measured, seed)


@only(DENSE)
@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS.keys())
def test_pattern_and_sink_are_those_of_transformers(wide: list[Parts], layer: int):
    largest_sink = 0.0
    for parts in wide:
        pattern, sink = parts.pattern_and_sink(layer)
        _, theirs = parts.transformers_attention(layer)
        assert largest(pattern - theirs) <= 1e-5, str(parts)
        assert largest(sink.transpose(1, 2) - (1 - theirs.sum(-1))) <= 1e-5, str(parts)
        assert largest(pattern[..., ~parts.visible(layer)]) == 0.0
        largest_sink = max(largest_sink, sink.max().item())
    assert largest_sink > 0.05, "the sinks take nothing here"


@only(DENSE)
@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS.keys())
def test_router_chooses_and_weighs_as_both_references(wide: list[Parts], layer: int):
    for parts in wide:
        block, k = parts.ours.blocks[layer], parts.config.experts_per_token
        x = block.ln2(parts.stream)
        logits = block.mlp.router(x)
        indices, weights = block.mlp.route(logits)
        their_logits, their_weights, their_indices = parts.transformers.model.layers[layer].mlp.router(x[0])
        assert torch.equal(indices[0], their_indices)  # slots too: the strongest first
        assert largest(logits[0] - their_logits) <= TOLERANCE and largest(weights[0] - their_weights) <= 1e-6
        openai = parts.openai.block[layer].mlp.gate(x[0]).topk(k, dim=-1)
        assert torch.equal(indices[0], openai.indices)
        assert largest(weights[0] - F.softmax(openai.values, dim=1)) <= 1e-6


def test_experts_equal_transformers_at_any_routes_and_weights(wide: list[Parts], seed: int):
    for parts in wide:
        config, block = parts.config, parts.ours.blocks[0]
        x = normal(seed + 1, 1, parts.n, config.d_model)
        indices = normal(seed + 2, 1, parts.n, config.n_experts).topk(config.experts_per_token).indices
        weights = normal(seed + 3, 1, parts.n, config.experts_per_token)  # no softmax: any numbers
        ours = (block.mlp.expert_outputs(x, indices) * weights[..., None]).sum(-2)
        theirs = parts.transformers.model.layers[0].mlp.experts(x[0], indices[0], weights[0])
        assert largest(ours[0] - theirs) <= 10 * TOLERANCE * rms(theirs)  # sums of terms that cancel


@only(DENSE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_clamped_swiglu_is_openais_number_for_number(wide: list[Parts], seed: int, dtype: torch.dtype):
    gate_up = (normal(seed, 400, 64) * 6).to(dtype)
    gate, up = gate_up[:, 0::2], gate_up[:, 1::2]
    assert (gate > 7).any() and (gate < -7).any() and (up > 7).any() and (up < -7).any()
    assert torch.equal(clamped_swiglu(gate, up, wide[0].config), openai_code().swiglu(gate_up, limit=7.0))
