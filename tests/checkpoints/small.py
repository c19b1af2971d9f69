"""Small random models and checkpoints, and ways to damage them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from workbench.checkpoints import save_pretrained
from workbench.model.config import Config, Rope
from workbench.model.init import random_weights
from workbench.model.mxfp4 import pack, unpack
from workbench.model.transformer import HookedGptOss

# Corners of YaRN's ramp in order for a head of 16; 256 · 16 = 4096, the context length that OpenAI's form implies.
ROPE = Rope(theta=10_000.0, factor=16.0, original_context=256)
SMALL = Config(
    name="small",
    n_layers=2,
    d_model=64,
    n_heads=4,
    n_key_value_heads=2,
    d_head=16,
    d_mlp=32,
    n_experts=4,
    experts_per_token=2,
    d_vocab=96,
    n_ctx=4096,
    sliding_window=8,
    rope=ROPE,
    dtype="float32",
    bos_token_id=3,
    pad_token_id=1,
    eos_token_ids=(2, 1),
)


def small_model(config: Config = SMALL, seed: int = 0, packable: bool = False) -> HookedGptOss:
    """Random weights; ``packable``: the experts' matrices are numbers that MXFP4 can hold."""
    model = random_weights(HookedGptOss(config), seed)
    if packable:
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if name.endswith(("W_gate_up", "W_down")):
                    weight.copy_(unpack(*pack(weight.float()), dtype=torch.float32))
    return model


@st.composite
def shapes(draw: st.DrawFn, packable: bool = False) -> dict[str, Any]:
    """Changes to SMALL: shapes of every kind that the name tables can get wrong, sizes different where they can be."""
    n_layers = draw(st.integers(1, 3))
    kinds = st.sampled_from(["sliding_attention", "full_attention"])
    step = 32 if packable else draw(st.sampled_from([1, 8, 32]))
    groups, n_kv = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    n_experts = draw(st.integers(1, 4))
    mixed = tuple(draw(st.lists(kinds, min_size=n_layers, max_size=n_layers)))
    return {
        "n_layers": n_layers,
        "layer_types": () if packable else mixed,
        "d_model": step * draw(st.integers(1, 3)),
        "d_mlp": step * draw(st.integers(1, 3)),
        "n_heads": groups * n_kv,
        "n_key_value_heads": n_kv,
        "n_experts": n_experts,
        "experts_per_token": draw(st.integers(1, n_experts)),
        "d_vocab": draw(st.integers(5, 40)),
        "sliding_window": draw(st.integers(1, 9)),
        "dtype": draw(st.sampled_from(["float32", "bfloat16"])),
    }


def checkpoint(path: Path, form: str = "huggingface", config: Config = SMALL, **options: Any) -> Path:
    """A sound checkpoint in a folder."""
    return save_pretrained(small_model(config, packable=True), path, form, **options)


def edit_json(file: Path, **changes: Any) -> None:
    """Set keys of a JSON file; None takes a key out."""
    values = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({key: value for key, value in values.items() if value is not None}))


def edit_tensors(file: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    """Load a safetensors file, change the dict in place, write it again."""
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)


def write_raw(file: Path, header: Any, data: bytes = b"") -> None:
    """A safetensors file with whatever header."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    file.write_bytes(len(raw).to_bytes(8, "little") + raw + data)


def plain_state(model: HookedGptOss) -> dict[str, Tensor]:
    """The state dict with packed experts unpacked, under the names that dense ones have."""
    state = dict(model.state_dict())
    for blocks in [name for name in state if name.endswith("_blocks")]:
        name = blocks.removesuffix("_blocks")
        dtype = model.embed.weight.dtype
        state[name] = unpack(state.pop(blocks), state.pop(f"{name}_scales"), dtype)
    return state


def same_state(model: HookedGptOss, other: HookedGptOss) -> bool:
    """Whether two models have the same weights, bit for bit, in the same dtypes; packed ones by what they stand for."""
    mine, theirs = plain_state(model), plain_state(other)
    return mine.keys() == theirs.keys() and all(
        mine[name].dtype == theirs[name].dtype and torch.equal(mine[name], theirs[name]) for name in mine
    )
