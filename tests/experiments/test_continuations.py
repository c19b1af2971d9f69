"""What comes next, asked again and again: always as from the start, whatever was asked before."""

import numpy as np
import pytest
import torch

from workbench.activations import run
from workbench.experiments import NextToken
from workbench.interventions import AblateHead, Steer

IDS = list(range(20, 32))


def by_a_run(model, ids, specs=(), sources=None) -> np.ndarray:
    return run(model, [ids], specs, sources=sources).logits[0, -1].log_softmax(-1).numpy()


def test_a_text_read_on_is_as_one_read_from_the_start(model):
    asked, specs = NextToken(model), [AblateHead(1, 2, positions=(3, 9))]
    for n in range(1, len(IDS) + 1):
        there = [AblateHead(1, 2, positions=tuple(pos for pos in (3, 9) if pos < n))]
        np.testing.assert_allclose(asked.after(IDS[:n], specs), by_a_run(model, IDS[:n], there), atol=1e-5)


def test_another_vector_of_the_same_name_is_another_question(model):
    asked, specs = NextToken(model), [Steer("blocks.0.hook_resid_post", "push")]
    vector = torch.randn(model.config.d_model, generator=torch.Generator().manual_seed(0))
    for sources in ({"push": vector}, {"push": -vector}, {"push": vector}):
        np.testing.assert_allclose(asked.after(IDS, specs, sources), by_a_run(model, IDS, specs, sources), atol=1e-5)
    vector.mul_(3)
    changed = {"push": vector}
    np.testing.assert_allclose(asked.after(IDS, specs, changed), by_a_run(model, IDS, specs, changed), atol=1e-5)
    np.testing.assert_allclose(
        asked.after([*IDS, 5], specs, changed), by_a_run(model, [*IDS, 5], specs, changed), atol=1e-5
    )


def test_no_text_is_refused(model):
    with pytest.raises(ValueError, match="there is no text to continue"):
        NextToken(model).after([])
