"""Gradients at the sites, in float64, where a finite difference is worth comparing with."""

import pytest
import torch
from jaxtyping import Int
from torch import Tensor

from tests.forms import DENSE, held_as
from tests.lens.conftest import WIDER
from tests.small import small_model
from workbench.model import HookedGptOss

form = held_as(DENSE)  # tests/golden/test_gradients.py differentiates packed experts at every site as well


@pytest.fixture
def double(form: str, seed: int) -> HookedGptOss:
    return small_model(WIDER, form, seed, dtype=torch.float64)


def loss_at(model: HookedGptOss, tokens: Tensor, site: str, change: Tensor) -> Tensor:
    return model.run_with_hooks(tokens, return_type="loss", fwd_hooks=[(site, lambda value, hook: value + change)])


def test_cached_gradients_are_finite_differences_at_every_site(
    double: HookedGptOss, tokens: Int[Tensor, "batch pos"], seed: int
) -> None:
    generator, step = torch.Generator().manual_seed(seed), 1e-6
    cache = double.run_with_cache(tokens, incl_bwd=True, return_type="loss")[1]
    for site, meta in double.sites.items():
        if meta.is_integer:
            assert f"{site}_grad" not in cache
            continue
        direction = torch.randn(cache[site].shape, generator=generator, dtype=torch.float64)
        slope = (cache[f"{site}_grad"] * direction).sum()
        with torch.no_grad():
            up, down = (loss_at(double, tokens, site, sign * step * direction) for sign in (1, -1))
        assert float(slope) == pytest.approx(float((up - down) / (2 * step)), rel=1e-4, abs=1e-7), site


def test_reading_gradients_changes_none(double: HookedGptOss, tokens: Int[Tensor, "batch pos"]) -> None:
    double(tokens, return_type="loss").backward()
    plain = {name: parameter.grad.clone() for name, parameter in double.named_parameters()}
    double.zero_grad()
    double.run_with_cache(tokens, incl_bwd=True, return_type="loss")
    for name, parameter in double.named_parameters():
        torch.testing.assert_close(parameter.grad, plain[name], rtol=1e-10, atol=1e-13)
