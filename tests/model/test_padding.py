"""A padded row is the row: same logits, same patterns, and nobody looks at the padding."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.golden.references import transformers_model
from tests.golden.routes import Implementation, margins, sets
from tests.golden.shapes import random_model, random_shape, random_tokens
from workbench.model import HookedGptOss

LENGTHS = (29, 7, 18)
TOLERANCE = 1e-5
SIDES = ("left", "right")


class Padded:
    """Three texts of different lengths, alone and as one padded batch. The window is shorter than two of them."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.config = random_shape(seed, n_layers=3, sliding_window=5)
        self.model = random_model(self.config, seed)
        self.rows = [random_tokens(self.config, seed + n, n) for n in LENGTHS]
        self.alone = [self.model(row)[0] for row in self.rows]

    def batch(self, side: str) -> tuple[Tensor, Tensor]:
        """Tokens and mask [batch pos]; the padding is token 0, a token like any other to the model."""
        longest = max(LENGTHS)
        tokens, mask = torch.zeros(len(LENGTHS), longest, dtype=torch.long), torch.zeros(len(LENGTHS), longest)
        for i, row in enumerate(self.rows):
            where = self.span(i, side)
            tokens[i, where], mask[i, where] = row, 1
        return tokens, mask.bool()

    def span(self, i: int, side: str) -> slice:
        """The columns of row i that hold real tokens."""
        return slice(max(LENGTHS) - LENGTHS[i], max(LENGTHS)) if side == "left" else slice(0, LENGTHS[i])


@pytest.fixture(scope="module", autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def padded(seed: int) -> Padded:
    """Texts without near-tied routes: where float32 cannot tell two experts apart, a row may rightly differ."""
    for attempt in range(50):
        case = Padded(seed + attempt)
        k = case.config.experts_per_token
        if min(margins(Implementation(case.model).run(row)[1], k).min() for row in case.rows) > 1e-4:
            return case
    raise AssertionError(f"no texts without near-tied routes, seed {seed}")


@pytest.mark.parametrize("side", SIDES)
def test_logits_of_real_tokens_are_those_without_padding(padded: Padded, side: str):
    tokens, mask = padded.batch(side)
    logits = padded.model(tokens, attention_mask=mask)
    assert logits.isfinite().all()
    for i, alone in enumerate(padded.alone):
        assert (logits[i, padded.span(i, side)] - alone).abs().max() <= TOLERANCE, f"row {i}, {padded.config}"


@pytest.mark.parametrize("side", SIDES)
def test_the_mask_is_taken_as_zeros_and_ones_as_well(padded: Padded, side: str):
    tokens, mask = padded.batch(side)
    as_numbers = padded.model(tokens, attention_mask=mask.long())
    assert torch.equal(as_numbers, padded.model(tokens, attention_mask=mask))


@pytest.mark.parametrize("side", SIDES)
def test_logits_of_real_tokens_are_those_of_transformers_with_the_mask(padded: Padded, side: str):
    tokens, mask = padded.batch(side)
    theirs = transformers_model(padded.model)
    positions = (mask.long().cumsum(1) - 1).clamp(min=0)  # as its generate does
    expected = theirs(tokens, attention_mask=mask.long(), position_ids=positions).logits
    logits = padded.model(tokens, attention_mask=mask)
    assert (logits - expected)[mask].abs().max() <= 1e-4, f"{padded.config}"


@pytest.mark.parametrize("side", SIDES)
def test_padding_gets_no_attention_and_gives_none(padded: Padded, side: str):
    tokens, mask = padded.batch(side)
    _, cache = padded.model.run_with_cache(tokens, attention_mask=mask)
    for layer in range(padded.config.n_layers):
        pattern, sink = cache["pattern", layer], cache[f"blocks.{layer}.attn.hook_sink"]
        assert (pattern.permute(0, 3, 1, 2)[~mask] == 0).all(), "a key that is padding"
        assert (pattern.permute(0, 2, 1, 3)[~mask] == 0).all(), "a query that is padding"
        assert (sink[~mask] == 1).all()
        total = pattern.sum(-1).transpose(1, 2) + sink
        assert (total - 1).abs().max() <= TOLERANCE


@pytest.mark.parametrize("side", SIDES)
def test_patterns_of_real_tokens_are_those_without_padding(padded: Padded, side: str):
    tokens, mask = padded.batch(side)
    _, cache = padded.model.run_with_cache(tokens, attention_mask=mask)
    for i, row in enumerate(padded.rows):
        _, alone = padded.model.run_with_cache(row)
        span = padded.span(i, side)
        for layer in range(padded.config.n_layers):
            real = cache["pattern", layer][i, :, span, span]
            assert (real - alone["pattern", layer][0]).abs().max() <= TOLERANCE


@pytest.mark.parametrize("side", SIDES)
def test_what_stands_in_the_padding_changes_nothing(padded: Padded, side: str):
    tokens, mask = padded.batch(side)
    other = tokens.masked_fill(~mask, padded.config.d_vocab - 1)
    logits, same = (padded.model(t, attention_mask=mask) for t in (tokens, other))
    assert (logits - same)[mask].abs().max() <= TOLERANCE


@pytest.mark.parametrize("side", SIDES)
def test_the_loss_counts_real_tokens_only(padded: Padded, side: str):
    tokens, mask = padded.batch(side)
    loss = padded.model(tokens, return_type="loss", attention_mask=mask)
    alone = [
        torch.nn.functional.cross_entropy(logits[:-1], row[1:], reduction="sum")
        for logits, row in zip(padded.alone, padded.rows, strict=True)
    ]
    assert abs(loss - sum(alone) / sum(n - 1 for n in LENGTHS)) <= TOLERANCE
    per_token = padded.model(tokens, return_type="loss", attention_mask=mask, loss_per_token=True)
    assert per_token.shape == (len(LENGTHS), max(LENGTHS) - 1)
    assert abs(per_token.sum() - sum(alone)) <= 1e-3
    assert ((per_token != 0).sum(1) == torch.tensor([n - 1 for n in LENGTHS])).all()


def test_routes_of_real_tokens_are_those_without_padding(padded: Padded):
    tokens, mask = padded.batch("left")
    k = padded.config.experts_per_token
    _, cache = padded.model.run_with_cache(tokens, attention_mask=mask)
    for i, row in enumerate(padded.rows):
        alone = sets(Implementation(padded.model).run(row)[1], k)
        for layer in range(padded.config.n_layers):
            seen = cache[f"blocks.{layer}.mlp.hook_expert_indices"][i, padded.span(i, "left")]
            assert torch.equal(seen.sort(-1).values, alone[layer])


def test_an_all_true_mask_is_no_mask(padded: Padded):
    tokens = padded.rows[0][None]
    assert torch.equal(padded.model(tokens, attention_mask=torch.ones_like(tokens)), padded.model(tokens))


def test_padding_never_becomes_nan_in_a_gradient(padded: Padded):
    tokens, mask = padded.batch("left")
    model: HookedGptOss = padded.model
    with torch.enable_grad():
        model.zero_grad()
        model(tokens, return_type="loss", attention_mask=mask).backward()
        assert all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)
        model.zero_grad(set_to_none=True)


@pytest.mark.parametrize("shape", [(1, 3), (2, 2), (1, 1)])
def test_a_mask_of_another_shape_is_refused(padded: Padded, shape: tuple[int, int]):
    with pytest.raises(ValueError, match=r"attention_mask.*expected one entry a token"):
        padded.model(torch.tensor([[1, 2]]), attention_mask=torch.ones(shape, dtype=torch.long))


def test_a_mask_of_other_numbers_is_refused(padded: Padded):
    with pytest.raises(ValueError, match=r"attention_mask.*expected 1 or True"):
        padded.model(torch.tensor([[1, 2]]), attention_mask=torch.tensor([[1, 2]]))


@pytest.mark.parametrize("return_type", ["logits", "logprobs"])
@pytest.mark.parametrize("side", SIDES)
def test_logits_at_last_are_those_of_each_rows_last_real_token(padded: Padded, side: str, return_type: str):
    tokens, mask = padded.batch(side)
    everything = padded.model(tokens, return_type, attention_mask=mask)
    with padded.model.hooks(fwd_hooks=[("ln_final.hook_scale", lambda x, hook: seen.append(x.shape))]):
        seen: list = []
        last = padded.model(tokens, return_type, attention_mask=mask, logits_at="last")
    assert seen == [(*tokens.shape, 1)]  # every site still holds every position
    for i, length in enumerate(LENGTHS):
        expected = everything[i, padded.span(i, side)][length - 1]
        torch.testing.assert_close(last[i, 0], expected, rtol=0, atol=TOLERANCE)
    alone = padded.model(padded.rows[0], return_type, logits_at="last")
    assert alone.shape == (1, 1, padded.config.d_vocab)
    torch.testing.assert_close(alone[0, 0], everything[0, padded.span(0, side)][-1], rtol=0, atol=TOLERANCE)


def test_a_loss_of_the_last_token_alone_is_refused(padded: Padded):
    for return_type in ("loss", "both"):
        with pytest.raises(ValueError, match=r"logits_at='last'.*expected 'all'"):
            padded.model(padded.rows[0], return_type, logits_at="last")
