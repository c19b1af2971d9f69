"""The small model in every form, with 5 experts, top 3, on 2 layers."""

import pytest

from tests.forms import FORMS, held_as
from tests.small import SMALL, as_in_a_notebook, left_as_found, plain, small_model, tokens, without_gradients
from workbench.model import Config, HookedGptOss

__all__ = ["as_in_a_notebook", "left_as_found", "plain", "tokens", "without_gradients"]

form = held_as(*FORMS)


@pytest.fixture(scope="session")
def shape() -> Config:
    return SMALL.with_(n_layers=2, n_experts=5, experts_per_token=3)


@pytest.fixture(scope="module")
def model(form: str, shape: Config, seed: int) -> HookedGptOss:
    return small_model(shape, form, seed)
