"""A small model with every part of gpt-oss, in float64, so that what must be equal is equal to the last digits."""

from collections.abc import Iterator

import jaxtyping
import pytest
import torch
from jaxtyping import Int
from torch import Tensor

from workbench.model import Config, HookedGptOss, Rope, random_weights

SMALL = Config(
    name="small",
    n_layers=3,
    d_model=24,
    n_heads=4,
    n_key_value_heads=2,
    d_head=16,
    d_mlp=16,
    n_experts=6,
    experts_per_token=2,
    d_vocab=40,
    n_ctx=512,
    sliding_window=4,
    rope=Rope(theta=10_000.0, factor=16.0, original_context=256),
    dtype="float64",
    bos_token_id=None,
    pad_token_id=0,
    eos_token_ids=(),
)


@pytest.fixture(scope="session")
def model(seed: int) -> HookedGptOss:
    """Layers: sliding, full, sliding; 4 query heads on 2 key-value heads; 6 experts, top 2."""
    return random_weights(HookedGptOss(SMALL), seed)


@pytest.fixture(scope="session")
def tokens(seed: int) -> Int[Tensor, "batch pos"]:
    """Two rows of 9 tokens, beyond the window of 4."""
    return torch.randint(0, SMALL.d_vocab, (2, 9), generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="session")
def plain(model: HookedGptOss, tokens: Int[Tensor, "batch pos"]) -> Tensor:
    """The logits that nobody edited."""
    with torch.no_grad():
        return model(tokens)


@pytest.fixture(autouse=True)
def without_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture(autouse=True)
def left_as_found(model: HookedGptOss, tokens: Tensor, plain: Tensor, without_gradients: None) -> Iterator[None]:
    """After each test the model has no hook, and gives the same logits bit for bit."""
    yield
    left = [point.name for point in model.hook_points() if point._forward_hooks or point._backward_hooks]
    model.reset_hooks(including_permanent=True)
    assert not left and not model.list_hooks() and model.positions is None
    assert torch.equal(model(tokens), plain)


@pytest.fixture
def as_in_a_notebook() -> Iterator[None]:
    """Types are not checked at run time, as they are in tests: our own messages must be the ones that show."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
