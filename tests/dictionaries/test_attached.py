"""A dictionary on nano: exact where nothing is edited, and an edit is its decoder row and nothing else."""

import pytest
import torch

from tests.dictionaries.trained import SITE, random_weights
from tests.small import as_in_a_notebook
from workbench.activations import run
from workbench.dictionaries import Dictionary, ablate, add, attached, feature_edit_hook, scale, set_to
from workbench.model import UnknownSite


def read(model, tokens, site=SITE, hooks=()):
    """(the site as the next layer gets it, logits)."""
    seen = {}

    def keep(x, hook):
        seen["x"] = x.clone()

    with torch.no_grad(), model.hooks(fwd_hooks=[*hooks, (site, keep)]):
        logits = model(tokens)
    return seen["x"], logits


__all__ = ["as_in_a_notebook"]


@pytest.fixture(scope="module")
def plain(nano, tokens):
    """(the stream, logits) that nobody edited."""
    return read(nano, tokens)


@pytest.fixture(scope="module")
def feature(dictionary, plain) -> int:
    """The one that is strongest on the text."""
    return int(dictionary.encode(plain[0]).sum((0, 1)).argmax())


def test_the_trained_dictionary_explains_most_of_the_stream(dictionary, stream):
    left = dictionary.error(stream).square().sum()
    assert left < 0.2 * (stream - stream.mean(0)).square().sum()
    assert ((dictionary.encode(stream) > 0).sum(-1) <= 8).all()


@pytest.mark.parametrize("site", [SITE, "blocks.0.hook_mlp_out", "blocks.1.hook_attn_out", "hook_embed"])
def test_without_edits_every_bit_stays_as_it_was(nano, tokens, dictionary, site):
    expected, logits = read(nano, tokens, site)
    with attached(nano, dictionary, site) as on:
        stream, with_it = read(nano, tokens, site)
    assert torch.equal(with_it, logits) and torch.equal(stream, expected)
    assert torch.equal(on.features, dictionary.encode(expected))
    torch.testing.assert_close(dictionary.decode(on.features) + on.error, expected)


@pytest.mark.parametrize("kind", ["relu", "topk", "jumprelu", "gated"])
def test_edits_that_change_nothing_leave_every_bit_too(nano, tokens, plain, kind):
    made = Dictionary(random_weights(kind, 128, 300), kind, k=9 if kind == "topk" else None, site=SITE)
    with attached(nano, made, ops={3: scale(1.0), 5: lambda a: a + 0}):
        assert torch.equal(read(nano, tokens)[1], plain[1])
    hook = feature_edit_hook(made, {3: scale(1.0)})
    assert torch.equal(read(nano, tokens, hooks=[(SITE, hook)])[1], plain[1])


def test_ablating_a_feature_subtracts_its_activation_times_its_decoder_row(nano, tokens, dictionary, plain, feature):
    activation = dictionary.encode(plain[0])[..., feature, None]
    expected = plain[0] - activation * dictionary.W_dec[feature]
    edited, logits = read(nano, tokens, hooks=[(SITE, feature_edit_hook(dictionary, {feature: ablate()}))])
    torch.testing.assert_close(edited, expected, rtol=1e-5, atol=1e-5)
    there = activation[..., 0] > 0
    assert there.any() and not torch.equal(logits, plain[1])
    assert torch.equal(edited[~there], plain[0][~there])  # to the bit where the feature is not
    with attached(nano, dictionary, ops={feature: ablate()}) as on:
        by_context, its_logits = read(nano, tokens)
    torch.testing.assert_close(by_context, edited, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(its_logits, logits, rtol=1e-4, atol=1e-4)
    assert not on.features[..., feature].any()


def test_an_ablated_features_effect_is_that_of_writing_the_stream_by_hand(nano, tokens, dictionary, plain, feature):
    taken = plain[0] - dictionary.encode(plain[0])[..., feature, None] * dictionary.W_dec[feature]
    _, by_hand = read(nano, tokens, hooks=[(SITE, lambda x, hook: taken)])
    _, by_hook = read(nano, tokens, hooks=[(SITE, feature_edit_hook(dictionary, {feature: ablate()}))])
    torch.testing.assert_close(by_hook, by_hand, rtol=1e-4, atol=1e-4)


def test_steering_acts_at_the_positions_that_it_names(nano, tokens, dictionary, plain):
    ops = {7: add(2.0, positions=(1, 4)), 9: set_to(3.0, positions=(4,)), 7 + 4: lambda a: a * 0}
    edited, _ = read(nano, tokens, hooks=[(SITE, feature_edit_hook(dictionary, ops))])
    before, expected = dictionary.encode(plain[0]), plain[0].clone()
    for column in (1, 4):
        expected[:, column] += 2.0 * dictionary.W_dec[7]
    expected[:, 4] += (3.0 - before[:, 4, 9, None]) * dictionary.W_dec[9]
    expected -= before[..., 11, None] * dictionary.W_dec[11]
    torch.testing.assert_close(edited, expected, rtol=1e-5, atol=1e-5)


def test_positions_count_from_the_rows_beginning_also_in_generation(nano, tokens, dictionary):
    """With a KV cache the passes after the first hold one token each."""
    n = tokens.shape[1]
    ops = {7: set_to(40.0, positions=(n + 1,))}
    whole = nano.generate(tokens, max_new_tokens=4, temperature=0.0).tokens
    with attached(nano, dictionary, ops=ops):
        steered = nano.generate(tokens, max_new_tokens=4, temperature=0.0).tokens
        again = nano(steered)[:, n - 1 : -1].argmax(-1)
    assert torch.equal(steered[:, : n + 1], whole[:, : n + 1])
    assert torch.equal(again[:, : steered.shape[1] - n], steered[:, n:])


def test_a_normalising_dictionary_subtracts_in_the_streams_own_scale(nano, tokens, plain):
    made = Dictionary(random_weights("relu", 128, 50), "relu", normalisation="layer_norm", site=SITE)
    features = made.encode(plain[0])
    strongest = int(features.sum((0, 1)).argmax())
    edited, _ = read(nano, tokens, hooks=[(SITE, feature_edit_hook(made, {strongest: ablate()}))])
    without = features.clone()
    without[..., strongest] = 0
    expected = made.decode(without, like=plain[0]) + made.error(plain[0])
    torch.testing.assert_close(edited, expected, rtol=1e-3, atol=1e-3)


def test_hooks_on_the_features_read_and_edit_them(nano, tokens, dictionary, plain, feature):
    seen = []
    with attached(nano, dictionary) as on:
        on.hook_features.add_hook(lambda f, hook: seen.append(f) or f.index_fill(-1, torch.tensor([feature]), 0.0))
        edited, _ = read(nano, tokens)
    expected, _ = read(nano, tokens, hooks=[(SITE, feature_edit_hook(dictionary, {feature: ablate()}))])
    torch.testing.assert_close(edited, expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(seen[0], dictionary.encode(plain[0]))


def test_gradients_reach_features_and_are_those_of_finite_differences(nano, tokens, dictionary, feature):
    leaf = {}

    def as_leaf(features, hook):
        leaf["f"] = features.detach().requires_grad_()
        return leaf["f"]

    def score(logits):
        return logits[0, -1].float().log_softmax(-1)[5]

    with torch.enable_grad(), attached(nano, dictionary) as on:
        on.hook_features.add_hook(as_leaf)
        (gradient,) = torch.autograd.grad(score(nano(tokens)), leaf["f"])
    step = 0.05
    with torch.no_grad():
        ends = []
        for sign in (1, -1):
            hook = feature_edit_hook(dictionary, {feature: add(sign * step, positions=(tokens.shape[1] - 1,))})
            with nano.hooks(fwd_hooks=[(SITE, hook)]):
                ends.append(score(nano(tokens)))
    slope = (ends[0] - ends[1]) / (2 * step)
    torch.testing.assert_close(gradient[0, -1, feature], slope, rtol=2e-2, atol=1e-3)
    assert all(parameter.grad is None for parameter in nano.parameters())


def test_a_run_inside_the_block_sees_the_edited_stream(nano, tokens, dictionary, plain, feature):
    with attached(nano, dictionary, ops={feature: ablate()}):
        inside = run(nano, tokens, sites=[SITE])
    outside = run(nano, tokens, sites=[SITE])
    assert not torch.equal(inside[SITE], plain[0]) and torch.equal(outside[SITE], plain[0])


def test_two_dictionaries_stand_on_two_sites_at_once(nano, tokens, dictionary, plain):
    with attached(nano, dictionary) as late, attached(nano, dictionary, "blocks.0.hook_resid_post") as early:
        assert torch.equal(read(nano, tokens)[1], plain[1])
    assert early.features.shape == late.features.shape and not torch.equal(early.features, late.features)


def test_a_dictionary_is_taken_off_also_when_the_body_raises(nano, dictionary):
    with pytest.raises(RuntimeError, match="mine"), attached(nano, dictionary):
        raise RuntimeError("mine")
    assert not nano.list_hooks()


@pytest.mark.usefixtures("as_in_a_notebook")
def test_what_does_not_fit_is_refused_before_anything_runs(nano, dictionary):
    narrow = Dictionary(random_weights("relu", 64, 20), "relu")
    for made, site, complaint in (
        (narrow, SITE, "a dictionary of width 64 on .* d_model 128"),
        (narrow, None, "does not say where it belongs"),
        (dictionary, "blocks.1.attn.hook_pattern", "batch head query_pos key_pos"),
    ):
        with pytest.raises(ValueError, match=complaint), attached(nano, made, site):
            pass
    with pytest.raises(UnknownSite, match="closest"), attached(nano, dictionary, "blocks.1.hook_resid_pots"):
        pass
    with (
        pytest.raises(ValueError, match=r"feature=256: .* the nearest is 255"),
        attached(nano, dictionary, ops={256: ablate()}),
    ):
        pass
    with pytest.raises(ValueError, match="feature=-1"):
        feature_edit_hook(dictionary, {-1: ablate()})
    with attached(nano, dictionary) as on, pytest.raises(ValueError, match="nothing has run"):
        _ = on.error


@pytest.mark.parametrize("positions", [(-1,), (), (0.5,), (3, -2)])
def test_positions_that_would_match_no_column_are_refused(positions, as_in_a_notebook):
    with pytest.raises(ValueError, match=r"positions=.*columns of the row, from 0"):
        ablate(positions)


def test_an_edit_to_no_number_is_refused():
    with pytest.raises(ValueError, match="value=nan"):
        set_to(float("nan"))
