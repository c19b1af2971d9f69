"""One small random model with nano's tokenizer, and runs of it."""

import pytest

from tests.small import as_in_a_notebook
from workbench.activations import Run, run
from workbench.model import NANO, HookedGptOss, random_weights
from workbench.text import Chat, Tokenizer

__all__ = ["as_in_a_notebook"]

CHAT = Chat().user("Where is Mia?").assistant("In the park.", channel="final")


@pytest.fixture(scope="session")
def model(root) -> HookedGptOss:
    """Random weights, scaled so that predictions and routes are neither flat nor certain."""
    config = NANO.with_(n_layers=3, d_model=32, d_mlp=16, n_heads=4, name="small")
    small = random_weights(HookedGptOss(config, Tokenizer.from_directory(root / "data" / "nano")), seed=1)
    small.unembed.weight.data *= 4
    return small


@pytest.fixture(scope="session")
def done(model) -> Run:
    return run(model, CHAT)


@pytest.fixture(scope="session")
def padded(model) -> Run:
    """Three rows of unequal length, with their mask."""
    return run(model, ["Mia lives in the park.", "Tom", "One day Ana walked to the mill."])
