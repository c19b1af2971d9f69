"""OpenAI's own form (the folder ``original/``): which tensor is where, and its config.json.

Its experts are always MXFP4.

Source: openai/gpt-oss, `gpt_oss/torch/model.py` and `weights.py`.
"""

from __future__ import annotations

from typing import Any

from workbench.checkpoints.errors import CheckpointError
from workbench.checkpoints.json_file import JsonObject
from workbench.checkpoints.tables import Row, Table
from workbench.model.config import Config, Rope

# config.json's keys of our sizes.
KEYS = {
    "n_layers": "num_hidden_layers",
    "d_vocab": "vocab_size",
    "d_model": "hidden_size",
    "n_heads": "num_attention_heads",
    "n_key_value_heads": "num_key_value_heads",
    "d_head": "head_dim",
    "d_mlp": "intermediate_size",
    "n_experts": "num_experts",
    "experts_per_token": "experts_per_token",
    "sliding_window": "sliding_window",
}

_ATTENTION, _MLP = "block.{layer}.attn.", "block.{layer}.mlp."
# Rows of the fused projection: all queries, then all keys, then all values.
_QKV = "n_heads*d_head+2*n_key_value_heads*d_head"
_Q = ("0", "n_heads*d_head")
_K = ("n_heads*d_head", "n_heads*d_head+n_key_value_heads*d_head")
_V = ("n_heads*d_head+n_key_value_heads*d_head", _QKV)

PACKED = Table(
    "OpenAI original",
    (
        Row("embed.weight", "embedding.weight", "d_vocab d_model"),
        Row("ln_final.w", "norm.scale", "d_model"),
        Row("unembed.weight", "unembedding.weight", "d_vocab d_model"),
        Row("blocks.{layer}.ln1.w", _ATTENTION + "norm.scale", "d_model"),
        Row("blocks.{layer}.attn.q.weight", _ATTENTION + "qkv.weight", f"{_QKV} d_model", part=_Q),
        Row("blocks.{layer}.attn.k.weight", _ATTENTION + "qkv.weight", f"{_QKV} d_model", part=_K),
        Row("blocks.{layer}.attn.v.weight", _ATTENTION + "qkv.weight", f"{_QKV} d_model", part=_V),
        Row("blocks.{layer}.attn.q.bias", _ATTENTION + "qkv.bias", _QKV, part=_Q),
        Row("blocks.{layer}.attn.k.bias", _ATTENTION + "qkv.bias", _QKV, part=_K),
        Row("blocks.{layer}.attn.v.bias", _ATTENTION + "qkv.bias", _QKV, part=_V),
        Row("blocks.{layer}.attn.sinks", _ATTENTION + "sinks", "n_heads"),
        Row("blocks.{layer}.attn.o.weight", _ATTENTION + "out.weight", "d_model n_heads*d_head"),
        Row("blocks.{layer}.attn.o.bias", _ATTENTION + "out.bias", "d_model"),
        Row("blocks.{layer}.ln2.w", _MLP + "norm.scale", "d_model"),
        Row("blocks.{layer}.mlp.router.weight", _MLP + "gate.weight", "n_experts d_model"),
        Row("blocks.{layer}.mlp.router.bias", _MLP + "gate.bias", "n_experts"),
        Row("blocks.{layer}.mlp.experts.W_gate_up", _MLP + "mlp1_weight", "n_experts 2*d_mlp d_model", "packed"),
        Row("blocks.{layer}.mlp.experts.b_gate_up", _MLP + "mlp1_bias", "n_experts 2*d_mlp"),
        Row("blocks.{layer}.mlp.experts.W_down", _MLP + "mlp2_weight", "n_experts d_model d_mlp", "packed"),
        Row("blocks.{layer}.mlp.experts.b_down", _MLP + "mlp2_bias", "n_experts d_model"),
    ),
    ("{name}.blocks", "{name}.scales"),
    KEYS,
)


def read_config(keys: JsonObject, name: str) -> Config:
    """The shape that OpenAI's config.json states.

    What it leaves open is fixed in OpenAI's code: even layers slide, eps 1e-5, α 1.702, no truncation.
    """
    factor, original = keys.number("rope_scaling_factor", 32.0), keys.whole("initial_context_length", 4096)
    sizes = keys.sizes(KEYS)
    real = sizes["d_vocab"] == Config.d_vocab  # the real vocabulary has its ids in Config's defaults
    ids = {} if real else {"bos_token_id": None, "pad_token_id": None, "eos_token_ids": ()}
    rope = Rope(
        theta=keys.number("rope_theta", 150_000.0),
        factor=factor,
        original_context=original,
        beta_fast=keys.number("rope_ntk_beta", 32.0),
        beta_slow=keys.number("rope_ntk_alpha", 1.0),
    )
    if not original * factor <= 2**31:
        raise keys.error("rope_scaling_factor", f"a context of at most {2**31} positions")
    limit = keys.number("swiglu_limit", 7.0)
    return Config(**sizes, n_ctx=round(original * factor), rope=rope, swiglu_limit=limit, name=name, **ids)


def config_json(config: Config) -> dict[str, Any]:
    """config.json of OpenAI's form.

    It has no key for the context length (a reader takes original context × factor), the special ids and the dtype.

    Raises:
        CheckpointError: for a shape that OpenAI's code does not have.
    """
    plain = Config(n_layers=config.n_layers)
    fixed = {"layer_types": plain.layer_types, "rms_eps": plain.rms_eps, "swiglu_alpha": plain.swiglu_alpha}
    for field, value in fixed.items():
        if getattr(config, field) != value:
            raise CheckpointError(
                f"form='openai' cannot say {field}={getattr(config, field)!r}: its code fixes {value!r}"
            )
    if config.rope.truncate:
        raise CheckpointError("form='openai' cannot say rope.truncate=True: its code never truncates")
    return {
        **{key: getattr(config, field) for field, key in KEYS.items()},
        "swiglu_limit": config.swiglu_limit,
        "initial_context_length": config.rope.original_context,
        "rope_theta": config.rope.theta,
        "rope_scaling_factor": config.rope.factor,
        "rope_ntk_alpha": config.rope.beta_slow,
        "rope_ntk_beta": config.rope.beta_fast,
    }
