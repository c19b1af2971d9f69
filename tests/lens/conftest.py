"""A small model with every part of gpt-oss, in float32, for TransformerLens' own code to work on."""

from collections.abc import Iterator

import pytest
import torch
from jaxtyping import Int
from torch import Tensor

from workbench.model import Config, HookedGptOss, Rope, random_weights

SMALL = Config(
    name="small",
    n_layers=3,
    d_model=32,
    n_heads=4,
    n_key_value_heads=2,
    d_head=16,
    d_mlp=24,
    n_experts=6,
    experts_per_token=2,
    d_vocab=61,
    n_ctx=512,
    sliding_window=5,
    rope=Rope(theta=10_000.0, factor=16.0, original_context=256),
    dtype="float32",
    bos_token_id=None,
    pad_token_id=0,
    eos_token_ids=(),
)


@pytest.fixture(scope="session")
def model(seed: int) -> HookedGptOss:
    """Layers: sliding, full, sliding; 4 query heads on 2 key-value heads; 6 experts, top 2."""
    return random_weights(HookedGptOss(SMALL), seed)


@pytest.fixture(scope="session")
def double(seed: int) -> HookedGptOss:
    """The same shape in float64, where a finite difference is worth comparing with."""
    return random_weights(HookedGptOss(SMALL, dtype=torch.float64), seed)


@pytest.fixture(scope="session")
def tokens(seed: int) -> Int[Tensor, "batch pos"]:
    """Two rows of 14 tokens, well beyond the window of 5."""
    return torch.randint(0, SMALL.d_vocab, (2, 14), generator=torch.Generator().manual_seed(seed))


@pytest.fixture(autouse=True)
def left_as_found(model: HookedGptOss, double: HookedGptOss) -> Iterator[None]:
    """No test may leave a hook behind; gradients are cleared."""
    yield
    model.zero_grad()
    double.zero_grad()
    left = model.list_hooks()
    model.reset_hooks(including_permanent=True)
    assert not left
