"""The two reference implementations, built around the weights of one of our models.

The tables below are written from the references' own code, not from workbench/checkpoints: they are a second opinion.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

import torch
from torch import nn
from transformers import GptOssConfig, GptOssForCausalLM
from transformers.models.gpt_oss.modeling_gpt_oss import GptOssRotaryEmbedding

from tests.fetch import openai_code_directory
from workbench.model import Config, HookedGptOss

# ours → (transformers' name, whether the last two axes are swapped)
TRANSFORMERS_OUTER = {
    "embed.weight": "model.embed_tokens.weight",
    "ln_final.w": "model.norm.weight",
    "unembed.weight": "lm_head.weight",
}
TRANSFORMERS_LAYER = {
    "ln1.w": ("input_layernorm.weight", False),
    "attn.q.weight": ("self_attn.q_proj.weight", False),
    "attn.q.bias": ("self_attn.q_proj.bias", False),
    "attn.k.weight": ("self_attn.k_proj.weight", False),
    "attn.k.bias": ("self_attn.k_proj.bias", False),
    "attn.v.weight": ("self_attn.v_proj.weight", False),
    "attn.v.bias": ("self_attn.v_proj.bias", False),
    "attn.o.weight": ("self_attn.o_proj.weight", False),
    "attn.o.bias": ("self_attn.o_proj.bias", False),
    "attn.sinks": ("self_attn.sinks", False),
    "ln2.w": ("post_attention_layernorm.weight", False),
    "mlp.router.weight": ("mlp.router.weight", False),
    "mlp.router.bias": ("mlp.router.bias", False),
    "mlp.experts.W_gate_up": ("mlp.experts.gate_up_proj", True),
    "mlp.experts.b_gate_up": ("mlp.experts.gate_up_proj_bias", False),
    "mlp.experts.W_down": ("mlp.experts.down_proj", True),
    "mlp.experts.b_down": ("mlp.experts.down_proj_bias", False),
}
# OpenAI's name → ours, which are joined along the rows
OPENAI_OUTER = {
    "embedding.weight": ("embed.weight",),
    "norm.scale": ("ln_final.w",),
    "unembedding.weight": ("unembed.weight",),
}
OPENAI_LAYER = {
    "attn.norm.scale": ("ln1.w",),
    "attn.qkv.weight": ("attn.q.weight", "attn.k.weight", "attn.v.weight"),
    "attn.qkv.bias": ("attn.q.bias", "attn.k.bias", "attn.v.bias"),
    "attn.sinks": ("attn.sinks",),
    "attn.out.weight": ("attn.o.weight",),
    "attn.out.bias": ("attn.o.bias",),
    "mlp.norm.scale": ("ln2.w",),
    "mlp.gate.weight": ("mlp.router.weight",),
    "mlp.gate.bias": ("mlp.router.bias",),
    "mlp.mlp1_weight": ("mlp.experts.W_gate_up",),
    "mlp.mlp1_bias": ("mlp.experts.b_gate_up",),
    "mlp.mlp2_weight": ("mlp.experts.W_down",),
    "mlp.mlp2_bias": ("mlp.experts.b_down",),
}


def openai_code() -> ModuleType:
    """OpenAI's gpt_oss.torch.model."""
    return openai_module("gpt_oss.torch.model")


def openai_module(name: str) -> ModuleType:
    """A module of OpenAI's wheel, which is fetched the first time."""
    directory = str(openai_code_directory())
    if directory not in sys.path:
        sys.path.append(directory)
    return importlib.import_module(name)


# ------------------------------------------------------------------------------------------------- transformers
def transformers_config(config: Config) -> GptOssConfig:
    """The same shape in transformers' words."""
    rope = config.rope
    yarn = {
        "rope_type": "yarn",
        "factor": rope.factor,
        "beta_fast": rope.beta_fast,
        "beta_slow": rope.beta_slow,
        "original_max_position_embeddings": rope.original_context,
        "truncate": rope.truncate,
    }
    kind = yarn if rope.factor > 1 else {"rope_type": "default"}
    return GptOssConfig(
        num_hidden_layers=config.n_layers,
        num_local_experts=config.n_experts,
        num_experts_per_tok=config.experts_per_token,
        vocab_size=config.d_vocab,
        hidden_size=config.d_model,
        intermediate_size=config.d_mlp,
        head_dim=config.d_head,
        num_attention_heads=config.n_heads,
        num_key_value_heads=config.n_key_value_heads,
        sliding_window=config.sliding_window,
        layer_types=list(config.layer_types),
        max_position_embeddings=config.n_ctx,
        rms_norm_eps=config.rms_eps,
        rope_parameters=kind | {"rope_theta": rope.theta},
        pad_token_id=config.pad_token_id,
        bos_token_id=config.bos_token_id,
        eos_token_id=list(config.eos_token_ids),
        attn_implementation="eager",
    )


def transformers_name(ours: str) -> tuple[str, bool]:
    """transformers' name of one of our parameters, and whether its last two axes are swapped there."""
    if ours in TRANSFORMERS_OUTER:
        return TRANSFORMERS_OUTER[ours], False
    _, layer, rest = ours.split(".", 2)
    theirs, swapped = TRANSFORMERS_LAYER[rest]
    return f"model.layers.{layer}.{theirs}", swapped


def transformers_model(model: HookedGptOss, dtype: torch.dtype = torch.float32) -> GptOssForCausalLM:
    """transformers' model (eager attention, eager experts) with our model's weights."""
    config = transformers_config(model.config)
    theirs = GptOssForCausalLM(config).eval()
    theirs.set_experts_implementation("eager")
    state = {}
    for name, value in model.state_dict().items():
        their_name, swapped = transformers_name(name)
        state[their_name] = (value.transpose(-1, -2) if swapped else value).detach().float()
    theirs.load_state_dict(state, strict=True)
    theirs.to(dtype)
    # .to() also rounds the rotary frequencies, which from_pretrained does not.
    theirs.model.rotary_emb = GptOssRotaryEmbedding(config)
    return theirs


# ------------------------------------------------------------------------------------------------------- OpenAI
def openai_config(config: Config) -> object:
    """The same shape in OpenAI's words."""
    return openai_code().ModelConfig(
        num_hidden_layers=config.n_layers,
        num_experts=config.n_experts,
        experts_per_token=config.experts_per_token,
        vocab_size=config.d_vocab,
        hidden_size=config.d_model,
        intermediate_size=config.d_mlp,
        swiglu_limit=config.swiglu_limit,
        head_dim=config.d_head,
        num_attention_heads=config.n_heads,
        num_key_value_heads=config.n_key_value_heads,
        sliding_window=config.sliding_window,
        initial_context_length=config.rope.original_context,
        rope_theta=config.rope.theta,
        rope_scaling_factor=config.rope.factor,
        rope_ntk_alpha=config.rope.beta_slow,
        rope_ntk_beta=config.rope.beta_fast,
    )


def openai_names(config: Config) -> dict[str, tuple[str, ...]]:
    """OpenAI's name of every parameter → ours, joined along the rows."""
    return OPENAI_OUTER | {
        f"block.{layer}.{name}": tuple(f"blocks.{layer}.{part}" for part in ours)
        for layer in range(config.n_layers)
        for name, ours in OPENAI_LAYER.items()
    }


def openai_model(model: HookedGptOss, dtype: torch.dtype = torch.float32) -> nn.Module:
    """OpenAI's model with our model's weights. It takes one row of tokens [pos], without a batch axis.

    Its code fixes eps, the alternation of layers and truncate=False, so the config must have these.
    """
    config, state = model.config, model.state_dict()
    theirs = openai_code().Transformer(openai_config(config)).eval()
    if dtype != torch.bfloat16:  # bfloat16 by construction, with float32 norms
        theirs.to(dtype)
    names = openai_names(config)
    theirs.load_state_dict({name: torch.cat([state[part] for part in ours]) for name, ours in names.items()})
    return theirs
