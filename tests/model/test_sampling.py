"""Drawing: the distribution that was asked for, and nothing outside it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from tests.golden.shapes import random_model, random_shape, random_tokens
from workbench.model import HookedGptOss

N_DRAWS = 4000
# A right sampler fails one in a million runs; the wrong ones below fail at once.
LEAST_P = 1e-6

SETTINGS = {
    "as the model says": {"temperature": 1.0},
    "cold": {"temperature": 0.6},
    "hot": {"temperature": 1.8},
    "top-k": {"temperature": 1.0, "top_k": 5},
    "top-k of one": {"temperature": 1.0, "top_k": 1},
    "top-k beyond the vocabulary": {"temperature": 1.0, "top_k": 1000},
    "top-p": {"temperature": 1.0, "top_p": 0.6},
    "tiny top-p": {"temperature": 1.0, "top_p": 1e-6},
    "top-p of one": {"temperature": 1.0, "top_p": 1.0},
    "all three": {"temperature": 1.3, "top_k": 12, "top_p": 0.7},
}


@pytest.fixture(scope="module")
def model(seed: int) -> HookedGptOss:
    return random_model(random_shape(seed, n_layers=2, d_vocab=30), seed)


def drawn(model: HookedGptOss, seed: int, n: int = N_DRAWS, **options) -> tuple[Tensor, Tensor]:
    """Tokens [draw] that follow one prompt, and the logits [d_vocab] they were drawn from."""
    prompt = random_tokens(model.config, seed, 1, 3).expand(n, 3)
    step = next(model.generate(prompt, 1, seed=seed, stop_at_eos=False, **options))
    return step.tokens, step.logits[0]


def asked_for(logits: Tensor, temperature: float, top_k: int | None = None, top_p: float | None = None) -> Tensor:
    """The probabilities [d_vocab], by transformers' own processors in the order in which it applies them."""
    scores = TemperatureLogitsWarper(temperature)(None, logits[None].clone())
    if top_k is not None:
        scores = TopKLogitsWarper(top_k)(None, scores)
    if top_p is not None:
        scores = TopPLogitsWarper(top_p)(None, scores)
    return scores[0].double().softmax(-1)


def p_value(counts: Tensor, probabilities: Tensor) -> float:
    """Of Pearson's chi-square test. Tokens too rare for it are counted together, with enough others to expect 5."""
    expected, order = (probabilities * counts.sum()).sort()
    seen = counts[order].double()
    together = max(int((expected.cumsum(0) < 5).sum()) + 1, int((expected < 5).sum()))
    seen = torch.cat((seen[:together].sum()[None], seen[together:]))
    expected = torch.cat((expected[:together].sum()[None], expected[together:]))
    if len(seen) < 2:
        return 1.0
    statistic = ((seen - expected) ** 2 / expected).sum()
    return torch.special.gammaincc(torch.tensor((len(seen) - 1) / 2).double(), statistic / 2).item()


@pytest.mark.parametrize("options", SETTINGS.values(), ids=SETTINGS.keys())
def test_tokens_are_drawn_from_the_distribution_that_was_asked_for(model: HookedGptOss, seed: int, options: dict):
    tokens, logits = drawn(model, seed, **options)
    probabilities = asked_for(logits, **options)
    counts = torch.bincount(tokens, minlength=model.config.d_vocab)
    assert counts[probabilities == 0].sum() == 0, f"drawn from outside, seed {seed}"
    assert p_value(counts, probabilities) > LEAST_P, f"seed {seed}"


@pytest.mark.parametrize("wrong", [{"temperature": 1.8}, {"temperature": 1.0, "top_k": 15}, {"temperature": 0.6}])
def test_this_test_tells_distributions_apart(model: HookedGptOss, seed: int, wrong: dict):
    tokens, logits = drawn(model, seed, **wrong)
    counts = torch.bincount(tokens, minlength=model.config.d_vocab)
    assert p_value(counts, asked_for(logits, temperature=1.0)) < LEAST_P, f"seed {seed}"


def test_temperature_zero_takes_the_likeliest(model: HookedGptOss, seed: int):
    tokens, logits = drawn(model, seed, n=20, temperature=0.0)
    assert (tokens == logits.argmax()).all()


def test_rows_of_a_batch_are_drawn_apart(model: HookedGptOss, seed: int):
    tokens, _ = drawn(model, seed, n=200, temperature=1.0)
    assert tokens.unique().numel() > 3


def text(model: HookedGptOss, seed: int | None) -> tuple[list[int], int]:
    made = model.generate(torch.tensor([1, 2, 3]), 20, temperature=1.0, seed=seed, stop_at_eos=False).finish()
    return made.new_tokens[0].tolist(), made.seed


def test_a_seed_gives_the_same_text_again_and_another_seed_another(model: HookedGptOss, seed: int):
    assert text(model, seed) == text(model, seed)
    assert text(model, seed)[0] != text(model, seed + 1)[0]


def test_without_a_seed_each_text_is_new_and_its_seed_is_kept(model: HookedGptOss):
    first, kept = text(model, None)
    second, _ = text(model, None)
    assert first != second
    assert text(model, kept)[0] == first


def test_a_draw_neither_reads_nor_moves_torchs_own_generator(model: HookedGptOss, seed: int):
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = text(model, seed)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert text(model, seed) == first


def test_however_cold_the_likeliest_token_is_drawn(model: HookedGptOss):
    greedy = next(model.generate(torch.tensor([1, 2, 3]), 1, stop_at_eos=False))
    for temperature in (1e-30, 1e-38, 1e-40, 5e-324):
        drawn = next(model.generate(torch.tensor([1, 2, 3]), 1, temperature=temperature, seed=1, stop_at_eos=False))
        assert torch.equal(drawn.tokens, greedy.tokens)
