"""Rotary embedding and RMSNorm alone, against transformers and OpenAI."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from transformers.models.gpt_oss import modeling_gpt_oss as transformers_code

from tests.golden.distances import largest
from tests.golden.references import openai_code, transformers_config
from tests.golden.shapes import normal, random_shape
from workbench.model import GPT_OSS_20B, NANO, Config, Rope
from workbench.model.norm import RMSNorm
from workbench.model.rope import cos_sin, inverse_frequencies, rotate


def random_ropes(seed: int, n: int) -> list[Config]:
    return [random_shape(seed + i) for i in range(n)]


def openai_rope(config: Config):
    rope = config.rope
    return openai_code().RotaryEmbedding(
        config.d_head, rope.theta, torch.float32, rope.original_context, rope.factor, rope.beta_slow, rope.beta_fast
    )


def one_ulp(frequencies: Tensor, expected: Tensor) -> bool:
    return torch.allclose(frequencies, expected, rtol=1.2e-7, atol=0)


def test_inverse_frequencies_and_concentration_are_those_of_both_references(seed: int):
    for config in [GPT_OSS_20B, NANO, *random_ropes(seed, 40)]:
        frequencies = inverse_frequencies(config.rope, config.d_head)
        transformers = transformers_code.GptOssRotaryEmbedding(transformers_config(config))
        concentration, openai = openai_rope(config)._compute_concentration_and_inv_freq()
        assert one_ulp(frequencies, transformers.inv_freq) and one_ulp(frequencies, openai), config
        assert config.rope.concentration == pytest.approx(concentration, rel=1e-12)
        assert config.rope.concentration == pytest.approx(transformers.attention_scaling, rel=1e-12)


def test_whole_corners_are_those_of_transformers(seed: int):
    draw = random.Random(seed)
    for _ in range(20):
        rope = Rope(draw.uniform(5_000, 20_000), 16.0, draw.randint(400, 900), truncate=True)
        config = NANO.with_(rope=rope, d_head=draw.choice([64, 128]), n_ctx=16 * rope.original_context)
        transformers = transformers_code.GptOssRotaryEmbedding(transformers_config(config))
        frequencies = inverse_frequencies(rope, config.d_head)
        assert one_ulp(frequencies, transformers.inv_freq), rope
        plain = inverse_frequencies(replace(rope, truncate=False), config.d_head)
        assert not torch.allclose(frequencies, plain, rtol=1e-3, atol=0), "truncate makes no difference here"


def test_factor_one_is_plain_rope_in_all_three(seed: int):
    for config in random_ropes(seed, 5):
        plain = config.with_(rope=replace(config.rope, factor=1.0))
        frequencies = inverse_frequencies(plain.rope, plain.d_head)
        concentration, openai = openai_rope(plain)._compute_concentration_and_inv_freq()
        assert one_ulp(frequencies, transformers_code.GptOssRotaryEmbedding(transformers_config(plain)).inv_freq)
        assert one_ulp(frequencies, openai)
        assert concentration == plain.rope.concentration == 1.0


def test_turns_of_gpt_oss_are_those_of_both_references_over_its_whole_context(measured):
    config = GPT_OSS_20B
    positions = torch.arange(config.n_ctx)[None]
    ours = cos_sin(config.rope, config.d_head, positions)
    transformers = transformers_code.GptOssRotaryEmbedding(transformers_config(config))(torch.zeros(1), positions)
    openai = openai_rope(config)._compute_cos_sin(config.n_ctx)
    assert config.rope.concentration == pytest.approx(1.34657, abs=5e-6)  # gpt-oss, factor 32
    for mine, first, second in zip(ours, transformers, openai, strict=True):
        measured.record("rope: cos and sin up to position 131,071, max |Δ|", "transformers", largest(mine - first))
        measured.record("rope: cos and sin up to position 131,071, max |Δ|", "openai", largest(mine[0] - second))
        # One unit in the last place of a frequency turns by 0.008 at the last position.
        assert largest(mine - first) <= 1e-5 and largest(mine[0] - second) <= 1e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rotation_is_that_of_both_references(seed: int, dtype: torch.dtype):
    for config in random_ropes(seed, 5):
        x = normal(seed, 1, 30, 4, config.d_head).to(dtype)
        cos, sin = cos_sin(config.rope, config.d_head, torch.arange(30)[None])
        ours = rotate(x, cos, sin)
        by_head = x.transpose(1, 2)
        transformers, _ = transformers_code.apply_rotary_pos_emb(by_head, by_head, cos.to(dtype), sin.to(dtype))
        assert torch.equal(ours, transformers.transpose(1, 2))
        assert torch.equal(ours[0], openai_code()._apply_rotary_emb(x[0], cos[0], sin[0]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 300.0])
def test_norm_is_that_of_both_references(seed: int, dtype: torch.dtype, scale: float):
    x, gain = (normal(seed, 200, 96) * scale).to(dtype), 1 + 0.3 * normal(seed + 1, 96)
    ours, first = RMSNorm(96, 1e-5), transformers_code.GptOssRMSNorm(96, 1e-5)
    second = openai_code().RMSNorm(96)
    for weight in (ours.w, first.weight, second.scale):
        weight.data.copy_(gain)
    mine = ours(x)
    assert mine.dtype == dtype
    for name, theirs in (("transformers", first(x)), ("openai", second(x))):
        # x · rsqrt(…) and x / sqrt(…) differ in float32's last bit, and may round to neighbours in bfloat16.
        step = torch.finfo(dtype).eps * (4 if dtype == torch.float32 else 1)
        assert largest((mine - theirs) / theirs.abs().clamp(min=1e-3)) <= step, f"{name}, seed {seed}"
        if dtype == torch.bfloat16:
            assert (mine != theirs).float().mean() <= 1e-3, f"{name}, seed {seed}"
