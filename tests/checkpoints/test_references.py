"""Both references read what we write, and we read what they write."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import AutoTokenizer, GptOssConfig, GptOssForCausalLM

from tests.checkpoints.small import ROPE, SMALL, small_model
from tests.fetch import openai_code_directory
from workbench.checkpoints import load, save_pretrained
from workbench.checkpoints.configs import read_config
from workbench.text import Tokenizer

TOLERANCE = 1e-4  # of float32 logits of order 1


def their_config(**changes) -> GptOssConfig:
    rope = {"rope_type": "yarn", "rope_theta": 10_000.0, "factor": 16.0, "original_max_position_embeddings": 256}
    sizes = {
        "num_hidden_layers": 2,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "vocab_size": 96,
        "hidden_size": 64,
        "intermediate_size": 32,
        "head_dim": 16,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "sliding_window": 8,
        "max_position_embeddings": 4096,
        "rope_parameters": rope | {"truncate": False},
    }
    return GptOssConfig(**(sizes | changes), attn_implementation="eager")


def their_model(seed: int, **changes) -> GptOssForCausalLM:
    torch.manual_seed(seed)
    model = GptOssForCausalLM(their_config(**changes)).eval()
    for weight in model.parameters():  # theirs starts with zero biases and tiny weights, which would hide a mistake
        torch.nn.init.normal_(weight, std=0.5 if weight.ndim == 1 else weight.shape[-1] ** -0.5)
    return model


def tokens(seed: int) -> torch.Tensor:
    return torch.randint(0, 96, (2, 40), generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def their_logits(path, seed: int) -> torch.Tensor:
    return GptOssForCausalLM.from_pretrained(path, attn_implementation="eager").eval()(tokens(seed)).logits


@torch.no_grad()
@pytest.mark.parametrize("shard", ["50KB", "5GB"])
def test_we_load_what_transformers_saved(tmp_path, seed, shard):
    theirs = their_model(seed)
    theirs.save_pretrained(tmp_path, max_shard_size=shard)
    difference = load(tmp_path)(tokens(seed)) - theirs(tokens(seed)).logits
    assert difference.abs().max() < TOLERANCE


def test_we_load_what_transformers_saved_in_bfloat16_bit_for_bit(tmp_path, seed):
    theirs = their_model(seed).to(torch.bfloat16)
    theirs.save_pretrained(tmp_path)
    ours, weights = load(tmp_path), theirs.state_dict()
    assert ours.cfg.dtype == torch.bfloat16
    for layer, block in enumerate(ours.blocks):
        experts = block.mlp.experts
        for name, weight in (("gate_up_proj", experts.W_gate_up), ("down_proj", experts.W_down)):
            assert torch.equal(weights[f"model.layers.{layer}.mlp.experts.{name}"].transpose(1, 2), weight)
    assert torch.equal(weights["lm_head.weight"], ours.unembed.weight)


@torch.no_grad()
@pytest.mark.parametrize("form", ["huggingface", "huggingface-mxfp4"])
@pytest.mark.parametrize("shard", [60_000, 10**9])
def test_transformers_loads_what_we_saved_with_the_same_logits(tmp_path, seed, form, shard):
    model = small_model(seed=seed, packable=True)
    saved = save_pretrained(model, tmp_path / "ours", form, max_shard_bytes=shard)
    assert (their_logits(saved, seed) - model(tokens(seed))).abs().max() < TOLERANCE


@torch.no_grad()
def test_transformers_saving_again_what_we_saved_gives_identical_logits(tmp_path, seed):
    first = save_pretrained(small_model(seed=seed), tmp_path / "ours")
    GptOssForCausalLM.from_pretrained(first).save_pretrained(tmp_path / "theirs")
    assert torch.equal(load(tmp_path / "theirs")(tokens(seed)), load(first)(tokens(seed)))


def test_transformers_reads_the_same_config_and_end_tokens(tmp_path):
    saved = save_pretrained(small_model(), tmp_path / "ours")
    theirs = GptOssForCausalLM.from_pretrained(saved)
    expected = their_config().rope_parameters | {"beta_fast": 32.0, "beta_slow": 1.0}
    assert theirs.config.rope_parameters == expected
    assert (theirs.generation_config.eos_token_id, theirs.generation_config.pad_token_id) == ([2, 1], 1)
    assert (theirs.config.sliding_window, theirs.config.num_local_experts) == (8, 4)


@torch.no_grad()
def test_openais_reader_finds_the_same_weights_in_what_we_saved(tmp_path, seed, monkeypatch):
    monkeypatch.syspath_prepend(openai_code_directory())
    from gpt_oss.torch.model import Transformer

    saved = save_pretrained(small_model(seed=seed, packable=True), tmp_path / "ours", "openai", dtype="bfloat16")
    theirs, ours = Transformer.from_checkpoint(str(saved), device="cpu"), load(saved, experts="dense")
    for layer, block in enumerate(ours.blocks):
        attention, experts = theirs.block[layer].attn, theirs.block[layer].mlp
        fused = torch.cat((block.attn.q.weight, block.attn.k.weight, block.attn.v.weight))
        assert torch.equal(attention.qkv.weight, fused)
        assert torch.equal(experts.mlp1_weight, block.mlp.experts.W_gate_up)
        assert torch.equal(experts.mlp2_weight, block.mlp.experts.W_down)
        assert torch.equal(attention.norm.scale, block.ln1.w)
        assert torch.equal(experts.norm.scale, block.ln2.w)
    assert torch.equal(theirs.unembedding.weight, ours.unembed.weight)


@pytest.mark.parametrize("key", ["rope_parameters", "rope_scaling"])
def test_both_spellings_of_rope_read_alike(tmp_path, key):
    saved = save_pretrained(small_model(), tmp_path / "ours")
    values = json.loads((saved / "config.json").read_text())
    rope = values.pop("rope_parameters")
    if key == "rope_scaling":  # transformers 4 keeps theta outside
        values["rope_theta"] = rope.pop("rope_theta")
    (saved / "config.json").write_text(json.dumps(values | {key: rope}))
    assert read_config(saved, "small")[0].rope == ROPE
    theirs = GptOssConfig.from_pretrained(saved).rope_parameters
    assert theirs["rope_theta"] == 10_000.0 and theirs["factor"] == 16.0


def test_a_rope_left_out_or_without_truncate_is_what_transformers_makes_of_it(tmp_path):
    saved = save_pretrained(small_model(), tmp_path / "ours")
    file = saved / "config.json"
    values = json.loads(file.read_text())
    del values["rope_parameters"]["truncate"]
    values["rope_parameters"]["beta_fast"] = 16.0  # with these, rounding keeps the corners apart
    values["head_dim"] = 64
    file.write_text(json.dumps(values))
    assert read_config(saved, "small")[0].rope.truncate  # transformers: `rope_parameters.get("truncate", True)`
    del values["rope_parameters"]
    file.write_text(json.dumps(values))
    theirs, rope = GptOssConfig.from_pretrained(saved).rope_parameters, read_config(saved, "small")[0].rope
    assert not theirs["truncate"] and not rope.truncate
    assert (rope.theta, rope.factor, rope.original_context, rope.beta_fast, rope.beta_slow) == (
        theirs["rope_theta"],
        theirs["factor"],
        theirs["original_max_position_embeddings"],
        theirs["beta_fast"],
        theirs["beta_slow"],
    )


def test_the_tokenizer_and_its_template_travel_with_the_model(tmp_path):
    from tokenizers import Tokenizer as Backend
    from tokenizers import models, pre_tokenizers

    backend = Backend(models.WordLevel({"<|return|>": 0, "<|endoftext|>": 1, "mia": 2, "?": 3}, unk_token="?"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.add_special_tokens(["<|return|>", "<|endoftext|>"])
    model = small_model()
    model.tokenizer = Tokenizer(backend, {"eos_token": "<|return|>"}, chat_template="{{ messages[0].content }}")
    again = load(save_pretrained(model, tmp_path / "ours"))
    assert again.tokenizer is not None
    assert again.tokenizer.encode("mia ?") == [2, 3]
    assert again.tokenizer.chat_template == model.tokenizer.chat_template
    theirs = AutoTokenizer.from_pretrained(tmp_path / "ours")
    assert theirs("mia ?").input_ids == [2, 3]
    assert theirs.apply_chat_template([{"role": "user", "content": "mia"}], tokenize=False) == "mia"
    original = load(save_pretrained(model, tmp_path / "openai", "openai"))
    assert original.config.eos_token_ids == (0, 1), "OpenAI's config has no ids: they come from the tokenizer"
    assert SMALL.eos_token_ids == again.config.eos_token_ids
