"""The Hugging Face forms, MXFP4 and dense: which tensor is where, and their config.json.

Source: transformers `models/gpt_oss` (dense), `integrations/mxfp4.py` (packed), `modeling_rope_utils.py` (rope).
"""

from __future__ import annotations

import math
from typing import Any

from workbench.checkpoints.json_file import REQUIRED, JsonObject, read_json
from workbench.checkpoints.tables import Row, Table
from workbench.model.config import FULL, SLIDING, Config, LayerType, Rope

# config.json's keys of our sizes.
KEYS = {
    "n_layers": "num_hidden_layers",
    "d_vocab": "vocab_size",
    "d_model": "hidden_size",
    "n_heads": "num_attention_heads",
    "n_key_value_heads": "num_key_value_heads",
    "d_head": "head_dim",
    "d_mlp": "intermediate_size",
    "n_experts": "num_local_experts",
    "experts_per_token": "num_experts_per_tok",
    "sliding_window": "sliding_window",
    "n_ctx": "max_position_embeddings",
}

_ATTENTION, _EXPERTS = "model.layers.{layer}.self_attn.", "model.layers.{layer}.mlp.experts."
_SHARED = (
    Row("embed.weight", "model.embed_tokens.weight", "d_vocab d_model"),
    Row("ln_final.w", "model.norm.weight", "d_model"),
    Row("unembed.weight", "lm_head.weight", "d_vocab d_model"),
    Row("blocks.{layer}.ln1.w", "model.layers.{layer}.input_layernorm.weight", "d_model"),
    Row("blocks.{layer}.attn.q.weight", _ATTENTION + "q_proj.weight", "n_heads*d_head d_model"),
    Row("blocks.{layer}.attn.q.bias", _ATTENTION + "q_proj.bias", "n_heads*d_head"),
    Row("blocks.{layer}.attn.k.weight", _ATTENTION + "k_proj.weight", "n_key_value_heads*d_head d_model"),
    Row("blocks.{layer}.attn.k.bias", _ATTENTION + "k_proj.bias", "n_key_value_heads*d_head"),
    Row("blocks.{layer}.attn.v.weight", _ATTENTION + "v_proj.weight", "n_key_value_heads*d_head d_model"),
    Row("blocks.{layer}.attn.v.bias", _ATTENTION + "v_proj.bias", "n_key_value_heads*d_head"),
    Row("blocks.{layer}.attn.sinks", _ATTENTION + "sinks", "n_heads"),
    Row("blocks.{layer}.attn.o.weight", _ATTENTION + "o_proj.weight", "d_model n_heads*d_head"),
    Row("blocks.{layer}.attn.o.bias", _ATTENTION + "o_proj.bias", "d_model"),
    Row("blocks.{layer}.ln2.w", "model.layers.{layer}.post_attention_layernorm.weight", "d_model"),
    Row("blocks.{layer}.mlp.router.weight", "model.layers.{layer}.mlp.router.weight", "n_experts d_model"),
    Row("blocks.{layer}.mlp.router.bias", "model.layers.{layer}.mlp.router.bias", "n_experts"),
    Row("blocks.{layer}.mlp.experts.b_gate_up", _EXPERTS + "gate_up_proj_bias", "n_experts 2*d_mlp"),
    Row("blocks.{layer}.mlp.experts.b_down", _EXPERTS + "down_proj_bias", "n_experts d_model"),
)
# The dense form keeps the experts' matrices as [in, out], the packed one as [out, in].
_DENSE = (
    Row("blocks.{layer}.mlp.experts.W_gate_up", _EXPERTS + "gate_up_proj", "n_experts d_model 2*d_mlp", "transposed"),
    Row("blocks.{layer}.mlp.experts.W_down", _EXPERTS + "down_proj", "n_experts d_mlp d_model", "transposed"),
)
_PACKED = (
    Row("blocks.{layer}.mlp.experts.W_gate_up", _EXPERTS + "gate_up_proj", "n_experts 2*d_mlp d_model", "packed"),
    Row("blocks.{layer}.mlp.experts.W_down", _EXPERTS + "down_proj", "n_experts d_model d_mlp", "packed"),
)
_PACKED_NAMES = ("{name}_blocks", "{name}_scales")

DENSE = Table("Hugging Face dense", _SHARED + _DENSE, _PACKED_NAMES, KEYS)
PACKED = Table("Hugging Face MXFP4", _SHARED + _PACKED, _PACKED_NAMES, KEYS)

_ROPE_KEYS = {
    *("rope_type", "type", "rope_theta", "factor", "original_max_position_embeddings", "beta_fast", "beta_slow"),
    *("truncate", "attention_factor", "mscale", "mscale_all_dim", "partial_rotary_factor"),
}
# What gpt-oss fixes and a config.json may nevertheless say: any other value is another architecture.
_FIXED = {"tie_word_embeddings": False, "attention_bias": True, "hidden_act": "silu"}


def table_of(keys: JsonObject) -> Table:
    """The name table of the form that a config.json announces."""
    if "quantization_config" not in keys:
        return DENSE
    quantization = keys.inner("quantization_config")
    if quantization.values.get("quant_method") != "mxfp4":
        raise quantization.error("quant_method", "'mxfp4', the one quantisation that is read")
    return PACKED


def read_config(keys: JsonObject, name: str) -> Config:
    """The shape that a Hugging Face config.json states."""
    if keys.values["model_type"] != "gpt_oss":
        raise keys.error("model_type", "'gpt_oss', the one architecture that is read")
    for key, value in _FIXED.items():
        if keys.values.get(key, value) != value:
            raise keys.error(key, f"{value!r}, as gpt-oss has it")
    sizes = keys.sizes({field: _spelling(field, keys) for field in KEYS if field != "sliding_window"})
    layer_types = _layer_types(keys)
    windowless = layer_types and SLIDING not in layer_types
    return Config(
        **sizes,
        sliding_window=keys.whole("sliding_window", sizes["n_ctx"] if windowless else REQUIRED),
        layer_types=layer_types,
        rope=_rope(keys, sizes["n_ctx"]),
        rms_eps=keys.number("rms_norm_eps", 1e-5),
        swiglu_alpha=keys.number("swiglu_alpha", 1.702),
        swiglu_limit=keys.number("swiglu_limit", 7.0),
        dtype=_dtype_name(keys),
        name=name,
        **_token_ids(keys),
    )


def _spelling(field: str, keys: JsonObject) -> str:
    """The key of a size: transformers also takes the number of experts as num_experts."""
    key = KEYS[field]
    return "num_experts" if field == "n_experts" and key not in keys and "num_experts" in keys else key


def _layer_types(keys: JsonObject) -> tuple[LayerType, ...]:
    types = keys.values.get("layer_types") or []
    if not isinstance(types, list) or not all(kind in (SLIDING, FULL) for kind in types):
        raise keys.error("layer_types", f"a list of {SLIDING!r} and {FULL!r}")
    return tuple(types)


def _dtype_name(keys: JsonObject) -> str:
    key = "dtype" if "dtype" in keys else "torch_dtype"
    value = keys.values.get(key) or "bfloat16"
    if not isinstance(value, str):
        raise keys.error(key, "the name of a dtype")
    return value.removeprefix("torch.")


def _token_ids(keys: JsonObject) -> dict[str, Any]:
    """bos, pad and eos; the end tokens of generation_config.json, where there is one, are the fuller list."""
    generation = keys.file.parent / "generation_config.json"
    eos = read_json(generation).ids("eos_token_id") if generation.is_file() else ()
    return {
        "bos_token_id": keys.whole("bos_token_id") if "bos_token_id" in keys else None,
        "pad_token_id": keys.whole("pad_token_id") if "pad_token_id" in keys else None,
        "eos_token_ids": eos or keys.ids("eos_token_id"),
    }


def _rope(keys: JsonObject, n_ctx: int) -> Rope:
    """``rope_parameters`` (transformers 5), or ``rope_scaling`` and ``rope_theta`` (4); gpt-oss' own without either."""
    found = [_rope_of(keys, key, n_ctx) for key in ("rope_parameters", "rope_scaling") if key in keys]
    if len(found) == 2 and found[0] != found[1]:
        raise keys.error("rope_scaling", f"the same as rope_parameters, {keys.values['rope_parameters']!r}")
    return found[0] if found else Rope(theta=keys.number("rope_theta", Rope.theta))


def _rope_of(keys: JsonObject, key: str, n_ctx: int) -> Rope:
    rope = keys.inner(key)
    unknown = sorted(rope.values.keys() - _ROPE_KEYS)
    if unknown:
        raise rope.error(unknown[0], f"only keys that are understood: {sorted(_ROPE_KEYS)}")
    theta = rope.number("rope_theta", keys.number("rope_theta", Rope.theta))
    kind = rope.values.get("rope_type", rope.values.get("type", "default"))
    if kind == "default":
        return Rope(theta=theta, factor=1.0, original_context=n_ctx)
    if kind != "yarn":
        raise rope.error("rope_type", "'yarn' or 'default'")
    # transformers lets a top-level original_max_position_embeddings win.
    outer = keys if "original_max_position_embeddings" in keys else rope
    original = outer.whole("original_max_position_embeddings", n_ctx)
    result = Rope(
        theta=theta,
        factor=rope.number("factor", n_ctx / original if original else REQUIRED),
        original_context=original,
        beta_fast=rope.number("beta_fast", 32.0),
        beta_slow=rope.number("beta_slow", 1.0),
        truncate=_flag(rope, "truncate", default=True),  # transformers' default; gpt-oss' files say false
    )
    _refuse_other_concentration(rope, result)
    return result


def _flag(keys: JsonObject, key: str, default: bool) -> bool:
    value = keys.values.get(key, default)
    if not isinstance(value, bool):
        raise keys.error(key, "true or false")
    return value


def _refuse_other_concentration(keys: JsonObject, rope: Rope) -> None:
    if "attention_factor" in keys and not math.isclose(keys.number("attention_factor"), rope.concentration):
        raise keys.error("attention_factor", f"0.1·ln(factor) + 1 = {rope.concentration:.6g}, as gpt-oss has it")
    if keys.values.get("mscale") and keys.values.get("mscale_all_dim"):
        raise keys.error("mscale", "no mscale beside mscale_all_dim, which gpt-oss does not use")
    if keys.number("partial_rotary_factor", 1.0) != 1.0:
        raise keys.error("partial_rotary_factor", "1: gpt-oss rotates all of a head")


def config_json(config: Config, dtype: str, packed: bool) -> dict[str, Any]:
    """config.json of the Hugging Face forms, with transformers 5's keys."""
    end = config.eos_token_ids
    values: dict[str, Any] = {
        "architectures": ["GptOssForCausalLM"],
        "model_type": "gpt_oss",
        "dtype": dtype,
        **{key: getattr(config, field) for field, key in KEYS.items()},
        **_FIXED,
        "layer_types": list(config.layer_types),
        "rms_norm_eps": config.rms_eps,
        "rope_parameters": _rope_json(config.rope),
        "swiglu_alpha": config.swiglu_alpha,
        "swiglu_limit": config.swiglu_limit,
        "bos_token_id": config.bos_token_id,
        "pad_token_id": config.pad_token_id,
        "eos_token_id": end[0] if end else None,
    }
    if packed:
        kept = ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]
        values["quantization_config"] = {"quant_method": "mxfp4", "modules_to_not_convert": kept}
    return values


def _rope_json(rope: Rope) -> dict[str, Any]:
    if not rope.factor > 1:
        return {"rope_type": "default", "rope_theta": rope.theta}
    return {
        "rope_type": "yarn",
        "rope_theta": rope.theta,
        "factor": rope.factor,
        "original_max_position_embeddings": rope.original_context,
        "beta_fast": rope.beta_fast,
        "beta_slow": rope.beta_slow,
        "truncate": rope.truncate,
    }


def generation_json(config: Config) -> dict[str, Any]:
    """generation_config.json: the special ids, with every end token."""
    ids = {"bos_token_id": config.bos_token_id, "pad_token_id": config.pad_token_id}
    return {key: value for key, value in ids.items() if value is not None} | {
        "eos_token_id": list(config.eos_token_ids)
    }
