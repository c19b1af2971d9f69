"""Sinks and edges, against the softmax done by hand."""

import pytest
import torch
from torch import Tensor

from workbench.activations import Run, run
from workbench.interventions import EditSink, FreezePatterns, KnockOut
from workbench.model import HookedGptOss

LAYER = 1
PATTERN, SINK, SCORES, SINK_LOGIT = (
    f"blocks.{LAYER}.attn.hook_{name}" for name in ("pattern", "sink", "attn_scores", "sink_logit")
)


@pytest.fixture(scope="module")
def clean(model: HookedGptOss, tokens: Tensor) -> Run:
    return run(model, tokens, sites="all", name="clean")


def test_without_its_sink_a_head_shares_out_everything_among_the_keys(model: HookedGptOss, tokens: Tensor, clean: Run):
    done = run(model, tokens, [EditSink(LAYER, 2)], sites="all")
    torch.testing.assert_close(done[PATTERN][:, 2], clean[SCORES][:, 2].softmax(-1), rtol=0, atol=1e-6)
    assert not done[SINK][:, :, 2].any()
    assert torch.equal(done[PATTERN][:, :2], clean[PATTERN][:, :2])


@pytest.mark.parametrize(("operation", "value"), [("scale", 0.5), ("scale", 100.0), ("set", 0.9), ("set", 0.0)])
def test_a_sink_takes_the_mass_it_is_given_and_the_keys_keep_their_proportions(
    model: HookedGptOss, tokens: Tensor, clean: Run, operation, value: float
):
    done = run(model, tokens, [EditSink(LAYER, None, operation, value, positions=(3, 4))], sites="all")
    before = clean[SINK][:, [3, 4]]
    mass = (before * value).clamp(max=1) if operation == "scale" else torch.full_like(before, value)
    shares = clean[SCORES].softmax(-1)[:, :, [3, 4]]
    expected = (1 - mass).transpose(1, 2)[..., None] * shares
    torch.testing.assert_close(done[PATTERN][:, :, [3, 4]], expected, rtol=0, atol=1e-6)
    assert torch.equal(done[PATTERN][:, :, :3], clean[PATTERN][:, :, :3])


def test_a_knocked_out_edge_is_not_seen_and_its_mass_goes_by_the_softmax_over_the_rest(
    model: HookedGptOss, tokens: Tensor, clean: Run
):
    done = run(model, tokens, [KnockOut(LAYER, ((5, 2), (None, 0)), head=1)], sites="all")
    scores = clean[SCORES][:, 1].clone()
    scores[:, 5, 2] = scores[:, :, 0] = float("-inf")
    wide = torch.cat((scores, clean[SINK_LOGIT][:, :, 1, None]), -1).softmax(-1)
    torch.testing.assert_close(done[PATTERN][:, 1], wide[..., :-1], rtol=0, atol=1e-6)
    others = [0, 2, 3]
    assert torch.equal(done[PATTERN][:, others], clean[PATTERN][:, others])


def test_a_dropped_edge_leaves_the_other_edges_as_they_were(model: HookedGptOss, tokens: Tensor, clean: Run):
    done = run(model, tokens, [KnockOut(LAYER, ((5, None),), freed="drop")], sites="all")
    expected = clean[PATTERN].clone()
    expected[:, :, 5] = 0
    assert torch.equal(done[PATTERN], expected)


def test_frozen_patterns_are_the_sources_and_values_are_this_runs(model: HookedGptOss, tokens: Tensor, clean: Run):
    corrupt = (tokens + 1) % model.config.d_vocab
    done = run(model, corrupt, [FreezePatterns("clean", heads=(0, 3))], sites="all", sources={"clean": clean})
    values = done[f"blocks.{LAYER}.attn.hook_v"]
    group = model.config.n_heads // model.config.n_key_value_heads
    for head in (0, 3):
        assert torch.equal(done[PATTERN][:, head], clean[PATTERN][:, head])
        z = clean[PATTERN][:, head] @ values[:, :, head // group]
        torch.testing.assert_close(done[f"blocks.{LAYER}.attn.hook_z"][:, :, head], z, rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="expected a run of the same length"):
        run(model, corrupt[:, :5], [FreezePatterns("clean")], sources={"clean": clean})


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (EditSink(1, 0, "set", 1.5), "expected a value from 0 to 1"),
        (EditSink(1, 0, "scale"), "expected a value of 0 or more"),
        (EditSink(1, 0, "remove", 1.0), "expected no value"),
        (KnockOut(1, ((2, 5),)), "query 2 never sees key 5"),
        (KnockOut(1, ((2, 99),)), "there is no key 99"),
        (KnockOut(1, ((0, 0),), head=4), "there is no head 4; there are 0 to 3"),
    ],
)
def test_what_cannot_be_is_refused(model: HookedGptOss, tokens: Tensor, spec, message: str):
    with pytest.raises(ValueError, match=message):
        run(model, tokens, [spec])
