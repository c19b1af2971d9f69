"""A small model with every part of gpt-oss, and the fixtures of the tests that run, read and edit it."""

from __future__ import annotations

from collections.abc import Iterator

import jaxtyping
import pytest
import torch
from jaxtyping import Int
from torch import Tensor

from tests.forms import DENSE, NATIVE, held, packable
from workbench.model import Config, HookedGptOss, Rope, random_weights
from workbench.model.mxfp4 import BLOCK
from workbench.text import Tokenizer

# float64, so that what must be equal is equal to the last digits.
# Layers: sliding, full, sliding; 4 query heads on 2 key-value heads; 6 experts, top 2.
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


def small_model(
    config: Config, form: str, seed: int, tokenizer: Tokenizer | None = None, dtype: torch.dtype | None = None
) -> HookedGptOss:
    """Random weights in this shape and form; see ``as_held`` for the shape."""
    model = random_weights(HookedGptOss(as_held(config, form), tokenizer, dtype), seed)
    return model if form == DENSE else held(packable(model), form)


def as_held(config: Config, form: str) -> Config:
    """The shape that a form can hold: packed, d_model and d_mlp are whole blocks of 32 (two of them, where they were
    something else); the native engine multiplies no float64."""
    if form == DENSE:
        return config
    sizes = {name: getattr(config, name) for name in ("d_model", "d_mlp")}
    config = config.with_(**{name: 2 * BLOCK if size % BLOCK else size for name, size in sizes.items()})
    return config.with_(dtype="float32") if form == NATIVE else config


def rows(config: Config, seed: int, n: int = 9) -> Int[Tensor, "batch pos"]:
    """Two rows of random tokens."""
    return torch.randint(0, config.d_vocab, (2, n), generator=torch.Generator().manual_seed(seed))


# ---------------------------------------------------------------- fixtures, for conftests to import
# A conftest or test module has its own `form` (forms.held_as) and `model` (of that form).


@pytest.fixture(scope="module")
def tokens(model: HookedGptOss, seed: int) -> Int[Tensor, "batch pos"]:
    """Two rows of 9 tokens, beyond the window of 4."""
    return rows(model.config, seed)


@pytest.fixture(scope="module")
def plain(model: HookedGptOss, tokens: Int[Tensor, "batch pos"]) -> Tensor:
    """The logits that nobody edited."""
    with torch.no_grad():
        return model(tokens)


@pytest.fixture(autouse=True)
def without_gradients() -> Iterator[None]:
    """Where this is imported, a test that needs gradients switches them on."""
    with torch.no_grad():
        yield


@pytest.fixture(autouse=True)
def left_as_found(model: HookedGptOss, tokens: Tensor, plain: Tensor) -> Iterator[None]:
    """After each test the model has no hook and no gradient, and gives the same logits bit for bit."""
    yield
    left = [point.name for point in model.hook_points() if point._forward_hooks or point._backward_hooks]
    model.reset_hooks(including_permanent=True)
    model.zero_grad()
    assert not left and not model.list_hooks() and model.positions is None
    with torch.no_grad():
        assert torch.equal(model(tokens), plain)


@pytest.fixture
def as_in_a_notebook() -> Iterator[None]:
    """Types are not checked at run time, as they are in tests: our own messages must be the ones that show."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
