"""nano, some of its text, and a dictionary trained on one of its streams."""

import pytest
import torch

from tests.dictionaries.trained import SITE, trained
from tests.small import as_in_a_notebook
from workbench.activations import Run, run
from workbench.checkpoints import load
from workbench.dictionaries import Dictionary
from workbench.model import HookedGptOss

__all__ = ["as_in_a_notebook"]

TEXTS = (
    "Mia lives in the park. Tom lives in the mill. Where is Mia?",
    "One day Ana walked to the mill and gave the book to Tom. Tom thanked Ana.",
    "The red box is in the garden. The blue box is in the kitchen.",
    "Tom and Mia went to the store. Mia gave a book to Tom.",
)


@pytest.fixture(scope="session")
def nano() -> HookedGptOss:
    return load("nano")


@pytest.fixture(scope="session")
def runs(nano) -> list[Run]:
    """One of several rows with padding, and one for each text."""
    return [run(nano, list(TEXTS), sites=[SITE]), *(run(nano, text, sites=[SITE]) for text in TEXTS[:2])]


@pytest.fixture(scope="session")
def stream(runs) -> torch.Tensor:
    """[token d_model]"""
    return runs[0][SITE][runs[0].attention_mask]


@pytest.fixture(scope="session")
def dictionary(stream) -> Dictionary:
    return trained(stream, n_features=256, k=8, steps=200)


@pytest.fixture(scope="session")
def tokens(runs) -> torch.Tensor:
    return runs[1].tokens


@pytest.fixture(autouse=True)
def nano_left_as_found(nano, tokens, runs):
    """After each test the model has no hook and gives the same logits bit for bit."""
    yield
    assert not nano.list_hooks() and not any(point._forward_hooks for point in nano.hook_points())
    with torch.no_grad():
        assert torch.equal(nano(tokens), runs[1].logits)
