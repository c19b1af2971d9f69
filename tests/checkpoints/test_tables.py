"""The name tables against figures of the real checkpoints, which nobody here computed from the tables."""

from __future__ import annotations

import math

import pytest

from workbench.checkpoints import huggingface, openai
from workbench.checkpoints.tables import evaluate, sizes_of
from workbench.model.config import GPT_OSS_20B, GPT_OSS_120B

TABLES = {"dense": huggingface.DENSE, "packed": huggingface.PACKED, "openai": openai.PACKED}


def stored_bytes(table, config) -> int:
    sizes = sizes_of(config)
    width = {"U8": 1, "BF16": 2}
    stored = table.stored(config.n_layers).values()
    return sum(math.prod(tensor.shape(sizes)) * width[tensor.dtypes[0]] for tensor in stored)


@pytest.mark.parametrize("form", ["packed", "openai"])
@pytest.mark.parametrize(("config", "n_bytes"), [(GPT_OSS_20B, 13_761_264_768), (GPT_OSS_120B, 65_248_815_744)])
def test_the_packed_forms_have_the_published_size(form, config, n_bytes):
    assert stored_bytes(TABLES[form], config) == n_bytes


@pytest.mark.parametrize(("config", "n_tensors"), [(GPT_OSS_20B, 459), (GPT_OSS_120B, 687)])
def test_the_hugging_face_form_has_the_published_number_of_tensors(config, n_tensors):
    assert len(huggingface.PACKED.stored(config.n_layers)) == n_tensors


@pytest.mark.parametrize("config", [GPT_OSS_20B, GPT_OSS_120B])
def test_the_dense_form_holds_every_parameter_once(config):
    assert stored_bytes(huggingface.DENSE, config) == 2 * config.n_params


@pytest.mark.parametrize("form", TABLES)
def test_each_table_names_every_parameter_of_ours_exactly_once(form):
    ours = [row.ours for row in TABLES[form].expanded(GPT_OSS_20B.n_layers)]
    assert len(ours) == len(set(ours))
    assert set(ours) == GPT_OSS_20B.shapes().keys()


@pytest.mark.parametrize("form", TABLES)
def test_each_row_gives_our_shape_after_its_layout(form):
    sizes = sizes_of(GPT_OSS_120B)
    for row in TABLES[form].expanded(1):
        shape = [evaluate(axis, sizes) for axis in row.shape.split()]
        if row.layout == "transposed":
            shape[1:] = reversed(shape[1:])
        if row.part:
            shape[0] = evaluate(row.part[1], sizes) - evaluate(row.part[0], sizes)
        assert tuple(shape) == GPT_OSS_120B.shapes()[row.ours]


def test_some_shapes_of_the_20b_as_published():
    hugging, original = huggingface.PACKED.stored(24), openai.PACKED.stored(24)
    sizes = sizes_of(GPT_OSS_20B)
    published = {
        "model.layers.23.mlp.experts.gate_up_proj_blocks": [32, 5760, 90, 16],
        "model.layers.23.mlp.experts.down_proj_scales": [32, 2880, 90],
        "model.layers.0.self_attn.k_proj.weight": [512, 2880],
        "lm_head.weight": [201_088, 2880],
    }
    assert {name: hugging[name].shape(sizes) for name in published} == published
    assert original["block.7.attn.qkv.weight"].shape(sizes) == [5120, 2880]
    assert original["block.7.mlp.mlp1_weight.blocks"].shape(sizes) == [32, 5760, 90, 16]
