"""What is saved loads back the same, in every form, whole or in shards."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.checkpoints.small import SMALL, plain_state, same_state, shapes, small_model
from workbench.checkpoints import load, save_pretrained
from workbench.model.moe import Experts
from workbench.model.mxfp4 import pack, unpack
from workbench.model.packed import PackedExperts

FORMS_IN_MEMORY = st.sampled_from(["packed", "dense"])
SHARD_SIZES = st.sampled_from([1, 5_000, 40_000, 10**9])
few = settings(max_examples=25, deadline=None)


@few
@given(shape=shapes(), shard=SHARD_SIZES, seed=st.integers(0, 2**16))
def test_the_dense_form_gives_back_every_bit_and_the_config(shape, shard, seed):
    config = SMALL.with_(**shape)
    model = small_model(config, seed)
    with tempfile.TemporaryDirectory() as folder:
        again = load(save_pretrained(model, Path(folder) / config.name, max_shard_bytes=shard))
    assert same_state(model, again)
    assert again.config == config


@few
@given(shape=shapes(packable=True), shard=SHARD_SIZES, seed=st.integers(0, 2**16), experts=FORMS_IN_MEMORY)
def test_the_packed_form_gives_back_every_bit_of_weights_that_mxfp4_can_hold(shape, shard, seed, experts):
    config = SMALL.with_(**shape)
    model = small_model(config, seed, packable=True)
    with tempfile.TemporaryDirectory() as folder:
        saved = save_pretrained(model, Path(folder) / config.name, "huggingface-mxfp4", max_shard_bytes=shard)
        again = load(saved, experts=experts)
    assert same_state(model, again)
    assert again.config == config


@few
@given(shape=shapes(packable=True), shard=SHARD_SIZES, seed=st.integers(0, 2**16), experts=FORMS_IN_MEMORY)
def test_openais_form_gives_back_every_bit_and_all_of_the_config_that_it_can_say(shape, shard, seed, experts):
    config = SMALL.with_(**shape)
    model = small_model(config, seed, packable=True)
    with tempfile.TemporaryDirectory() as folder:
        saved = save_pretrained(model, Path(folder) / config.name, "openai", max_shard_bytes=shard)
        again = load(saved, dtype=config.dtype, experts=experts)  # its config.json has no dtype
    assert same_state(model, again)
    assert again.config == config.with_(bos_token_id=None, pad_token_id=None, eos_token_ids=())


def test_weights_that_mxfp4_cannot_hold_come_back_rounded_to_it_and_nothing_else_changes(tmp_path):
    model = small_model()
    again = load(save_pretrained(model, tmp_path / "packed", "huggingface-mxfp4"))
    for name, weight in model.state_dict().items():
        packed = name.endswith(("W_gate_up", "W_down"))
        expected = unpack(*pack(weight), dtype=torch.float32) if packed else weight
        assert torch.equal(plain_state(again)[name], expected), name


def test_a_packed_model_is_saved_byte_for_byte_as_it_was_read_and_dense_without_loss(tmp_path):
    first = save_pretrained(small_model(), tmp_path / "first", "huggingface-mxfp4")
    packed = load(first)
    assert isinstance(packed.blocks[0].mlp.experts, PackedExperts)
    again = save_pretrained(packed, tmp_path / "again", "huggingface-mxfp4")
    assert (again / "model.safetensors").read_bytes() == (first / "model.safetensors").read_bytes()
    dense = load(save_pretrained(packed, tmp_path / "dense"))
    assert isinstance(dense.blocks[0].mlp.experts, Experts)
    assert same_state(dense, load(first, experts="dense"))


def test_a_model_survives_the_replacement_of_its_own_files_and_an_edit_of_a_mapped_weight_never_reaches_them(tmp_path):
    saved = save_pretrained(small_model(seed=1), tmp_path / "it", "huggingface-mxfp4")
    on_disk = (saved / "model.safetensors").read_bytes()
    model, other = load(saved), load(saved)
    with torch.no_grad():
        model.blocks[0].attn.o.weight.zero_()
    assert (saved / "model.safetensors").read_bytes() == on_disk
    assert bool(other.blocks[0].attn.o.weight.any())
    save_pretrained(small_model(seed=2), saved, "huggingface-mxfp4", overwrite=True)
    assert same_state(other, load(save_pretrained(small_model(seed=1), tmp_path / "same", "huggingface-mxfp4")))


def test_shards_count_from_zero_and_the_index_lists_every_tensor(tmp_path):
    saved = save_pretrained(small_model(), tmp_path / "sharded", max_shard_bytes=60_000)
    shards = sorted(file.name for file in saved.glob("*.safetensors"))
    last = len(shards) - 1
    assert last > 1
    assert shards == [f"model-{number:05d}-of-{last:05d}.safetensors" for number in range(last + 1)]
    index = json.loads((saved / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"].values()) == set(shards)
    assert index["metadata"]["total_size"] == 4 * SMALL.n_params


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, "bfloat16"])
def test_the_asked_dtype_wins_and_norm_gains_stay_float32(tmp_path, dtype):
    saved = save_pretrained(small_model(), tmp_path / "model")
    model = load(saved, dtype=dtype)
    asked = getattr(torch, dtype) if isinstance(dtype, str) else dtype
    gains = {weight.dtype for name, weight in model.state_dict().items() if name.endswith(".w")}
    others = {weight.dtype for name, weight in model.state_dict().items() if not name.endswith(".w")}
    assert (gains, others) == ({torch.float32}, {asked})
    assert model.config.dtype == str(asked).removeprefix("torch.")


def test_without_a_dtype_in_the_config_the_model_is_bfloat16(tmp_path):
    saved = save_pretrained(small_model(), tmp_path / "model", "openai")
    assert load(saved).cfg.dtype == torch.bfloat16


def test_a_model_saved_in_a_narrower_dtype_holds_the_rounded_weights(tmp_path):
    model = small_model()
    again = load(save_pretrained(model, tmp_path / "model", dtype="bfloat16"), dtype="float32")
    assert again.config.dtype == "float32"
    rounded = model.state_dict()["embed.weight"].bfloat16().float()
    assert torch.equal(again.state_dict()["embed.weight"], rounded)
    assert torch.equal(again.state_dict()["ln_final.w"], model.state_dict()["ln_final.w"])


def test_a_loaded_model_is_in_eval_mode_trainable_and_on_no_meta_device(tmp_path):
    model = load(save_pretrained(small_model(), tmp_path / "model"))
    assert not model.training
    assert all(weight.requires_grad and weight.device.type == "cpu" for weight in model.parameters())
    model(torch.tensor([[1, 2, 3]]), return_type="loss").backward()
    assert all(weight.grad is not None for name, weight in model.named_parameters() if "experts" not in name)
