"""bfloat16: no farther from either reference than the references are from each other.

Every trial is a random model whose weights are bfloat16 numbers, run by all three implementations in bfloat16 on the
same tokens. Ours holds its experts dense, and packed, where the references have the numbers that the bytes stand for.
A distance is the root mean square of the logits' difference over vocabulary and tokens:

- free: each implementation routes as it likes; over tokens whose expert sets agree in all three, at every layer. Sets
  that differ are counted apart. (Earlier tokens that were routed otherwise still reach these through attention.)
- equal routes: all three take the experts that the exact float32 model takes, each with its own weights; all tokens.

How "no farther" is decided over the trials is said in distances.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from tests.forms import DENSE, held
from tests.golden.distances import REFERENCES, check_distances, is_not_above_zero
from tests.golden.references import openai_model, transformers_model
from tests.golden.routes import Implementation, flips, sets
from tests.golden.shapes import model_in, random_model, random_shape, random_tokens, rounded

N_TRIALS, N_PACKED_TRIALS = 32, 24


@dataclass
class Trial:
    """What the implementations gave for one model and text: by name, ours as "ours"."""

    free: dict[str, Tensor]
    forced: dict[str, Tensor]
    flipped: dict[tuple[str, str], Tensor]

    @property
    def agreed(self) -> Tensor:
        """[pos] true where all three took the same experts at every layer."""
        return ~torch.stack(list(self.flipped.values())).any(0).any(0)


def make_trial(seed: int, form: str) -> Trial:
    config = random_shape(seed, form, n_layers=3, d_vocab=100)
    exact = rounded(random_model(config, seed, form))
    implementations = {
        "ours": Implementation(held(model_in(exact, torch.bfloat16), form)),
        "transformers": Implementation(transformers_model(exact, torch.bfloat16)),
        "openai": Implementation(openai_model(exact, torch.bfloat16)),
    }
    tokens = random_tokens(config, seed, 2 * config.sliding_window + 30)
    free, router_logits = {}, {}
    for name, implementation in implementations.items():
        free[name], router_logits[name] = implementation.run(tokens)
    k = config.experts_per_token
    pairs = (("ours", "transformers"), ("ours", "openai"), REFERENCES)
    flipped = {pair: flips(router_logits[pair[0]], router_logits[pair[1]], k) for pair in pairs}
    routes = sets(Implementation(exact).run(tokens)[1], k)
    forced = {name: implementation.run_with(routes, tokens) for name, implementation in implementations.items()}
    return Trial(free, forced, flipped)


@pytest.fixture(scope="module")
def trials(form: str, seed: int) -> list[Trial]:
    return [make_trial(seed + n, form) for n in range(N_TRIALS if form == DENSE else N_PACKED_TRIALS)]


def test_logits_are_no_farther_from_a_reference_than_the_references_from_each_other(trials, form, measured, seed):
    agreed = [{name: logits[trial.agreed] for name, logits in trial.free.items()} for trial in trials]
    kept = sum(int(trial.agreed.sum()) for trial in trials) / sum(len(trial.agreed) for trial in trials)
    assert kept > 0.5
    check_distances(agreed, form, "bfloat16 logits, tokens that agree, rms Δ", measured, seed)


def test_logits_on_equal_routes_are_no_farther_either(trials, form, measured, seed):
    check_distances([trial.forced for trial in trials], form, "bfloat16 logits, equal routes, rms Δ", measured, seed)


def test_near_tied_routes_flip_no_more_often_than_between_the_references(trials, form, measured, seed):
    row = "bfloat16 flipped expert sets, share"
    between = [trial.flipped[REFERENCES].float().mean().item() for trial in trials]
    measured.record_in(form, row, "between them", sum(between) / len(between))
    for reference in REFERENCES:
        ours = [trial.flipped["ours", reference].float().mean().item() for trial in trials]
        measured.record_in(form, row, reference, sum(ours) / len(ours))
        excess = [mine - theirs for mine, theirs in zip(ours, between, strict=True)]
        assert is_not_above_zero(excess), f"{form}: {ours} from {reference}, {between} between, seed {seed}"
