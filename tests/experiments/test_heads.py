"""Matches of heads on any text against TransformerLens' head detector on the same model, and against loops."""

import math

import numpy as np
import pytest
import torch
from transformer_lens.head_detector import detect_head

from workbench.activations import run
from workbench.experiments.observe.heads import head_matches, head_scores
from workbench.figures.head_matches import head_matches as drawn

TEXT = "Mia lives in the park. Tom lives in the mill. Mia lives in the"
KINDS = {
    "previous_token": "previous_token_head",
    "duplicate_token": "duplicate_token_head",
    "induction": "induction_head",
}


@pytest.fixture(scope="module")
def said(model):
    return run(model, TEXT)


@pytest.fixture(scope="module")
def made(said):
    return head_matches(said)


@pytest.mark.parametrize("kind", KINDS)
def test_the_share_is_transformer_lens_head_detectors_score(model, made, kind):
    theirs = detect_head(model, TEXT, KINDS[kind])
    assert made.share.sel(kind=kind).values == pytest.approx(theirs.numpy(), abs=1e-5)
    assert (made.share.sel(kind=kind) > 0).any()


def test_head_scores_are_the_detectors_on_random_tokens_said_twice(model):
    """The detector divides by the attention of all queries, ours by the queries that have such a place."""
    from workbench.experiments.observe.heads import _said_twice

    tokens = _said_twice(model, 8, 1, 3)
    scores = head_scores(model, length=8, n_rows=1, seed=3)
    done = run(model, tokens)
    matches = head_matches(done)
    for kind, n in (("previous_token", 15), ("duplicate_token", 8), ("induction", 8)):
        for layer in range(3):
            attention = done[f"blocks.{layer}.attn.hook_pattern"][0].sum((-2, -1)).numpy()
            expected = matches.share.sel(kind=kind, layer=layer).values * attention / n
            # Random tokens may repeat within a half: then the detector counts more places than the kind's offset.
            if len(set(tokens[0, :8].tolist())) == 8:
                assert scores.score.sel(kind=kind, layer=layer).values == pytest.approx(expected, abs=1e-5)
                assert matches["mean"].sel(kind=kind, layer=layer).values == pytest.approx(expected, abs=1e-5)
    assert len(set(tokens[0, :8].tolist())) == 8


def test_means_are_taken_over_the_queries_that_have_a_place_in_their_window(said, made):
    tokens = said.tokens[0].tolist()
    n = len(tokens)
    for layer, window in ((0, 16), (1, n)):
        pattern = said[f"blocks.{layer}.attn.hook_pattern"][0].numpy()
        sink = said[f"blocks.{layer}.attn.hook_sink"][0].numpy()
        for head in range(4):
            raw, rest = [], []
            for t in range(n):
                places = [s + 1 for s in range(t) if tokens[s] == tokens[t] and t - (s + 1) < window]
                if places:
                    there = sum(pattern[head, t, s] for s in places)
                    raw.append(there)
                    rest.append(there / (1 - sink[t, head]))
            here = made.sel(kind="induction", layer=layer, head=head)
            assert int(here.queries) == len(raw)
            assert float(here["mean"]) == pytest.approx(np.mean(raw), abs=1e-6)
            assert float(here.mean_without_sink) == pytest.approx(np.mean(rest), abs=1e-5)
            assert float(here.sink) == pytest.approx(sink[:, head].mean(), abs=1e-6)


def test_a_text_without_repeats_has_no_copies_to_look_at(model):
    made = head_matches(run(model, torch.arange(20, 30)[None]))
    for kind in ("duplicate_token", "induction"):
        assert np.isnan(made["mean"].sel(kind=kind)).all()
        assert (made.queries.sel(kind=kind) == 0).all()
    assert not math.isnan(float(made["mean"].sel(kind="previous_token", layer=0, head=0)))


def test_a_padded_row_matches_as_the_row_alone(model, padded):
    within, alone = head_matches(padded, row=2), head_matches(run(model, "One day Ana walked to the mill."))
    for name in ("share", "mean", "sink"):
        assert within[name].values == pytest.approx(alone[name].values, abs=1e-5, nan_ok=True)


def test_the_figure_has_a_table_for_each_kind_and_the_sink(made, tmp_path):
    figure = drawn(made)
    assert len(figure.data) == 4
    assert np.array(figure.data[3].z) == pytest.approx(made.sink.values)
    made.to_netcdf(tmp_path / "stored.nc", engine="scipy")
    with pytest.raises(ValueError, match="expected one of"):
        drawn(made, "share of")


def test_some_layers_alone_score_as_they_do_among_all(model):
    done = run(model, torch.arange(20, 50)[None] % 25 + 20)
    whole, some = head_matches(done), head_matches(done, layers=[2, 0])
    assert some.layer.values.tolist() == [2, 0]
    for name in ("share", "mean", "sink", "queries"):
        np.testing.assert_array_equal(some[name], whole[name].sel(layer=[2, 0]))
    with pytest.raises(ValueError, match="layer"):
        head_matches(done, layers=[99])
    with pytest.raises(ValueError, match="expected at least one layer"):
        head_matches(done, layers=[])
