"""A gpt-oss checkpoint in Hugging Face's MXFP4 form → one GGUF file for llama.cpp, the same weights bit for bit.

Run by the interpreter that has llama.cpp and gguf, and no torch:
``python -m tests.bench.common.gguf_file FOLDER FILE``.
Names and layout as in llama.cpp's own converter (conversion/gpt_oss.py).
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter, RopeScalingType

TYPES = {"BF16": np.uint16, "F32": np.float32, "U8": np.uint8}
# transformers' name → (GGUF's name, stored as float32)
OUTER = {
    "model.embed_tokens.weight": ("token_embd.weight", False),
    "model.norm.weight": ("output_norm.weight", True),
    "lm_head.weight": ("output.weight", False),
}
LAYER = {
    "input_layernorm.weight": ("attn_norm.weight", True),
    "post_attention_layernorm.weight": ("post_attention_norm.weight", True),
    "self_attn.q_proj.weight": ("attn_q.weight", False),
    "self_attn.q_proj.bias": ("attn_q.bias", True),
    "self_attn.k_proj.weight": ("attn_k.weight", False),
    "self_attn.k_proj.bias": ("attn_k.bias", True),
    "self_attn.v_proj.weight": ("attn_v.weight", False),
    "self_attn.v_proj.bias": ("attn_v.bias", True),
    "self_attn.o_proj.weight": ("attn_output.weight", False),
    "self_attn.o_proj.bias": ("attn_output.bias", True),
    "self_attn.sinks": ("attn_sinks.weight", True),
    "mlp.router.weight": ("ffn_gate_inp.weight", True),
    "mlp.router.bias": ("ffn_gate_inp.bias", True),
    "mlp.experts.down_proj_bias": ("ffn_down_exps.bias", True),
}


class Stored:
    """The tensors of a folder's safetensors files, memory-mapped; bfloat16 as its bits."""

    def __init__(self, folder: Path) -> None:
        self._places: dict[str, tuple[np.memmap, dict[str, Any]]] = {}
        for file in sorted(folder.glob("*.safetensors")):
            raw = np.memmap(file, mode="r")
            start = 8 + int(raw[:8].view(np.uint64)[0])
            header = json.loads(bytes(raw[8:start]))
            self._places |= {name: (raw[start:], place) for name, place in header.items() if name != "__metadata__"}

    def __getitem__(self, name: str) -> np.ndarray:
        raw, place = self._places[name]
        first, last = place["data_offsets"]
        return raw[first:last].view(TYPES[place["dtype"]]).reshape(place["shape"])


def as_float32(tensor: np.ndarray) -> np.ndarray:
    """bfloat16 bits as float32, exactly."""
    return tensor if tensor.dtype == np.float32 else (tensor.astype(np.uint32) << 16).view(np.float32)


def as_bfloat16(tensor: np.ndarray) -> np.ndarray:
    """bfloat16 bits as bytes, as a GGUF file takes them."""
    return np.ascontiguousarray(tensor).view(np.uint8)


def as_ggml(blocks: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """[…, group, 16] bytes and […, group] scales → […, group · 17] of ggml's block_mxfp4.

    Ours holds numbers 2i and 2i + 1 in byte i, the first in the low half. ggml puts number i in the low half of byte i
    and number i + 16 in its high half, behind the scale.
    """
    numbers = np.stack((blocks & 15, blocks >> 4), -1).reshape(*blocks.shape[:-1], 32)
    packed = numbers[..., :16] | (numbers[..., 16:] << 4)
    return np.concatenate((scales[..., None], packed), -1).reshape(*scales.shape[:-1], -1)


def write(folder: Path, file: Path) -> None:
    """The whole file, which appears when it is complete."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    stored, fresh = Stored(folder), file.with_name(file.name + ".partial")
    writer = GGUFWriter(fresh, "gpt-oss", use_temp_file=False)
    _describe(writer, config)
    for name, (theirs, single) in OUTER.items():
        _add(writer, theirs, stored[name], single)
    for layer in range(config["num_hidden_layers"]):
        _add_layer(writer, stored, f"model.layers.{layer}.", f"blk.{layer}.")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    os.replace(fresh, file)


def _describe(writer: GGUFWriter, config: dict[str, Any]) -> None:
    rope = config.get("rope_parameters") or config["rope_scaling"] | {"rope_theta": config["rope_theta"]}
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_expert_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_sliding_window(config["sliding_window"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_expert_count(config["num_local_experts"])
    writer.add_expert_used_count(config["num_experts_per_tok"])
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_rope_scaling_type(RopeScalingType.YARN)
    writer.add_rope_scaling_factor(rope["factor"])
    writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
    writer.add_rope_scaling_yarn_beta_fast(rope["beta_fast"])
    writer.add_rope_scaling_yarn_beta_slow(rope["beta_slow"])
    writer.add_tokenizer_model("no_vocab")  # it gets tokens, never text
    writer.add_vocab_size(config["vocab_size"])


def _add(writer: GGUFWriter, name: str, tensor: np.ndarray, single: bool) -> None:
    if single:
        writer.add_tensor(name, np.ascontiguousarray(as_float32(tensor)))
    else:
        writer.add_tensor(name, as_bfloat16(tensor), raw_dtype=GGMLQuantizationType.BF16)


def _add_layer(writer: GGUFWriter, stored: Stored, ours: str, theirs: str) -> None:
    for name, (target, single) in LAYER.items():
        _add(writer, theirs + target, stored[ours + name], single)
    experts = ours + "mlp.experts."
    mxfp4 = GGMLQuantizationType.MXFP4
    for first, part in ((0, "gate"), (1, "up")):
        bias = stored[experts + "gate_up_proj_bias"][:, first::2]
        _add(writer, f"{theirs}ffn_{part}_exps.bias", bias, single=True)
        blocks, scales = (stored[f"{experts}gate_up_proj_{kind}"][:, first::2] for kind in ("blocks", "scales"))
        writer.add_tensor(
            f"{theirs}ffn_{part}_exps.weight", as_ggml(blocks, scales), raw_dtype=GGMLQuantizationType.MXFP4
        )
    blocks, scales = (stored[f"{experts}down_proj_{kind}"] for kind in ("blocks", "scales"))
    writer.add_tensor(f"{theirs}ffn_down_exps.weight", as_ggml(blocks, scales), raw_dtype=mxfp4)


if __name__ == "__main__":
    write(Path(sys.argv[1]), Path(sys.argv[2]))
