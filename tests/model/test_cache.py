"""The KV cache: text fed in pieces gives what the whole text gives."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.golden.references import transformers_model
from tests.golden.routes import Implementation, margins
from tests.golden.shapes import random_model, random_shape, random_tokens
from workbench.model import HookedGptOss, KeyValueCache
from workbench.model.config import FULL, SLIDING

N = 20
WINDOW = 6
TOLERANCE = 1e-5
SITES = [
    f"blocks.{layer}.{site}"
    for layer in range(3)
    for site in ("attn.hook_attn_scores", "attn.hook_pattern", "mlp.hook_router_logits")
]


def model_and_text(seed: int, window: int, **shape) -> tuple[HookedGptOss, Tensor]:
    """A model and two rows without near-tied routes, whose logits therefore depend on nothing but the text."""
    for attempt in range(100):
        config = random_shape(seed + attempt, n_layers=3, sliding_window=window, **shape)
        model, tokens = random_model(config, seed + attempt), random_tokens(config, seed + attempt, 2, N)
        if margins(Implementation(model).run(tokens)[1], config.experts_per_token).min() > 1e-4:
            return model, tokens
    raise AssertionError(f"no text without near-tied routes, seed {seed}")


@pytest.fixture(scope="module", autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def whole(seed: int) -> tuple[HookedGptOss, Tensor, Tensor, dict]:
    """Model, tokens, and the logits and patterns of the text run at once."""
    model, tokens = model_and_text(seed, WINDOW)
    logits, cache = model.run_with_cache(tokens)
    return model, tokens, logits, cache


def in_pieces(model: HookedGptOss, tokens: Tensor, cuts: list[int], mask: Tensor | None = None):
    """(start, end, logits, activations, the KV cache) after each piece; cuts are the columns between the pieces."""
    past = model.new_cache()
    for start, end in pairwise([0, *sorted(set(cuts)), tokens.shape[1]]):
        given_mask = None if mask is None else mask[:, start:end]
        logits, cache = model.run_with_cache(
            tokens[:, start:end], past_kv_cache=past, attention_mask=given_mask, names_filter=SITES
        )
        yield start, end, logits, cache, past


CUTS = st.lists(st.integers(1, N - 1), max_size=N - 1)


@given(cuts=CUTS)
@settings(max_examples=12)
def test_pieces_of_any_length_give_the_logits_of_the_whole(whole, cuts: list[int]):
    model, tokens, expected, _ = whole
    logits = torch.cat([piece for _, _, piece, _, _ in in_pieces(model, tokens, cuts)], dim=1)
    assert (logits - expected).abs().max() <= TOLERANCE


@given(cuts=CUTS)
@settings(max_examples=8)
def test_patterns_in_pieces_are_the_rows_of_the_whole_pattern_with_its_key_positions(whole, cuts: list[int]):
    model, tokens, _, expected = whole
    for start, end, _, cache, _ in in_pieces(model, tokens, cuts):
        for layer in range(model.config.n_layers):
            rows = cache["pattern", layer]
            assert rows.shape[-2:] == (end - start, end)
            assert (rows - expected["pattern", layer][:, :, start:end, :end]).abs().max() <= TOLERANCE
            scores, all_scores = (c[f"blocks.{layer}.attn.hook_attn_scores"] for c in (cache, expected))
            visible = all_scores[:, :, start:end, :end].isfinite()
            # Keys that left a sliding layer's cache are shown as not visible, which they are.
            assert torch.equal(scores.isfinite(), visible)
            assert (scores - all_scores[:, :, start:end, :end])[visible].abs().max() <= TOLERANCE


@given(cuts=CUTS)
@settings(max_examples=8)
def test_sliding_layers_hold_no_more_than_their_window_less_the_next_query(whole, cuts: list[int]):
    model, tokens, _, _ = whole
    for _, end, _, _, past in in_pieces(model, tokens, cuts):
        assert past.n_tokens == end
        for kind, layer in zip(model.config.layer_types, past.layers, strict=True):
            columns = end if kind == FULL else min(end, WINDOW - 1)
            assert layer.keys.shape == layer.values.shape
            assert layer.keys.shape[1] == columns
            assert layer.first_column == end - columns
            # A slice of a longer tensor would keep all of it in memory.
            assert layer.keys.untyped_storage().nbytes() == layer.keys.nbytes


@pytest.mark.parametrize("window", [1, 2, N - 1, N, N + 5])
def test_windows_of_any_size_work_in_pieces(seed: int, window: int):
    model, tokens = model_and_text(seed, window)
    expected = model(tokens)
    for cuts in ([1], list(range(1, N)), [3, 4, 15]):
        logits = torch.cat([piece for _, _, piece, _, _ in in_pieces(model, tokens, cuts)], dim=1)
        assert (logits - expected).abs().max() <= TOLERANCE, f"{cuts}, {model.config}"


@pytest.mark.parametrize("kind", [SLIDING, FULL])
def test_layers_of_one_kind_work_in_pieces(seed: int, kind: str):
    model, tokens = model_and_text(seed, WINDOW, layer_types=(kind,) * 3)
    logits = torch.cat([piece for _, _, piece, _, _ in in_pieces(model, tokens, [9, 10, 11])], dim=1)
    assert (logits - model(tokens)).abs().max() <= TOLERANCE


@given(cuts=CUTS, padding=st.integers(1, N - 2))
@settings(max_examples=12)
def test_left_padded_rows_in_pieces_equal_the_whole_and_the_row_alone(whole, cuts: list[int], padding: int):
    model, tokens, _, _ = whole
    mask = torch.ones_like(tokens, dtype=torch.bool)
    mask[1, :padding] = False
    expected, expected_cache = model.run_with_cache(tokens, attention_mask=mask, names_filter=SITES)
    routers = torch.stack([expected_cache[site] for site in SITES if site.endswith("router_logits")])
    assume((margins(routers, model.config.experts_per_token)[:, mask] > 1e-4).all())  # a text that padding made another
    alone = model(tokens[1:, padding:])
    pieces = list(in_pieces(model, tokens, cuts, mask))
    logits = torch.cat([piece for _, _, piece, _, _ in pieces], dim=1)
    assert (logits - expected)[mask].abs().max() <= TOLERANCE
    assert (logits[1:, padding:] - alone).abs().max() <= TOLERANCE
    for start, end, _, cache, _ in pieces:
        for layer in range(model.config.n_layers):
            rows = expected_cache["pattern", layer][:, :, start:end, :end]
            assert (cache["pattern", layer] - rows).abs().max() <= TOLERANCE
            assert (cache["pattern", layer][1, :, :, :padding] == 0).all()


def test_logits_in_steps_are_those_of_transformers_own_cache(whole):
    model, tokens, _, _ = whole
    theirs, past, ours = transformers_model(model), None, model.new_cache()
    for start, end in pairwise([0, 9, 10, 11, 12, 16, N]):
        made = theirs(tokens[:, start:end], past_key_values=past, use_cache=True)
        past = made.past_key_values
        logits = model(tokens[:, start:end], past_kv_cache=ours)
        assert (logits - made.logits).abs().max() <= 1e-4, f"columns {start} to {end}, {model.config}"


def test_a_hook_that_raises_leaves_the_cache_as_it_was(whole):
    model, tokens, expected, _ = whole
    past = model.new_cache()
    model(tokens[:, :10], past_kv_cache=past)

    def fail(value, hook):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        model.run_with_hooks(tokens[:, 10:], past_kv_cache=past, fwd_hooks=[("blocks.1.hook_resid_mid", fail)])
    assert past.n_tokens == 10
    rest = model(tokens[:, 10:], past_kv_cache=past)
    assert (rest - expected[:, 10:]).abs().max() <= TOLERANCE


def test_an_edit_of_values_stays_in_the_cache(whole):
    model, tokens, _, _ = whole
    past: KeyValueCache = model.new_cache()
    site, read = "blocks.1.attn.hook_v", "blocks.1.attn.hook_z"  # layer 1 sees everything
    model.run_with_hooks(tokens[:, :10], past_kv_cache=past, fwd_hooks=[(site, lambda value, hook: 2 * value)])
    _, later = model.run_with_cache(tokens[:, 10:], past_kv_cache=past, names_filter=read)
    with model.hooks(fwd_hooks=[(site, first_ten_twice)]):
        _, at_once = model.run_with_cache(tokens, names_filter=read)
    assert (later[read] - at_once[read][:, 10:]).abs().max() <= TOLERANCE


def first_ten_twice(value: Tensor, hook) -> Tensor:
    return torch.cat((2 * value[:, :10], value[:, 10:]), dim=1)


def test_right_padding_is_refused_with_a_cache(whole):
    model, tokens, _, _ = whole
    mask = torch.ones_like(tokens)
    mask[0, -1] = 0
    with pytest.raises(ValueError, match="padded on the left"):
        model(tokens, attention_mask=mask, past_kv_cache=model.new_cache())


def test_positions_count_on_after_the_cache(whole):
    model, tokens, _, _ = whole
    seen = []
    past = model.new_cache()
    for start, end in ((0, 10), (10, 12)):
        model.run_with_hooks(
            tokens[:, start:end],
            past_kv_cache=past,
            fwd_hooks=[("hook_embed", lambda value, hook: seen.append(model.positions.tolist()))],
        )
    assert seen == [[list(range(10))], [[10, 11]]]
    assert model.positions is None
