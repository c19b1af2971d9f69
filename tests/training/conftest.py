"""Fixtures of the training tests."""

import pytest
from tokenizers import Tokenizer

from workbench.training.bpe import train_tokenizer
from workbench.training.encoding import Encoder


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """The tokenizer, trained here from nothing (seconds)."""
    return train_tokenizer(0)


@pytest.fixture(scope="session")
def encoder(tokenizer: Tokenizer) -> Encoder:
    """It, with the trainer's weights."""
    return Encoder(tokenizer)
