"""A small model in float64, bare and with a tokenizer of bytes that knows harmony's special tokens."""

from collections.abc import Iterator

import jaxtyping
import pytest
import torch
from jaxtyping import Int
from tokenizers import AddedToken
from tokenizers import Tokenizer as Backend
from tokenizers.decoders import ByteLevel as ByteDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from torch import Tensor

from workbench.model import Config, HookedGptOss, Rope, random_weights
from workbench.text import Tokenizer

SPECIAL = "startoftext endoftext return constrain channel start end message call".split()
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
    d_vocab=270,
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
    """Layers: sliding, full, sliding; 6 experts, top 2; without a tokenizer."""
    return random_weights(HookedGptOss(SMALL), seed)


@pytest.fixture(scope="session")
def reader(seed: int) -> HookedGptOss:
    """The same with a tokenizer: a token a byte, and harmony's special tokens."""
    backend = Backend(BPE({letter: i for i, letter in enumerate(sorted(ByteLevel.alphabet()))}, []))
    backend.pre_tokenizer, backend.decoder = ByteLevel(add_prefix_space=False), ByteDecoder()
    backend.add_special_tokens([AddedToken(f"<|{name}|>", special=True) for name in SPECIAL])
    return random_weights(HookedGptOss(SMALL, tokenizer=Tokenizer(backend)), seed)


@pytest.fixture(scope="session")
def tokens(seed: int) -> Int[Tensor, "batch pos"]:
    """Two rows of 9 tokens, beyond the window of 4."""
    return torch.randint(0, SMALL.d_vocab, (2, 9), generator=torch.Generator().manual_seed(seed))


@pytest.fixture(autouse=True)
def left_as_found(model: HookedGptOss) -> Iterator[None]:
    """No test may leave a hook behind; none needs gradients."""
    with torch.no_grad():
        yield
    assert not model.list_hooks()


@pytest.fixture
def as_in_a_notebook() -> Iterator[None]:
    """Types are not checked at run time, as they are in tests: our own messages must be the ones that show."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
