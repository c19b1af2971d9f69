"""A model small enough to train within a test, on nano's own tokenizer."""

import torch

from workbench.model import Config, HookedGptOss, Rope, random_weights
from workbench.training.bpe import D_VOCAB

SMALL = Config(
    n_layers=2,
    d_model=32,
    n_heads=4,
    n_key_value_heads=2,
    d_head=16,
    d_mlp=32,
    n_experts=4,
    experts_per_token=2,
    d_vocab=D_VOCAB,
    n_ctx=512,
    sliding_window=16,
    rope=Rope(theta=10_000.0, factor=16.0, original_context=256),
    dtype="float32",
    bos_token_id=0,
    pad_token_id=1,
    eos_token_ids=(2,),
    name="small",
)


def random_model(seed: int, config: Config = SMALL) -> HookedGptOss:
    """A model whose every parameter, sinks and biases too, differs from zero."""
    return random_weights(HookedGptOss(config, dtype=torch.float32), seed)
