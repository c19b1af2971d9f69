"""Fixtures of the training tests."""

from pathlib import Path

import pytest
from tokenizers import Tokenizer

from workbench.training.build import read_tokenizer
from workbench.training.encoding import Encoder


@pytest.fixture(scope="session")
def nano_folder(root: Path) -> Path:
    """The committed embedded model."""
    return root / "data" / "nano"


@pytest.fixture(scope="session")
def tokenizer(nano_folder: Path) -> Tokenizer:
    """nano's tokenizer (that training it again gives the same one has its own test)."""
    return read_tokenizer(nano_folder)


@pytest.fixture(scope="session")
def encoder(tokenizer: Tokenizer) -> Encoder:
    """It, with the trainer's weights."""
    return Encoder(tokenizer)
