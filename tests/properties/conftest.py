"""The small model in every form: in float64, but in float32 for the native engine."""

import pytest

from tests.forms import FORMS, held_as
from tests.small import SMALL, as_in_a_notebook, left_as_found, plain, small_model, tokens, without_gradients
from workbench.model import HookedGptOss

__all__ = ["as_in_a_notebook", "left_as_found", "plain", "tokens", "without_gradients"]

form = held_as(*FORMS)


@pytest.fixture(scope="module")
def model(form: str, seed: int) -> HookedGptOss:
    return small_model(SMALL, form, seed)
