"""Every fault of a checkpoint is one error that names file, tensor (or key), what was expected and what was found."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.checkpoints.small import SMALL, checkpoint, edit_json, edit_tensors
from workbench.checkpoints import CheckpointError, load

Q = "model.layers.1.self_attn.q_proj.weight"
SCALES = "model.layers.0.mlp.experts.down_proj_scales"


def failure(path: Path, **options) -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        load(path, **options)
    return caught.value


def drop(name):
    return lambda tensors: tensors.pop(name)


def put(name, tensor):
    return lambda tensors: tensors.update({name: tensor})


TENSOR_FAULTS = {
    "missing": (drop(Q), Q, "BF16/F16/F32 [64, 64]", "no such tensor"),
    "extra": (put("x.bias", torch.ones(96)), "x.bias", "only tensors of the Hugging Face dense form", "F32 [96]"),
    "a layer of another size": (put(Q, torch.ones(64, 48)), Q, "shape [64, 64]", "[64, 48]"),
    "transposed": (
        put("model.layers.0.mlp.experts.gate_up_proj_bias", torch.ones(64, 4)),
        "model.layers.0.mlp.experts.gate_up_proj_bias",
        "shape [4, 64]",
        "[64, 4]",
    ),
    "one axis short": (put("model.norm.weight", torch.tensor(1.0)), "model.norm.weight", "shape [64]", "[]"),
    "whole numbers": (put(Q, torch.ones(64, 64, dtype=torch.int32)), Q, "dtype BF16 or F16 or F32", "I32"),
    "eight bits": (put(Q, torch.ones(64, 64).to(torch.float8_e4m3fn)), Q, "dtype BF16 or F16 or F32", "F8_E4M3"),
}


@pytest.mark.parametrize("fault", TENSOR_FAULTS)
def test_a_wrong_tensor_is_named_with_what_was_expected_and_found(tmp_path, fault):
    change, name, expected, found = TENSOR_FAULTS[fault]
    folder = checkpoint(tmp_path / "model")
    edit_tensors(folder / "model.safetensors", change)
    error = failure(folder)
    problem = next(problem for problem in error.problems if problem.subject == f"tensor {name!r}")
    assert len(error.problems) == 1
    assert expected in problem.expected and found in problem.found
    assert all(part in str(error) for part in (str(folder), name, expected, found))


@pytest.mark.parametrize(
    ("field", "key", "wrong"),
    [
        ("n_layers", "num_hidden_layers", 3),
        ("n_layers", "num_hidden_layers", 1),
        ("d_vocab", "vocab_size", 97),
        ("d_model", "hidden_size", 96),
        ("n_heads", "num_attention_heads", 8),
        ("n_key_value_heads", "num_key_value_heads", 4),
        ("d_head", "head_dim", 32),
        ("d_mlp", "intermediate_size", 64),
        ("n_experts", "num_local_experts", 8),
    ],
)
@pytest.mark.parametrize("form", ["huggingface", "huggingface-mxfp4", "openai"])
def test_a_config_that_contradicts_the_tensors_is_one_error_that_names_the_key(tmp_path, form, field, key, wrong):
    key = "num_experts" if form == "openai" and field == "n_experts" else key
    folder = checkpoint(tmp_path / "model", form)
    edit_json(folder / "config.json", **{key: wrong}, layer_types=None)
    error = failure(folder)
    assert [problem.subject for problem in error.problems] == [key]
    problem = error.problems[0]
    assert problem.file == folder / "config.json"
    assert str(getattr(SMALL, field)) in problem.expected and problem.found == str(wrong)


def test_a_config_that_contradicts_itself_is_refused_with_its_name(tmp_path):
    folder = checkpoint(tmp_path / "model")
    edit_json(folder / "config.json", num_experts_per_tok=5)
    error = failure(folder)
    assert "config.json: experts_per_token=5: expected 1 to n_experts=4" in str(error)


CONFIG_FAULTS = {
    "another architecture": ({"model_type": "llama"}, "model_type: expected 'gpt_oss'", "found 'llama'"),
    "no architecture": ({"model_type": None}, "model_type: expected 'gpt_oss' (Hugging Face)", "found no such key"),
    "tied embeddings": ({"tie_word_embeddings": True}, "tie_word_embeddings: expected False", "found True"),
    "another activation": ({"hidden_act": "gelu"}, "hidden_act: expected 'silu'", "found 'gelu'"),
    "another quantisation": (
        {"quantization_config": {"quant_method": "awq"}},
        "quantization_config.quant_method: expected 'mxfp4'",
        "found 'awq'",
    ),
    "MXFP4 announced, dense tensors": (
        {"quantization_config": {"quant_method": "mxfp4"}},
        "quantization_config: expected the Hugging Face dense form, which the tensors",
        "found a config of the Hugging Face MXFP4 form",
    ),
    "a size missing": ({"head_dim": None}, "head_dim: expected a whole number", "found no such key"),
    "a size in words": ({"head_dim": "16"}, "head_dim: expected a whole number", "found '16'"),
    "absurd": ({"num_hidden_layers": 10**9}, "num_hidden_layers: expected a whole number up to 10000", "found 10"),
    "a truth value": ({"head_dim": True}, "head_dim: expected a whole number", "found True"),
    "an epsilon in words": ({"rms_norm_eps": "small"}, "rms_norm_eps: expected a finite number", "found 'small'"),
    "an infinite epsilon": ({"rms_norm_eps": float("inf")}, "rms_norm_eps: expected a finite number", "found inf"),
    "layer types": ({"layer_types": ["odd", "even"]}, "layer_types: expected a list of", "found ['odd', 'even']"),
    "layer types in number": ({"layer_types": ["full_attention"]}, "layer_types names 1 layers", "n_layers=2"),
    "no window": ({"sliding_window": None}, "sliding_window: expected a whole number", "found no such key"),
    "end token": ({"eos_token_id": "two"}, "eos_token_id: expected a token id or a list of them", "found 'two'"),
    "dtype": ({"dtype": "int4"}, "dtype='int4': expected 'bfloat16'", "config.json"),
    "rope kind": (
        {"rope_parameters": {"rope_type": "llama3"}},
        "rope_parameters.rope_type: expected 'yarn' or 'default'",
        "found 'llama3'",
    ),
    "rope key": (
        {"rope_parameters": {"rope_type": "yarn", "low_freq_factor": 1}},
        "rope_parameters.low_freq_factor: expected only keys",
        "found 1",
    ),
    "rope factor": (
        {"rope_parameters": {"rope_type": "yarn", "factor": "x", "original_max_position_embeddings": 256}},
        "rope_parameters.factor: expected a finite number",
        "found 'x'",
    ),
    "truncate": (
        {"rope_parameters": {"rope_type": "yarn", "factor": 16, "truncate": 0}},
        "rope_parameters.truncate: expected true or false",
        "found 0",
    ),
    "attention factor": (
        {"rope_parameters": {"rope_type": "yarn", "factor": 16, "original_max_position_embeddings": 256}
         | {"attention_factor": 2.0, "truncate": False}},
        "rope_parameters.attention_factor: expected 0.1·ln(factor) + 1 = 1.27726",
        "found 2.0",
    ),
    "two ropes": (
        {"rope_scaling": {"rope_type": "default"}},
        "rope_scaling: expected the same as rope_parameters",
        "found {'rope_type': 'default'}",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", CONFIG_FAULTS)
def test_a_wrong_config_key_is_named_with_what_was_expected_and_found(tmp_path, fault):
    changes, expected, found = CONFIG_FAULTS[fault]
    folder = checkpoint(tmp_path / "model")
    (folder / "generation_config.json").unlink()
    edit_json(folder / "config.json", **changes)
    message = str(failure(folder))
    assert message.startswith(str(folder / "config.json"))
    assert expected in message and found in message


@pytest.mark.parametrize("content", ["{", "[1]", ""])
def test_a_config_that_is_no_json_object_is_refused(tmp_path, content):
    folder = checkpoint(tmp_path / "model")
    (folder / "config.json").write_text(content)
    assert str(failure(folder)).startswith(f"{folder / 'config.json'}: expected ")


def test_packed_tensors_without_a_quantization_config_are_refused_by_that_key(tmp_path):
    folder = checkpoint(tmp_path / "model", "huggingface-mxfp4")
    edit_json(folder / "config.json", quantization_config=None)
    error = failure(folder)
    assert [problem.subject for problem in error.problems] == ["quantization_config"]


def test_openai_tensors_beside_a_hugging_face_config_are_refused(tmp_path):
    folder, other = checkpoint(tmp_path / "model"), checkpoint(tmp_path / "other", "openai")
    (other / "model.safetensors").replace(folder / "model.safetensors")
    assert "expected the OpenAI original form, which the tensors in model/ have" in str(failure(folder))


def test_packed_sizes_that_are_no_multiple_of_32_are_refused_by_key(tmp_path):
    folder = checkpoint(tmp_path / "model", "huggingface-mxfp4")
    edit_json(folder / "config.json", hidden_size=40)
    assert "hidden_size: expected a multiple of 32" in str(failure(folder))


@pytest.mark.parametrize("form", ["huggingface-mxfp4", "openai"])
def test_nan_scales_are_refused_with_their_place(tmp_path, form):
    name = SCALES if form == "huggingface-mxfp4" else "block.0.mlp.mlp2_weight.scales"
    folder = checkpoint(tmp_path / "model", form)

    def damage(tensors):
        tensors[name][2, 7, 0] = 255

    edit_tensors(folder / "model.safetensors", damage)
    problem = failure(folder).problems[0]
    assert problem.file == folder / "model.safetensors" and problem.subject == f"tensor {name!r}"
    assert problem.expected == "no scale of 255, which is NaN"
    assert problem.found == "1 of 256 scales are 255 (NaN), the first at [2, 7, 0]"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", [Q, "model.norm.weight", "model.layers.0.mlp.experts.down_proj"])
def test_a_full_check_refuses_numbers_that_are_not_finite_and_the_usual_one_does_not_look(tmp_path, name, value):
    folder = checkpoint(tmp_path / "model")

    def damage(tensors):
        tensors[name].view(-1)[5] = value

    edit_tensors(folder / "model.safetensors", damage)
    assert load(folder) is not None
    problem = failure(folder, check="full").problems[0]
    assert problem.file == folder / "model.safetensors" and problem.subject == f"tensor {name!r}"
    assert problem.expected == "finite numbers"
    counts = "1 NaN and 0 infinite" if value != value else "0 NaN and 1 infinite"
    assert problem.found == f"{counts} (as torch.float32)"


def test_a_full_check_refuses_scales_too_large_for_the_dtype(tmp_path):
    folder = checkpoint(tmp_path / "model", "huggingface-mxfp4")

    def damage(tensors):
        tensors[SCALES][:] = 254

    edit_tensors(folder / "model.safetensors", damage)
    assert "infinite" in failure(folder, check="full").problems[0].found


def test_sound_checkpoints_pass_the_full_check(tmp_path):
    for form in ("huggingface", "huggingface-mxfp4", "openai"):
        assert load(checkpoint(tmp_path / form, form), check="full") is not None


# ------------------------------------------------------------------ files and shards


def sharded(path: Path) -> tuple[Path, list[str]]:
    folder = checkpoint(path, max_shard_bytes=60_000)
    return folder, sorted(file.name for file in folder.glob("*.safetensors"))


def edit_weight_map(folder: Path, **moves: str | None) -> None:
    file = folder / "model.safetensors.index.json"
    weight_map = json.loads(file.read_text())["weight_map"]
    for name, target in moves.items():
        weight_map[name] = target
    kept = {name: target for name, target in weight_map.items() if target is not None}
    file.write_text(json.dumps({"weight_map": kept}))


def test_a_shard_that_is_missing_is_named(tmp_path):
    folder, names = sharded(tmp_path / "model")
    (folder / names[1]).unlink()
    message = str(failure(folder))
    assert f"expected the file {names[1]}, found {names[0]}" in message
    assert message.startswith(str(folder / "model.safetensors.index.json"))


def test_a_shard_that_is_cut_off_is_named(tmp_path):
    folder, names = sharded(tmp_path / "model")
    raw = (folder / names[-1]).read_bytes()
    (folder / names[-1]).write_bytes(raw[: len(raw) // 2])
    assert str(failure(folder)).startswith(str(folder / names[-1]))


@pytest.mark.parametrize(
    "elsewhere",
    [
        *("../other/model.safetensors", "/etc/model.safetensors", "sub/model.safetensors", "..", "", "."),
        *("C:\\model.safetensors", "..\\other\\model.safetensors", "C:model.safetensors"),
    ],
)
def test_an_index_that_points_out_of_its_folder_is_refused(tmp_path, elsewhere):
    folder, _ = sharded(tmp_path / "model")
    checkpoint(tmp_path / "other")
    edit_weight_map(folder, **{Q: elsewhere})
    problem = failure(folder).problems[0]
    assert problem.file == folder / "model.safetensors.index.json" and problem.subject == f"tensor {Q!r}"
    assert problem.expected == f"a file name in {folder}" and problem.found == repr(elsewhere)


def test_an_index_that_names_a_pickle_is_refused(tmp_path):
    folder, _ = sharded(tmp_path / "model")
    edit_weight_map(folder, **{Q: "pytorch_model.bin"})
    assert "expected a *.safetensors file, found 'pytorch_model.bin'" in str(failure(folder))


def test_a_tensor_in_two_shards_is_refused(tmp_path):
    folder, names = sharded(tmp_path / "model")
    first = next(iter(load_file(folder / names[0])))
    edit_tensors(folder / names[2], put(first, torch.ones(2)))
    problem = failure(folder).problems[0]
    assert problem.file == folder / names[2] and problem.subject == f"tensor {first!r}"
    assert names[0] in problem.expected and "second time" in problem.found


def test_a_tensor_in_two_files_without_an_index_is_refused(tmp_path):
    folder = checkpoint(tmp_path / "model")
    save_file({Q: torch.ones(64, 64)}, folder / "more.safetensors")
    assert "expected it in one file (it is in model.safetensors), found it here a second time" in str(failure(folder))


def test_an_index_that_disagrees_with_its_files_is_refused(tmp_path):
    folder, names = sharded(tmp_path / "model")
    weight_map = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    name, other = next(iter(weight_map)), next(n for n in names if n != next(iter(weight_map.values())))
    edit_weight_map(folder, **{name: other})
    message = str(failure(folder))
    assert "the index and the files disagree" in message and f"expected it in {other}, found it in" in message
    edit_weight_map(folder, **{name: None})
    message = str(failure(folder))
    assert f"tensor {name!r}: expected it in model.safetensors.index.json, found it unlisted" in message


def test_a_second_set_of_weights_beside_the_indexed_one_is_refused(tmp_path):
    folder, _ = sharded(tmp_path / "model")
    save_file({"a": torch.ones(2)}, folder / "stray.safetensors")
    assert "found stray.safetensors unlisted" in str(failure(folder))


@pytest.mark.parametrize("said", ["", "[]", "{}", *(f'{{"weight_map": {map}}}' for map in ("3", "{}", '{"a": 3}'))])
def test_an_index_that_is_no_index_is_refused(tmp_path, said):
    folder, _ = sharded(tmp_path / "model")
    (folder / "model.safetensors.index.json").write_text(said)
    assert "weight_map: expected a JSON object {tensor: file}" in str(failure(folder))


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("the pickle was opened",))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "weights.pkl", "model.pth", "model.ckpt"])
def test_a_folder_with_only_pickles_is_refused_unopened_and_says_why(tmp_path, name):
    folder = checkpoint(tmp_path / "model")
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(pickle.dumps(Bomb()))
    message = str(failure(folder))
    assert f"expected *.safetensors files, found only pickles ({name})" in message and "can run any code" in message


def test_a_pickle_beside_safetensors_is_not_touched(tmp_path):
    folder = checkpoint(tmp_path / "model")
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb()))
    assert load(folder) is not None


def test_a_folder_without_weights_is_refused(tmp_path):
    folder = checkpoint(tmp_path / "model")
    (folder / "model.safetensors").unlink()
    assert str(failure(folder)) == f"{folder}: expected *.safetensors files, found none"


def test_many_problems_are_one_error_that_counts_them(tmp_path):
    folder = checkpoint(tmp_path / "model")

    def damage(tensors):
        for name in list(tensors):
            if "layers.1.self_attn" in name:
                del tensors[name]

    edit_tensors(folder / "model.safetensors", damage)
    error = failure(folder)
    assert len(error.problems) == 9
    assert str(error).startswith(f"{folder}: 9 problems, so nothing was loaded")
    assert "and 4 more like these" in str(error)


def test_nothing_is_loaded_when_the_last_tensor_is_bad(tmp_path, monkeypatch):
    folder = checkpoint(tmp_path / "model")
    edit_tensors(folder / "model.safetensors", drop("lm_head.weight"))
    from workbench.checkpoints import shards

    def no_reading(*_):
        pytest.fail("a tensor was read although another is missing")

    monkeypatch.setattr(shards.Shards, "read", no_reading)
    assert "lm_head.weight" in str(failure(folder))


def test_packed_experts_asked_of_a_dense_checkpoint_are_refused_with_the_way_to_pack_it(tmp_path):
    folder = checkpoint(tmp_path / "dense")
    with pytest.raises(CheckpointError, match=r"experts='packed' was asked for.*form='huggingface-mxfp4'"):
        load(folder, experts="packed")
