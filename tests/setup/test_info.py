"""`workbench info` says what is in a checkpoint, from the headers alone, and says clearly when it is none."""

import json
import math
import re
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.small import as_in_a_notebook  # noqa: F401
from workbench.cli import main

# The public gpt-oss-20b: its config.json's sizes, and three figures that its model card and its weights' index state.
SIZES = {"num_hidden_layers": 24, "vocab_size": 201_088, "hidden_size": 2880, "intermediate_size": 2880}
HEADS = {"num_attention_heads": 64, "num_key_value_heads": 8, "head_dim": 64, "sliding_window": 128}
EXPERTS = {"num_local_experts": 32, "num_experts_per_tok": 4}
CONFIG_20B = {
    "model_type": "gpt_oss",
    **SIZES,
    **HEADS,
    **EXPERTS,
    "max_position_embeddings": 131_072,
    "quantization_config": {"quant_method": "mxfp4"},
}
PARAMETERS_20B, BYTES_20B, TENSORS_20B = "20,914,757,184", "13,761,264,768", "459"


def shapes_20b() -> dict[str, tuple[str, list[int]]]:
    """Name → (dtype, shape) of each tensor of the public checkpoint."""
    bf16 = {"model.embed_tokens.weight": [201088, 2880], "model.norm.weight": [2880], "lm_head.weight": [201088, 2880]}
    u8: dict[str, list[int]] = {}
    for layer in range(24):
        attention, mlp = f"model.layers.{layer}.self_attn.", f"model.layers.{layer}.mlp."
        for projection, rows in (("q", 4096), ("k", 512), ("v", 512)):
            bf16 |= {f"{attention}{projection}_proj.weight": [rows, 2880], f"{attention}{projection}_proj.bias": [rows]}
        bf16 |= {f"{attention}o_proj.weight": [2880, 4096], f"{attention}o_proj.bias": [2880]}
        bf16[f"{attention}sinks"] = [64]
        bf16 |= {f"{mlp}router.weight": [32, 2880], f"{mlp}router.bias": [32]}
        bf16 |= {f"{mlp}experts.gate_up_proj_bias": [32, 5760], f"{mlp}experts.down_proj_bias": [32, 2880]}
        bf16 |= {f"model.layers.{layer}.{norm}_layernorm.weight": [2880] for norm in ("input", "post_attention")}
        for matrix, rows in (("gate_up", 5760), ("down", 2880)):
            u8[f"{mlp}experts.{matrix}_proj_blocks"] = [32, rows, 90, 16]
            u8[f"{mlp}experts.{matrix}_proj_scales"] = [32, rows, 90]
    return {name: ("BF16", shape) for name, shape in bf16.items()} | {name: ("U8", shape) for name, shape in u8.items()}


def write_header_only(path: Path, shapes: dict[str, tuple[str, list[int]]]) -> None:
    """A safetensors file of full length whose data is one hole: it takes no room on the disk."""
    header, end = {}, 0
    for name, (dtype, shape) in shapes.items():
        start, end = end, end + math.prod(shape) * {"BF16": 2, "U8": 1}[dtype]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)


def report(path: Path | str, capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    assert main(["info", str(path)]) == 0
    facts, _, _ = capsys.readouterr().out.partition("\n\n")  # after them: the memory it needs
    return dict(line.split(maxsplit=1) for line in facts.splitlines())


def test_info_counts_the_public_20b_as_its_card_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG_20B))
    write_header_only(tmp_path / "model.safetensors", shapes_20b())
    found = report(tmp_path, capsys)
    assert found["parameters"] == PARAMETERS_20B
    assert found["bytes"] == BYTES_20B
    assert found["tensors"].split()[0] == TENSORS_20B
    assert found["form"] == "Hugging Face MXFP4"
    assert found["n_experts"] == "32"


def test_info_of_nano_counts_what_the_safetensors_package_reads(root: Path, capsys: pytest.CaptureFixture[str]):
    tensors = [tensor for file in (root / "data/nano").glob("*.safetensors") for tensor in load_file(file).values()]
    found = report("nano", capsys)
    assert found["parameters"] == f"{sum(tensor.numel() for tensor in tensors):,}"
    assert found["bytes"] == f"{sum(tensor.numel() * tensor.element_size() for tensor in tensors):,}"
    assert found["tensors"].split()[0] == str(len(tensors))
    assert found["d_model"] == str(json.loads((root / "data/nano/config.json").read_text())["hidden_size"])


def test_info_of_something_that_is_no_folder_says_what_to_give(capsys: pytest.CaptureFixture[str]):
    assert main(["info", "no/such/place"]) == 1
    assert "'no/such/place' is not a folder; give the folder of a checkpoint, or one of nano" in capsys.readouterr().err


def test_info_of_a_checkpoint_that_contradicts_its_config_names_the_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG_20B | {"num_local_experts": 16}))
    write_header_only(tmp_path / "model.safetensors", shapes_20b())
    assert main(["info", str(tmp_path)]) == 1
    shown = capsys.readouterr()
    assert "num_local_experts" in shown.err
    assert not shown.out


def memory(path: Path, capsys: pytest.CaptureFixture[str], *options: str) -> dict[str, list[str]]:
    """What → the figures in its row, of the part of the report that is about memory."""
    assert main(["info", str(path), *options]) == 0
    _, _, table = capsys.readouterr().out.partition("\n\n")
    return {line[:34].strip(): re.findall(r"\S+ \S+", line[34:]) for line in table.splitlines()}


def test_info_tells_the_memory_that_each_way_to_load_it_needs(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG_20B | {"torch_dtype": "bfloat16"}))
    write_header_only(tmp_path / "model.safetensors", shapes_20b())
    found = memory(tmp_path, capsys, "--length", "64", "--batch", "2")
    assert found["memory, experts and dtype"] == [
        "packed bfloat16", "packed float32", "dense bfloat16", "dense float32"
    ]  # fmt: skip
    # By hand: 12.7 billion packed bytes and 1.8 billion other numbers, of which norm gains are kept in float32.
    experts, others = 19_110_297_600, 20_914_757_184 - 19_110_297_600
    norms, packed = 49 * 2880, experts // 32 * 17
    billions = {
        "weights: pages of the files": [packed + 2 * (others - norms), packed, 2 * (others - norms), 0],
        "weights: private memory": [4 * norms, 4 * others, 2 * experts + 4 * norms, 4 * (experts + others)],
    }
    for what, expected in billions.items():
        assert [as_bytes(text) for text in found[what]] == pytest.approx(expected, rel=0.05), what
    # 24 layers, 64 tokens below the window, keys and values of 8 heads of 64, 2 rows.
    kv = 24 * 64 * 2 * 8 * 64 * 2
    assert [as_bytes(text) for text in found["KV cache"]] == pytest.approx([2 * kv, 4 * kv, 2 * kv, 4 * kv], rel=0.01)
    rows = [found[f"{name}"] for name in ("model(tokens)", "wb.run, standard sites", "model.run_with_cache, all sites")]
    forward, standard, everything = ([as_bytes(text) for text in row] for row in rows)
    assert all(f < s < e for f, s, e in zip(forward, standard, everything, strict=True))


def as_bytes(text: str) -> float:
    number, unit = text.split()
    return float(number.replace(",", "")) * {"GB": 1e9, "MB": 1e6, "kB": 1e3, "bytes": 1}[unit]


@pytest.mark.usefixtures("as_in_a_notebook")
def test_info_of_the_20b_takes_no_two_seconds_beside_the_imports(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG_20B))
    write_header_only(tmp_path / "model.safetensors", shapes_20b())
    began = time.process_time()
    assert main(["info", str(tmp_path)]) == 0
    assert time.process_time() - began < 2
    assert capsys.readouterr().out.count("tokens adds") == 3


@pytest.mark.parametrize("wrong", ["0", "-3", "many"])
def test_a_length_that_is_none_is_refused(wrong: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        main(["info", "nano", f"--length={wrong}"])
    assert "expected a whole number from 1 on" in capsys.readouterr().err
