"""Patterns are those of the run, and head scores find heads that were planted."""

import numpy as np
import pytest
import torch

from workbench.activations import run
from workbench.experiments import attention, head_scores


@pytest.mark.parametrize("layer", [0, 1])
def test_a_row_and_its_sink_share_one_unit_of_attention(done, layer):
    made = attention(done, layer, 2)
    assert (made.pattern.sum("key_pos") + made.sink).values == pytest.approx(1, abs=1e-5)
    assert np.array_equal(made.pattern.values, done[f"blocks.{layer}.attn.hook_pattern"][0, 2].numpy())


@pytest.mark.parametrize("layer", [0, 1])
def test_visible_is_where_softmax_gave_anything(done, layer):
    made = attention(done, layer, 0)
    assert np.array_equal(made.visible.values, made.pattern.values > 0)
    assert made.attrs["window"] == (16 if layer == 0 else 0)


def test_a_padded_row_is_the_row_alone(model, padded):
    alone = attention(run(model, "Tom"), 1, 3)
    within = attention(padded, 1, 3, row=1)
    assert within.sizes == alone.sizes
    assert within.pattern.values == pytest.approx(alone.pattern.values, abs=1e-5)
    assert within.query_token.values.tolist() == alone.key_token.values.tolist() == model.to_str_tokens("Tom")


def test_left_padding_keeps_the_columns_of_the_run(model):
    tokens, mask = model.to_tokens(["Tom lives in the", "Ana"], padding_side="left", return_mask=True)
    made = attention(run(model, tokens, attention_mask=mask), 0, 0, row=1)
    assert made.key_pos.values.tolist() == mask[1].nonzero()[:, 0].tolist()


@pytest.mark.parametrize(
    ("layer", "head", "told"), [(3, 0, "layer=3.*0 to 2"), (0, 4, "head=4.*nearest is 3"), (-1, 0, "layer=-1")]
)
def test_a_head_that_is_not_there_is_refused(done, layer, head, told):
    with pytest.raises(ValueError, match=told):
        attention(done, layer, head)


def planted(offset: int, head: int):
    """A hook that makes one head look just ``offset`` back, wherever there is something so far back."""

    def plant(pattern: torch.Tensor, hook: object) -> torch.Tensor:
        made = pattern.clone()
        n = pattern.shape[-1]
        made[:, head] = torch.diag(torch.ones(n - offset), -offset) if offset else torch.eye(n)
        return made

    return plant


@pytest.mark.parametrize(("kind", "offset"), [("previous_token", 1), ("duplicate_token", 12), ("induction", 11)])
def test_a_planted_head_scores_one_in_its_kind_and_nothing_in_the_others(model, kind, offset):
    with model.hooks(fwd_hooks=[("blocks.1.attn.hook_pattern", planted(offset, head=2))]):
        scores = head_scores(model, length=12).score.sel(layer=1, head=2)
    assert scores.sel(kind=kind) == pytest.approx(1)
    assert scores.drop_sel(kind=kind).values == pytest.approx(0)


def test_scores_are_means_over_the_pattern_taken_one_by_one(model):
    made = head_scores(model, length=6, n_rows=2, seed=5)
    from workbench.experiments.observe.heads import _said_twice

    tokens = _said_twice(model, 6, 2, 5)
    assert torch.equal(tokens[:, :6], tokens[:, 6:])
    done = run(model, tokens)
    pattern, sink = done["blocks.1.attn.hook_pattern"].numpy(), done["blocks.1.attn.hook_sink"].numpy()
    for head in range(4):
        induction = [pattern[b, head, t, t - 5] for b in range(2) for t in range(6, 12)]
        rest = [pattern[b, head, t, t - 5] / (1 - sink[b, t, head]) for b in range(2) for t in range(6, 12)]
        assert made.score.sel(kind="induction", layer=1, head=head) == pytest.approx(np.mean(induction), abs=1e-6)
        assert made.score_without_sink.sel(kind="induction", layer=1, head=head) == pytest.approx(
            np.mean(rest), abs=1e-5
        )
        assert made.sink.sel(layer=1, head=head) == pytest.approx(sink[:, :, head].mean(), abs=1e-6)


def test_a_sliding_layer_has_no_score_beyond_its_window(model):
    made = head_scores(model, length=20).score
    assert np.isnan(made.sel(layer=0, kind=["duplicate_token", "induction"])).all()
    assert not np.isnan(made.sel(layer=0, kind="previous_token")).any()
    assert not np.isnan(made.sel(layer=1)).any()
    # 15 back is the last that a window of 16 reaches.
    assert not np.isnan(head_scores(model, length=16).score.sel(layer=0, kind="induction")).any()


def test_the_same_seed_gives_the_same_scores(model):
    one, same, other = (head_scores(model, length=8, seed=seed).score.values for seed in (3, 3, 4))
    assert np.array_equal(one, same, equal_nan=True)
    assert not np.array_equal(one, other, equal_nan=True)


def test_too_short_a_text_is_refused(model):
    with pytest.raises(ValueError, match="length=1"):
        head_scores(model, length=1)
