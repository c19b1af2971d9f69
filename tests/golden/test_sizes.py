"""The presets have gpt-oss' own sizes."""

from __future__ import annotations

import pytest
import torch
from transformers import GptOssConfig, GptOssForCausalLM

from tests.golden.references import transformers_config, transformers_name
from workbench.model import GPT_OSS_20B, GPT_OSS_120B, HookedGptOss, preset

# parameters; tensors and bytes of the MXFP4 checkpoint (the model card, arXiv 2508.10925; the checkpoints' indices)
PUBLISHED = {
    "gpt-oss-20b": (20_914_757_184, 459, 13_761_264_768),
    "gpt-oss-120b": (116_829_156_672, 687, 65_248_815_744),
}
ACTIVE = {"gpt-oss-20b": 3.61e9, "gpt-oss-120b": 5.13e9}

SAME_AS_THEIR_DEFAULT = """
    num_hidden_layers num_local_experts num_experts_per_tok vocab_size hidden_size intermediate_size head_dim
    num_attention_heads num_key_value_heads sliding_window layer_types max_position_embeddings rms_norm_eps
""".split()


def on_meta(config: GptOssConfig) -> GptOssForCausalLM:
    """transformers' model of this shape, without storage."""
    with torch.device("meta"):
        return GptOssForCausalLM(config)


@pytest.fixture(scope="module", params=PUBLISHED)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def theirs(name: str) -> GptOssForCausalLM:
    return on_meta(transformers_config(preset(name)))


def test_parameters_are_as_many_as_published_and_as_in_transformers(name: str, theirs: GptOssForCausalLM):
    published, *_ = PUBLISHED[name]
    assert preset(name).n_params == published
    assert sum(parameter.numel() for parameter in theirs.parameters()) == published


def test_every_parameter_has_the_shape_it_has_in_transformers(name: str, theirs: GptOssForCausalLM):
    shapes = {key: tuple(parameter.shape) for key, parameter in theirs.named_parameters()}
    for ours, shape in preset(name).shapes().items():
        their_name, swapped = transformers_name(ours)
        expected = (*shape[:-2], shape[-1], shape[-2]) if swapped else shape
        assert shapes.pop(their_name) == expected, ours
    assert not shapes


def test_the_model_has_the_shapes_that_its_config_says(name: str):
    config = preset(name)
    model = HookedGptOss(config, device="meta")
    assert {key: tuple(value.shape) for key, value in model.state_dict().items()} == config.shapes()


def test_the_checkpoint_has_as_many_tensors_as_published(name: str):
    config = preset(name)
    # Two expert matrices a layer are stored as blocks and scales.
    assert len(config.shapes()) + 2 * config.n_layers == PUBLISHED[name][1]


def test_the_model_with_packed_experts_holds_the_tensors_and_bytes_of_the_checkpoint(name: str):
    state = HookedGptOss(preset(name), device="meta", experts="packed").state_dict()
    _, n_tensors, n_bytes = PUBLISHED[name]
    wider = 2 * sum(value.numel() for value in state.values() if value.dtype == torch.float32)  # gains, stored as bf16
    assert len(state) == n_tensors
    assert sum(value.nbytes for value in state.values()) == n_bytes + wider
    assert {key for key, value in state.items() if value.dtype == torch.float32} == {
        key for key in state if key.endswith((".ln1.w", ".ln2.w")) or key == "ln_final.w"
    }


def test_active_parameters_are_those_of_the_model_card(name: str):
    # The card counts the unembedding but not the embedding: three digits of it.
    config = preset(name)
    assert config.n_active_params == pytest.approx(ACTIVE[name], rel=2e-3)


def test_the_default_shape_of_transformers_is_ours_of_120b():
    theirs = GptOssConfig()
    ours = transformers_config(GPT_OSS_120B)
    for field in SAME_AS_THEIR_DEFAULT:
        assert getattr(theirs, field) == getattr(ours, field), field
    assert theirs.rope_parameters == ours.rope_parameters
    assert GPT_OSS_20B.with_(n_layers=36, n_experts=128, name="gpt-oss-120b") == GPT_OSS_120B
