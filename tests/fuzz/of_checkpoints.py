"""config.json, safetensors files, shard indices and whole checkpoints."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save

from tests.checkpoints.small import SMALL, checkpoint, plain_state, same_state
from tests.fuzz import mutate
from tests.fuzz.case import Case, Kind
from tests.fuzz.tokenizers import tiny_folder
from workbench.checkpoints import CheckpointError, huggingface, load, openai, save_pretrained
from workbench.checkpoints.configs import read_config
from workbench.checkpoints.safetensors_file import TORCH_DTYPES, SafetensorsFile
from workbench.checkpoints.shards import Shards
from workbench.model.config import GPT_OSS_20B, NANO, Config

# ---------------------------------------------------------------- config.json


@cache
def configs() -> tuple[dict[str, Any], ...]:
    yarn4 = {
        "rope_scaling": {
            "rope_type": "yarn",
            "factor": 32.0,
            "beta_fast": 32.0,
            "beta_slow": 1.0,
            "truncate": False,
            "original_max_position_embeddings": 4096,
            "attention_factor": 1.3465735902799727,
        },
        "rope_theta": 150000,
    }
    real = huggingface.config_json(GPT_OSS_20B, "bfloat16", packed=True)
    return (
        real,
        huggingface.config_json(NANO, "float32", packed=False),
        {key: value for key, value in real.items() if key != "rope_parameters"} | yarn4,
        openai.config_json(SMALL),
    )


def make_config(rng: Random | None) -> Case:
    if rng is None:
        return Case({"config.json": json.dumps(configs()[0]).encode()})
    tree = rng.choice(configs())
    text = mutate.tree_of(rng, tree).encode("utf-8", "surrogatepass")
    files = {"config.json": mutate.bytes_of(rng, text) if rng.random() < 0.2 else text}
    if rng.random() < 0.3:
        generation = {"bos_token_id": 1, "pad_token_id": 2, "eos_token_id": [1, 2, 3]}
        files["generation_config.json"] = mutate.tree_of(rng, generation).encode("utf-8", "surrogatepass")
    return Case(files)


def check_config(found: tuple[Config, Any], folder: Path, case: Case) -> None:
    """Written as a Hugging Face config.json, it is read as the same."""
    config, _ = found
    assert config.n_layers == len(config.layer_types) >= 1
    again = folder / "again"
    again.mkdir()
    (again / "config.json").write_text(json.dumps(huggingface.config_json(config, config.dtype, packed=False)))
    (again / "generation_config.json").write_text(json.dumps(huggingface.generation_json(config)))
    read = read_config(again, config.name)[0]
    if config.rope.factor == 1:  # plain RoPE, which is written without the context that YaRN would start from
        read = read.with_(rope=replace(read.rope, original_context=config.rope.original_context))
        config = config.with_(rope=replace(config.rope, beta_fast=32.0, beta_slow=1.0, truncate=False))
    assert read == config


# ---------------------------------------------------------------- one file


@cache
def tensors() -> tuple[bytes, ...]:
    some = {
        "a": torch.arange(6.0).view(2, 3),
        "b": torch.ones(4, dtype=torch.bfloat16),
        "c": torch.tensor(7, dtype=torch.int64),
    }
    odd = {
        "x": torch.zeros(0, 5),
        "y": torch.ones(3, dtype=torch.bool),
        "é\n": torch.zeros(2, 2, dtype=torch.uint8),
        "f8": torch.zeros(4, dtype=torch.float8_e4m3fn),
    }
    return save(some), save(odd, {"format": "pt"}), save({})


def header_changed(rng: Random, data: bytes) -> bytes:
    """The JSON header changed and written with its length, or with a lie about it."""
    n = int.from_bytes(data[:8], "little")
    raw = mutate.tree_of(rng, json.loads(data[8 : 8 + n])).encode("utf-8", "surrogatepass")
    length = (
        len(raw) if rng.random() < 0.85 else rng.choice((0, 1, len(raw) - 1, len(raw) + 1, 2**40, 2**63, 2**64 - 1))
    )
    return length.to_bytes(8, "little") + raw + data[8 + n :]


def layout_changed(rng: Random, data: bytes) -> bytes:
    """Offsets, shapes and dtypes that nearly fit."""
    n = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + n])
    for entry in header.values():
        if "data_offsets" not in entry or rng.random() < 0.5:
            continue
        begin, end = entry["data_offsets"]
        entry["data_offsets"] = rng.choice(
            (
                [begin, end + 1],
                [begin + 1, end],
                [end, begin],
                [0, 0],
                [begin, 2**62],
                [-1, end],
                [begin, end, end],
                [begin],
            )
        )
        entry["shape"] = rng.choice(
            (entry["shape"], [0, 2**62], [0, 2**63], [0, 10**30], [2**31, 2**31, 2**2], [], [1] * 70, [0] * 70, [[1]])
        )
        entry["dtype"] = rng.choice((entry["dtype"], "F32", "U8", "F8_E4M3", "f32", "C64", "", "I4"))
    raw = json.dumps(header).encode()
    return len(raw).to_bytes(8, "little") + raw + data[8 + n :]


def damaged_tensors(rng: Random, data: bytes) -> bytes:
    return rng.choice((mutate.bytes_of, header_changed, header_changed, layout_changed))(rng, data)


def make_tensors(rng: Random | None) -> Case:
    data = tensors()[0] if rng is None else damaged_tensors(rng, rng.choice(tensors()))
    return Case({"model.safetensors": data})


def read_tensors(folder: Path, case: Case) -> dict[str, Any]:
    file = SafetensorsFile(folder / "model.safetensors")
    known = [name for name, info in file.tensors.items() if info.dtype in TORCH_DTYPES]
    return {
        "file": file,
        "read": {name: file.read(name) for name in known},
        "map": {name: file.map(name) for name in known},
    }


def check_tensors(found: dict[str, Any], folder: Path, case: Case) -> None:
    """The format's own reader finds the same names, shapes and numbers (it refuses dtypes that it does not know; ours
    are refused where they are used)."""
    if any(info.dtype not in TORCH_DTYPES for info in found["file"].tensors.values()):
        return
    with safe_open(folder / "model.safetensors", "pt") as theirs:
        assert set(theirs.keys()) == set(found["file"].tensors)
        for name, tensor in found["read"].items():
            other = theirs.get_tensor(name)
            assert tensor.dtype == other.dtype and tensor.shape == other.shape
            assert bits(tensor) == bits(other)
            mapped = found["map"][name]
            assert mapped is None or bits(mapped) == bits(other)


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes()


# ---------------------------------------------------------------- shards

TRICKS = (
    "../outside/secret.safetensors",
    "/etc/passwd",
    "..",
    ".",
    "",
    "a\0.safetensors",
    "C:\\x.safetensors",
    "C:x.safetensors",
    "..\\x.safetensors",
    "x/../model-00001.safetensors",
    "./model-00001.safetensors",
    "a" * 300 + ".safetensors",
    "\ud800.safetensors",
    "model-00003.safetensors",
    "link.safetensors",
    "folder.safetensors",
    "loop.safetensors",
    "config.json",
    "model.safetensors.index.json",
    "~/x.safetensors",
    "file:///x.safetensors",
    "MODEL-00001.safetensors",
    "model-00001.safetensors ",
    "CON.safetensors",
    "x:y.safetensors",
)


@cache
def shards() -> tuple[dict[str, Any], dict[str, bytes]]:
    files = {
        f"model-0000{i}.safetensors": save({f"t{i}": torch.ones(2, 2) * i, f"u{i}": torch.zeros(3)}) for i in (1, 2)
    }
    index = {
        "metadata": {"total_size": 56},
        "weight_map": {f"{name}{i}": f"model-0000{i}.safetensors" for i in (1, 2) for name in "tu"},
    }
    return index, files


def make_shards(rng: Random | None) -> Case:
    index, files = shards()
    files, links = dict(files), {}
    if rng is None:
        return Case({**files, "model.safetensors.index.json": json.dumps(index).encode()})
    index = json.loads(json.dumps(index))
    kind = rng.randrange(6)
    if kind <= 1:
        for name in rng.sample(sorted(index["weight_map"]), rng.choice((1, 1, 2, 4))):
            index["weight_map"][name] = rng.choice(TRICKS)
    text = mutate.tree_of(rng, index) if kind in (2, 3) else json.dumps(index)
    name = rng.choice(sorted(files))
    if kind == 4:
        files[name] = damaged_tensors(rng, files[name])
    elif kind == 5:
        rng.choice(
            (
                lambda: files.pop(name),
                lambda: files.update({"more.safetensors": files[name]}),
                lambda: files.update({"b.safetensors.index.json": b"{}"}),
                lambda: files.update({f"{name}/x": b""}) if files.pop(name) else None,
            )
        )()
    if rng.random() < 0.3:
        links["link.safetensors"] = rng.choice(("model-00001.safetensors", "nowhere", "../outside"))
        links["loop.safetensors"] = "loop.safetensors"
    if rng.random() < 0.1:
        files["folder.safetensors/x"] = b""
    return Case({**files, "model.safetensors.index.json": text.encode("utf-8", "surrogatepass")}, links)


def check_shards(found: Shards, folder: Path, case: Case) -> None:
    for name in found.names:
        assert found.path(name).parent == folder
        assert (
            list(found.info(name).shape) == list(found.read(name).shape)
            if found.info(name).dtype in TORCH_DTYPES
            else True
        )


# ---------------------------------------------------------------- a whole folder


@cache
def folders() -> tuple[dict[str, bytes], ...]:
    made = []
    for form in ("huggingface", "huggingface-mxfp4", "openai"):
        with tempfile.TemporaryDirectory() as place:
            folder = checkpoint(Path(place) / "model", form, SMALL.with_(n_layers=1, d_model=32, d_vocab=300))
            made.append({path.name: path.read_bytes() for path in folder.iterdir()} | tiny_folder())
            made[-1].pop("tokenizer_config.json" if form == "openai" else "", None)
    return tuple(made)


def make_checkpoint(rng: Random | None) -> Case:
    if rng is None:
        return Case(folders()[0])
    files = dict(rng.choice(folders()))
    name = rng.choice([*sorted(files), "config.json", "model.safetensors"])
    if name.endswith(".json") and rng.random() < 0.8:
        files[name] = mutate.tree_of(rng, json.loads(files[name])).encode("utf-8", "surrogatepass")
    elif name.endswith(".safetensors"):
        files[name] = damaged_tensors(rng, files[name])
    else:
        files[name] = mutate.bytes_of(rng, files[name])
    if rng.random() < 0.05:
        del files[rng.choice(sorted(files))]
    return Case(files, about=rng.choice(("auto", "full")))


def check_model(model: Any, folder: Path, case: Case) -> None:
    """It runs, and what it saves loads as the same."""
    tokens = torch.tensor([[0, 1, 2, 3, 4]])
    with torch.no_grad():
        logits = model(tokens)
    assert logits.shape == (1, 5, model.config.d_vocab)
    if case.about == "full":
        assert all(
            bool(weight.isfinite().all()) for weight in model.state_dict().values() if weight.is_floating_point()
        )
    again = load(save_pretrained(model, folder / "again"))
    # Not the logits: packed and unpacked experts go through engines that round otherwise.
    assert same_state(model, again) or any(bool(weight.isnan().any()) for weight in plain_state(model).values())


KINDS = [
    Kind(
        "config.json", 18, (CheckpointError,), make_config, lambda folder, case: read_config(folder, "x"), check_config
    ),
    Kind("safetensors file", 18, (CheckpointError,), make_tensors, read_tensors, check_tensors),
    Kind("shard index", 12, (CheckpointError,), make_shards, lambda folder, case: Shards(folder), check_shards),
    Kind(
        "checkpoint folder",
        4,
        (CheckpointError,),
        make_checkpoint,
        lambda folder, case: load(folder, check=case.about or "auto"),
        check_model,
        seconds=8.0,
    ),
]
