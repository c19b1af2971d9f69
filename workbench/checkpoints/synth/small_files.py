"""The files beside the weights: configuration, index, and a card that says what this is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from workbench.checkpoints import huggingface, openai
from workbench.checkpoints.synth.files import Shard, index_json
from workbench.checkpoints.synth.folder import as_text
from workbench.checkpoints.synth.tokenizer import SPECIAL, special_ids
from workbench.model.config import Config


def small_files(config: Config, form: str, shards: list[Shard], seed: int) -> Iterator[tuple[str, str]]:
    """Name and text of each; config.json, without which nothing loads, comes last."""
    yield "README.md", card(config, form, shards, seed)
    if len(shards) > 1:
        yield "model.safetensors.index.json", as_text(index_json(shards))
    if form == "openai":
        yield "config.json", as_text(openai.config_json(config))
    else:
        yield "generation_config.json", as_text(huggingface.generation_json(config))
        yield "config.json", as_text(config_json(config))


def config_json(config: Config) -> dict[str, Any]:
    """config.json with the keys of the published models, which transformers 4 and 5 both read."""
    values = huggingface.config_json(config, "bfloat16", packed=True)
    # The published files leave these to the code: bfloat16, 1.702, and the beginning's id to generation_config.json.
    for key, value in (("dtype", "bfloat16"), ("swiglu_alpha", 1.702), ("bos_token_id", config.bos_token_id)):
        if values[key] == value:
            del values[key]
    rope = values["rope_parameters"]
    if rope["rope_type"] == "yarn":
        del values["rope_parameters"]
        theta = rope.pop("rope_theta")
        values |= {"rope_theta": int(theta) if theta.is_integer() else theta, "rope_scaling": rope}
        values["initial_context_length"] = config.rope.original_context
    return values | {
        "attention_dropout": 0.0,
        "experts_per_token": config.experts_per_token,
        "initializer_range": 0.02,
        "output_router_logits": False,
        "router_aux_loss_coef": 0.9,
        "use_cache": True,
    }


def card(config: Config, form: str, shards: list[Shard], seed: int) -> str:
    """README.md: nobody should take this folder for a trained model."""
    n_bytes = sum(tensor.n_bytes for shard in shards for tensor in shard.tensors)
    n_tensors = sum(len(shard.tensors) for shard in shards)
    return f"""\
# Random weights in the shape of {config.name}

Made by `workbench synth`: **random numbers, nothing was trained, and nothing was taken from a published model.** What
such a model writes has no meaning. It has the size, the format and the cost of a real checkpoint, and its activations
stay in a sound range through all layers, so it shows what a machine can do with one before a download.

| | |
|---|---|
| form | {form} |
| layers, experts | {config.n_layers}, {config.n_experts} with {config.experts_per_token} to a token |
| parameters | {config.n_params:,} |
| tensors, bytes | {n_tensors}, {n_bytes:,} in {len(shards)} file(s) |
| seed | {seed} |

## Tokenizer

{_about_tokenizer(config)}
"""


def _about_tokenizer(config: Config) -> str:
    special = special_ids(config.d_vocab)
    if special is None:
        return f"There is none: {config.d_vocab} ids are too few for a token to each byte. Give token ids."
    where = "at gpt-oss' own ids" if special is SPECIAL else f"at ids 0 to {len(special) - 1}"
    return (
        "`tokenizer.json` is a **stand-in, not gpt-oss' tokenizer**: each byte of a text is one token, and the\n"
        f"special tokens are {where}. To count tokens as gpt-oss does, put the tokenizer files of a published\n"
        "checkpoint here."
    )
