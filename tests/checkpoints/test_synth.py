"""`synthesise` writes random weights in the published files' own form, at any moment of a crash and at any size."""

from __future__ import annotations

import json
import math
import shutil
import tracemalloc
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, GptOssForCausalLM, Mxfp4Config

from tests.checkpoints.small import SMALL, same_state
from workbench.checkpoints import CheckpointError, load, synthesise
from workbench.checkpoints.huggingface import PACKED
from workbench.checkpoints.synth import FORMS, files, numbers
from workbench.checkpoints.synth.files import plan_shards
from workbench.checkpoints.synth.scales import Normal, scales
from workbench.checkpoints.synth.tokenizer import SPECIAL, stand_in
from workbench.model.config import Config, preset
from workbench.model.mxfp4 import NAN_SCALE, unpack
from workbench.text import Chat, parse, render

# Several files, and tensors of more than one piece.
WIDE = SMALL.with_(d_model=256, d_mlp=320, n_experts=8, d_vocab=600)
SPLIT = {"max_shard_bytes": 1_000_000}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return {name: weight for file in folder.glob("*.safetensors") for name, weight in load_file(file).items()}


# ---------------------------------------------------------------- the form


@pytest.mark.parametrize(("name", "tensors", "n_bytes"), [("20b", 459, 13_761_264_768), ("120b", 687, 65_248_815_744)])
def test_the_published_sizes_come_out_tensor_for_tensor_and_byte_for_byte(name, tensors, n_bytes):
    shards = plan_shards(PACKED, preset(name), 5_000_000_000)
    planned = [tensor for shard in shards for tensor in shard.tensors]
    assert len({tensor.name for tensor in planned}) == tensors
    assert sum(tensor.n_bytes for tensor in planned) == n_bytes
    itemsize = {"BF16": 2, "U8": 1}
    assert all(tensor.n_bytes == itemsize[tensor.dtype] * math.prod(tensor.shape) for tensor in planned)
    assert [shard.file for shard in shards][:2] == [
        f"model-0000{i}-of-{len(shards) - 1:05d}.safetensors" for i in (0, 1)
    ]


def test_the_config_of_20b_has_the_published_keys_and_values(tmp_path: Path):
    synthesise(preset("20b").with_(n_layers=1, n_experts=4, d_model=64, d_mlp=32, d_vocab=201_088), tmp_path / "x")
    found = json.loads((tmp_path / "x" / "config.json").read_text())
    rope = {"beta_fast": 32.0, "beta_slow": 1.0, "factor": 32.0, "original_max_position_embeddings": 4096}
    published = {
        "architectures": ["GptOssForCausalLM"],
        "attention_bias": True,
        "attention_dropout": 0.0,
        "eos_token_id": 200002,
        "experts_per_token": 4,
        "head_dim": 64,
        "hidden_act": "silu",
        "initial_context_length": 4096,
        "initializer_range": 0.02,
        "max_position_embeddings": 131072,
        "model_type": "gpt_oss",
        "num_attention_heads": 64,
        "num_experts_per_tok": 4,
        "num_key_value_heads": 8,
        "output_router_logits": False,
        "pad_token_id": 199999,
        "rms_norm_eps": 1e-05,
        "rope_scaling": rope | {"rope_type": "yarn", "truncate": False},
        "rope_theta": 150000,
        "router_aux_loss_coef": 0.9,
        "sliding_window": 128,
        "swiglu_limit": 7.0,
        "tie_word_embeddings": False,
        "use_cache": True,
        "vocab_size": 201088,
    }
    assert found.items() >= published.items()
    # What is left: the sizes that were made small here, and the quantisation.
    sizes = {"hidden_size", "intermediate_size", "num_hidden_layers", "num_local_experts", "layer_types"}
    assert found.keys() - published.keys() == sizes | {"quantization_config"}
    assert found["quantization_config"]["quant_method"] == "mxfp4"


def test_a_file_is_what_the_safetensors_package_writes_of_the_same_tensors(tmp_path: Path):
    file = synthesise(SMALL, tmp_path / "x") / "model.safetensors"
    save_file(load_file(file), tmp_path / "theirs.safetensors", metadata={"format": "pt"})
    assert (tmp_path / "theirs.safetensors").read_bytes() == file.read_bytes()


def test_both_forms_hold_the_same_weights(tmp_path: Path):
    ours = [load(synthesise(SMALL, tmp_path / form, form=form), experts="dense") for form in FORMS]
    assert same_state(*ours)


def test_fewer_experts_are_the_first_ones_of_more(tmp_path: Path):
    few, many = (
        weights_of(synthesise(WIDE.with_(n_experts=n), tmp_path / str(n)))[
            "model.layers.1.mlp.experts.down_proj_blocks"
        ]
        for n in (4, 8)
    )
    assert torch.equal(few, many[:4])


# ---------------------------------------------------------------- determinism, and going on after a crash


def test_one_seed_gives_one_checkpoint_and_another_seed_another(tmp_path: Path):
    first, again, other = (contents(synthesise(SMALL, tmp_path / str(i), seed=s)) for i, s in enumerate((7, 7, 8)))
    assert first == again
    a, b = weights_of(tmp_path / "0"), weights_of(tmp_path / "2")
    assert first["model.safetensors"] != other["model.safetensors"]
    assert not any(torch.equal(a[name], b[name]) for name in a)


def test_no_two_tensors_share_their_numbers(tmp_path: Path):
    found = weights_of(synthesise(SMALL, tmp_path / "x"))
    beginnings = [
        bytes(weight.view(torch.uint8).reshape(-1)[:64].tolist()) for weight in found.values() if weight.numel() > 99
    ]
    assert len(set(beginnings)) == len(beginnings)


def test_the_bytes_are_the_same_on_every_machine_and_with_every_numpy():
    # Pinned: whoever changes them must raise folder.RECIPE, or an unfinished folder would mix two recipes.
    made = numbers.piece(0, "blocks.0.attn.q.weight", 3, numbers.bfloat16_table(Normal(0.02)), 12)
    packed = numbers.piece(0, "blocks.0.mlp.experts.W_down.blocks", 0, numbers.code_table(), 8)
    scale = numbers.piece(0, "blocks.0.mlp.experts.W_down.scales", 0, numbers.scale_table(0.02), 8)
    assert made.tobytes().hex() == "3c3d3fbd96bca1bc8dbc21bc"
    assert packed.tobytes().hex() == "13509b242430a144"
    assert scale.tobytes().hex() == "7778787878787879"


class Killed(BaseException):
    """Nothing in the code under test catches this."""


@pytest.mark.parametrize("after", [0, 1, 5, 11, 22])
def test_a_run_that_was_killed_goes_on_and_ends_with_the_same_bytes(tmp_path: Path, monkeypatch, after: int):
    whole = contents(synthesise(WIDE, tmp_path / "whole", **SPLIT))
    assert sum(name.endswith(".safetensors") for name in whole) > 2
    made = iter(range(after))

    def piece(*arguments):
        if next(made, None) is None:
            raise Killed
        return numbers.piece(*arguments)

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(files, "piece", piece)
        synthesise(WIDE, tmp_path / "killed", **SPLIT)
    left = contents(tmp_path / "killed")
    assert any(name.endswith(".partial") for name in left)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        load(tmp_path / "killed")
    # What was finished is not made again.
    stamps = {name: (tmp_path / "killed" / name).stat().st_mtime_ns for name in left if name.endswith("safetensors")}
    assert contents(synthesise(WIDE, tmp_path / "killed", **SPLIT)) == whole
    assert stamps == {name: (tmp_path / "killed" / name).stat().st_mtime_ns for name in stamps}


@pytest.mark.parametrize("damage", ["cut off", "zeros at the end", "a flipped bit", "too long"])
def test_what_a_crash_left_damaged_is_repaired(tmp_path: Path, damage: str):
    whole = contents(synthesise(WIDE, tmp_path / "x"))
    data = bytearray(whole["model.safetensors"])
    if damage == "cut off":
        data = data[: len(data) // 2 - 7]
    elif damage == "zeros at the end":
        data[len(data) // 2 :] = bytes(len(data) - len(data) // 2)
    elif damage == "a flipped bit":
        data[len(data) // 3] ^= 4
    else:
        data += b"rubbish"
    (tmp_path / "x" / "model.safetensors").unlink()
    (tmp_path / "x" / "model.safetensors.partial").write_bytes(data)
    assert contents(synthesise(WIDE, tmp_path / "x")) == whole


def test_memory_does_not_grow_with_the_checkpoint(tmp_path: Path):
    synthesise(SMALL, tmp_path / "first")  # the tables
    tracemalloc.start()
    folder = synthesise(SMALL.with_(d_vocab=200_000), tmp_path / "x")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (folder / "model.safetensors").stat().st_size > 50_000_000
    assert peak < 8_000_000


# ---------------------------------------------------------------- what it refuses


def test_a_full_disk_is_one_message_before_anything_is_written(tmp_path: Path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**12, 0, 60_000_000))
    with pytest.raises(CheckpointError, match=r"needs 13\.76 GB more and its disk has 0\.06 GB free: .*fewer layers"):
        synthesise("20b", tmp_path / "x" / "y")
    assert not list(tmp_path.iterdir())
    synthesise(SMALL, tmp_path / "x" / "y")  # the advice can be followed, in the same place


@pytest.mark.parametrize("name", ["config.json", "notes.txt", "model.safetensors"])
def test_a_folder_with_anything_else_in_it_is_left_alone(tmp_path: Path, name: str):
    (tmp_path / name).write_text("mine")
    with pytest.raises(CheckpointError, match="did not make, so it is left alone: give another path"):
        synthesise(SMALL, tmp_path)
    assert contents(tmp_path) == {name: b"mine"}


def test_a_file_in_the_folders_place_is_refused(tmp_path: Path):
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(CheckpointError, match="is a file: a checkpoint is a folder"):
        synthesise(SMALL, tmp_path / "taken")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, r"differs in seed \(0 there, 1 asked\)"),
        ({"form": "openai"}, r"differs in form \('huggingface-mxfp4' there, 'openai' asked\)"),
        ({"shape": SMALL.with_(n_experts=5)}, r"differs in n_experts \(4 there, 5 asked\)"),
    ],
)
def test_the_work_of_other_options_is_refused_and_the_difference_named(tmp_path: Path, change, message: str):
    before = contents(synthesise(SMALL, tmp_path / "x"))
    with pytest.raises(CheckpointError, match=message):
        synthesise(**{"shape": SMALL, "path": tmp_path / "x", **change})
    assert contents(tmp_path / "x") == before


def test_a_finished_folder_is_left_as_the_user_changed_it(tmp_path: Path):
    folder = synthesise(SMALL.with_(d_vocab=300), tmp_path / "x")
    stand_in(265).save(folder)
    (folder / "README.md").write_text("mine")
    before = contents(folder)
    synthesise(SMALL.with_(d_vocab=300), folder)
    assert contents(folder) == before


def test_a_shape_that_mxfp4_cannot_hold_is_refused_before_anything_is_written(tmp_path: Path):
    with pytest.raises(CheckpointError, match="d_model=48: expected a multiple of 32"):
        synthesise(SMALL.with_(d_model=48), tmp_path / "x")
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------- the numbers


@pytest.mark.parametrize("std", [0.0131, 0.0186, 0.0256, 1.0])
def test_packed_weights_have_the_spread_that_was_asked_for_and_look_normal(std: float):
    n_blocks = 1 << 14
    blocks = torch.from_numpy(numbers.piece(0, "a", 0, numbers.code_table(), 16 * n_blocks)).view(-1, 16)
    scale = torch.from_numpy(numbers.piece(0, "b", 0, numbers.scale_table(std), n_blocks))
    weights = unpack(blocks, scale, torch.float32).double()
    assert float(weights.std()) == pytest.approx(std, rel=0.02)
    assert abs(float(weights.mean())) < 4 * std / math.sqrt(weights.numel())
    assert 0.6 < float((weights.abs() < std).double().mean()) < 0.8  # 0.68 for a normal
    assert float((weights.abs() < 5 * std).double().mean()) > 0.999
    assert int(scale.max()) < NAN_SCALE
    assert len(set(scale.tolist())) >= 3
    low, high = weights[0::2], weights[1::2]
    assert abs(float(torch.corrcoef(torch.stack((low, high)))[0, 1])) < 0.01


def test_dense_weights_are_normal_to_the_last_bit_of_bfloat16():
    table = torch.from_numpy(numbers.bfloat16_table(Normal(0.1, mean=1.0)).astype("int32")).to(torch.int16)
    values = table.view(torch.bfloat16).float()
    uniform = (torch.arange(65536, dtype=torch.float64) + 0.5) / 65536
    expected = (1 + 0.1 * torch.special.ndtri(uniform)).to(torch.bfloat16).float()
    assert torch.equal(values.sort().values, expected.sort().values)


def test_each_parameter_has_its_scale():
    assert scales(SMALL).keys() == {name.split(".", 2)[2] if "blocks" in name else name for name in SMALL.shapes()}


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory):
    """A deep model: its logits and activations for 128 random tokens."""
    shape = {"n_layers": 24, "d_model": 128, "d_mlp": 128, "n_heads": 8, "n_key_value_heads": 2, "d_vocab": 1024}
    config = Config(name="deep", **shape)
    model = load(synthesise(config, tmp_path_factory.mktemp("deep") / "x"), dtype="float32", experts="dense")
    tokens = torch.randint(0, config.d_vocab, (1, 128), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return config, *model.run_with_cache(tokens)


def size(x: torch.Tensor) -> float:
    return float(x.float().pow(2).mean().sqrt())


def test_the_stream_stays_finite_and_grows_little_over_24_layers(deep):
    config, logits, cache = deep
    assert bool(torch.isfinite(logits).all())
    assert 1.0 < float(logits.std()) < 3.0
    streams = [size(cache[f"blocks.{layer}.hook_resid_post"]) for layer in range(config.n_layers)]
    assert streams == sorted(streams)
    assert 1.2 < streams[-1] < 2.0


def test_attention_and_experts_write_about_as_much(deep):
    config, _, cache = deep
    for layer in range(config.n_layers):
        ratio = size(cache[f"blocks.{layer}.hook_attn_out"]) / size(cache[f"blocks.{layer}.hook_mlp_out"])
        assert 0.5 < ratio < 2.0


def test_attention_is_neither_even_nor_one_hot_and_sinks_differ(deep):
    config, _, cache = deep
    effective, sinks = [], []
    for layer in range(config.n_layers):
        row = cache[f"blocks.{layer}.attn.hook_pattern"][0, :, -1]
        effective.append(row.sum(-1) ** 2 / row.pow(2).sum(-1))
        sinks.append(cache[f"blocks.{layer}.attn.hook_sink"][0, -1])
    assert 4 < float(torch.cat(effective).median()) < 40  # of 128 keys
    low, middle, high = torch.cat(sinks).quantile(torch.tensor([0.05, 0.5, 0.95])).tolist()
    assert low < 0.05 < middle < 0.3 < high < 0.95


def test_a_prompt_of_128_tokens_reaches_nearly_every_expert_of_every_layer(deep):
    config, _, cache = deep
    load = torch.stack(
        [
            torch.bincount(cache[f"blocks.{layer}.mlp.hook_expert_indices"].flatten(), minlength=config.n_experts)
            for layer in range(config.n_layers)
        ]
    )
    assert int((load == 0).sum()) <= 3  # of 768
    assert int(load.max()) < 64  # the even share is 16
    strongest = torch.cat([cache[f"blocks.{layer}.mlp.hook_expert_weights"][0, :, 0] for layer in range(24)])
    assert 0.3 < float(strongest.mean()) < 0.7


# ---------------------------------------------------------------- others read it


@torch.no_grad()
@pytest.mark.parametrize("form", list(FORMS))
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-4), ("bfloat16", 0.1)])
def test_transformers_and_we_get_the_same_logits(tmp_path: Path, form: str, dtype: str, tolerance: float):
    """transformers reads one form only; of OpenAI's, ours is compared with what it reads of the other."""
    shape = SMALL.with_(d_vocab=600)
    theirs = GptOssForCausalLM.from_pretrained(
        synthesise(shape, tmp_path / "theirs"),
        dtype=getattr(torch, dtype),
        attn_implementation="eager",
        quantization_config=Mxfp4Config(dequantize=True),
    ).eval()
    ours = load(synthesise(shape, tmp_path / "ours", form=form), dtype=dtype)
    tokens = torch.randint(0, 600, (2, 40), generator=torch.Generator().manual_seed(0))
    a, b = theirs(tokens).logits.float(), ours(tokens).float()
    assert 1.0 < float(b.std()) < 3.0
    assert float((a - b).pow(2).mean().sqrt()) < tolerance


# ---------------------------------------------------------------- the stand-in for a tokenizer


@pytest.mark.parametrize(("d_vocab", "ids"), [(201_088, SPECIAL), (1024, dict(zip(SPECIAL, range(9), strict=True)))])
def test_the_stand_in_reads_every_text_byte_by_byte_and_knows_the_special_tokens(d_vocab: int, ids: dict[str, int]):
    tokenizer = stand_in(d_vocab)
    text = "naïve Ω 東京 👩‍🚀\n\t x = 1"
    tokens = tokenizer.encode(text)
    assert len(tokens) == len(text.encode())
    assert tokenizer.decode(tokens) == text
    assert b"".join(map(tokenizer.token_bytes, tokens)) == text.encode()
    assert tokenizer.special == ids
    assert not set(tokens) & set(ids.values())
    assert max([*tokens, *ids.values()]) < d_vocab


def test_a_chat_goes_through_the_stand_in_and_back():
    tokenizer = stand_in(201_088)
    chat = Chat().user("Where is Mia?").assistant("In the park.")
    tokens = render(chat, tokenizer, add_generation_prompt=False)
    assert {200_006, 200_007, 200_008} < set(tokens)
    assert parse(tokens, tokenizer).messages[-1].text == chat.messages[-1].text


@torch.no_grad()
def test_a_written_model_takes_text_and_ends_where_its_special_tokens_say(tmp_path: Path):
    folder = synthesise(SMALL.with_(d_vocab=600), tmp_path / "x")
    model = load(folder)
    assert model("Hello").shape[1:] in {(5, 600), (6, 600)}
    special = model.tokenizer.special
    ends = [special[name] for name in ("<|return|>", "<|endoftext|>", "<|call|>")]
    assert sorted(model.config.eos_token_ids) == sorted(ends)
    assert AutoTokenizer.from_pretrained(folder).encode("Hellö<|end|>") == model.tokenizer.encode("Hellö<|end|>")


def test_a_vocabulary_too_small_for_bytes_gets_no_tokenizer_and_the_card_says_so(tmp_path: Path):
    folder = synthesise(SMALL, tmp_path / "x")
    assert load(folder).tokenizer is None
    assert "There is none: 96 ids are too few" in (folder / "README.md").read_text()


def test_the_card_says_plainly_what_this_is(tmp_path: Path):
    card = (synthesise(SMALL.with_(d_vocab=600), tmp_path / "x") / "README.md").read_text()
    assert "random numbers, nothing was trained" in card
    assert "stand-in, not gpt-oss' tokenizer" in card
