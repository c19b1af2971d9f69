"""The small model in every form, in float32, for TransformerLens' own code to work on."""

import pytest
from jaxtyping import Int
from torch import Tensor

from tests.forms import FORMS, held_as
from tests.small import SMALL, left_as_found, plain, rows, small_model
from workbench.model import HookedGptOss

__all__ = ["left_as_found", "plain"]

WIDER = SMALL.with_(d_model=32, d_mlp=24, d_vocab=61, sliding_window=5, dtype="float32")

form = held_as(*FORMS)


@pytest.fixture(scope="module")
def model(form: str, seed: int) -> HookedGptOss:
    return small_model(WIDER, form, seed)


@pytest.fixture(scope="module")
def tokens(seed: int) -> Int[Tensor, "batch pos"]:
    """Two rows of 14 tokens, well beyond the window of 5."""
    return rows(WIDER, seed, 14)
