"""The small model in every form, bare and with a tokenizer of bytes that knows harmony's special tokens."""

import pytest
from tokenizers import AddedToken
from tokenizers import Tokenizer as Backend
from tokenizers.decoders import ByteLevel as ByteDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel

from tests.forms import FORMS, held_as
from tests.small import SMALL, as_in_a_notebook, left_as_found, plain, small_model, tokens, without_gradients
from workbench.model import HookedGptOss
from workbench.text import Tokenizer

__all__ = ["as_in_a_notebook", "left_as_found", "plain", "tokens", "without_gradients"]

SPECIAL = "startoftext endoftext return constrain channel start end message call".split()
OF_BYTES = SMALL.with_(d_vocab=270)

form = held_as(*FORMS)


@pytest.fixture(scope="module")
def model(form: str, seed: int) -> HookedGptOss:
    """Without a tokenizer."""
    return small_model(OF_BYTES, form, seed)


@pytest.fixture(scope="module")
def reader(form: str, seed: int) -> HookedGptOss:
    """The same with a tokenizer: a token a byte, and harmony's special tokens."""
    backend = Backend(BPE({letter: i for i, letter in enumerate(sorted(ByteLevel.alphabet()))}, []))
    backend.pre_tokenizer, backend.decoder = ByteLevel(add_prefix_space=False), ByteDecoder()
    backend.add_special_tokens([AddedToken(f"<|{name}|>", special=True) for name in SPECIAL])
    return small_model(OF_BYTES, form, seed, Tokenizer(backend))
