"""Heads and experts patched at all positions together, against whole runs with that spec; and random controls."""

import threading

import numpy as np
import pytest
import torch

import workbench as wb
from workbench.activations import Run, run
from workbench.experiments import attribution_patching, patching_grid
from workbench.experiments.patching.controls import patching_controls, random_like
from workbench.experiments.patching.joint import joint_patching
from workbench.experiments.patching.setting import FIRST_GROUP
from workbench.model import HookedGptOss

CLEAN, CORRUPTED = "One day Mia went to the park. Tom saw Mia and", "One day Ben went to the park. Tom saw Ben and"
METRIC = (30, 40)


@pytest.fixture(scope="module")
def nano() -> HookedGptOss:
    return wb.load("nano")


@pytest.fixture(scope="module")
def clean(nano: HookedGptOss) -> Run:
    return run(nano, CLEAN, sites="all", name="clean")


@pytest.fixture(scope="module")
def corrupted(nano: HookedGptOss) -> Run:
    return run(nano, CORRUPTED, name="corrupted")


def score(done: Run) -> float:
    logits = done.logits[0, -1]
    return float(logits[30] - logits[40])


def largest(data) -> list[tuple[int, int]]:
    """The three with the largest effects."""
    size = np.abs(data.recovered.values)
    return [tuple(map(int, np.unravel_index(i, size.shape))) for i in np.argsort(-size, axis=None)[:3]]


def test_every_head_scores_as_the_run_with_its_z_patched_everywhere(nano, clean, corrupted):
    data = joint_patching(nano, clean, corrupted, METRIC, "head", progress=False)
    assert data.metric.dims == ("layer", "head") and data.attrs["cells_left"] == 0
    for layer, head in [(0, 1), (1, 3), (2, 0), (2, 6), (3, 2), *largest(data)]:
        spec = wb.Patch(f"blocks.{layer}.attn.hook_z", "clean", component=head)
        expected = score(run(nano, corrupted.tokens, [spec], sources={"clean": clean}))
        assert float(data.metric[layer, head]) == pytest.approx(expected, abs=1e-4)
    assert np.abs(data.recovered).max() > 0.01
    np.testing.assert_allclose(
        data.recovered, (data.metric - score(corrupted)) / (score(clean) - score(corrupted)), atol=1e-4
    )


def test_every_expert_scores_as_the_run_with_it_patched_everywhere(nano, clean, corrupted):
    data = joint_patching(nano, clean, corrupted, METRIC, "expert", progress=False)
    for layer, expert in [(0, 1), (1, 4), (2, 7), (3, 0), *largest(data)]:
        spec = wb.PatchExpert(layer, expert, "clean")
        expected = score(run(nano, corrupted.tokens, [spec], sources={"clean": clean}))
        assert float(data.metric[layer, expert]) == pytest.approx(expected, abs=1e-4)
    assert np.abs(data.recovered).max() > 0.01


def test_at_chosen_positions_it_is_the_run_patched_there(nano, clean, corrupted):
    at = (9, 10)
    data = joint_patching(nano, clean, corrupted, METRIC, "head", layers=[1], positions=at, progress=False)
    for head in range(8):
        spec = wb.Patch("blocks.1.attn.hook_z", "clean", at, component=head)
        expected = score(run(nano, corrupted.tokens, [spec], sources={"clean": clean}))
        assert float(data.metric[0, head]) == pytest.approx(expected, abs=1e-4)


def test_two_runs_of_one_text_have_no_effect_and_no_controls(nano, clean):
    data = joint_patching(nano, clean, CLEAN, METRIC, "expert", progress=False)
    assert np.all(data.metric == data.corrupted) and np.isnan(data.recovered).all()
    controls = patching_controls(nano, clean, CLEAN, METRIC)
    assert controls.sizes["control"] == 0 and float(controls.floor) == 0


def test_it_goes_on_where_it_was_cancelled(nano, clean, corrupted):
    whole = joint_patching(nano, clean, corrupted, METRIC, "head", progress=False)
    stop, seen = threading.Event(), []
    first = joint_patching(
        nano, clean, corrupted, METRIC, "head", progress=False, cancel=stop, on_result=lambda *_: stop.set()
    )
    assert 0 < first.attrs["cells_left"] < 32
    order = abs(whole.recovered)
    rest = joint_patching(nano, clean, corrupted, METRIC, "head", progress=False, resume=first, order=order,
                          on_result=lambda cell, value: seen.append(cell))  # fmt: skip
    assert len(seen) == first.attrs["cells_left"]
    np.testing.assert_allclose(rest.metric, whole.metric, atol=1e-4)


@pytest.mark.parametrize("experiment", ["grid", "joint"])
def test_with_an_order_the_largest_come_first(nano, clean, corrupted, experiment):
    seen = []
    guess = attribution_patching(nano, CLEAN, CORRUPTED, METRIC, ["resid_pre", "head"])
    if experiment == "grid":
        made = patching_grid(nano, clean, corrupted, METRIC, ["resid_pre"], progress=False, order=guess.effect,
                             on_result=lambda cell, value: seen.append(cell))  # fmt: skip
        plain = patching_grid(nano, clean, corrupted, METRIC, ["resid_pre"], progress=False)
        np.testing.assert_allclose(made.metric, plain.metric, atol=1e-4)
        size = np.abs(guess.effect.values)
        first, most = seen[:FIRST_GROUP], sorted((size[c.index] for c in seen), reverse=True)[:FIRST_GROUP]
        np.testing.assert_allclose(sorted((size[c.index] for c in first), reverse=True), most)
    else:
        size = abs(guess.head_effect.sum("pos"))
        joint_patching(nano, clean, corrupted, METRIC, "head", progress=False, order=size,
                       on_result=lambda cell, value: seen.append(cell))  # fmt: skip
        assert size.values[seen[0].index] == size.values.max()
    assert len(seen) > FIRST_GROUP


def test_an_order_on_other_axes_is_refused(nano, clean, corrupted):
    guess = attribution_patching(nano, CLEAN, CORRUPTED, METRIC, ["head"])
    with pytest.raises(ValueError, match="order has axes"):
        patching_grid(nano, clean, corrupted, METRIC, ["resid_pre"], progress=False, order=guess.head_effect)


def test_a_control_moves_the_stream_as_far_and_elsewhere():
    change, draw = torch.randn(5, 64), np.random.default_rng(0)
    other = random_like(change, draw)
    torch.testing.assert_close(other.norm(dim=-1), change.norm(dim=-1))
    assert float(torch.cosine_similarity(change, other, dim=-1).abs().max()) < 0.5


@pytest.mark.parametrize("part, together", [("resid_pre", False), ("attn_out", False), ("head", False), ("head", True),
                                            ("expert", False), ("expert", True)])  # fmt: skip
def test_controls_are_runs_with_random_moves_and_their_floor_leaves_one_in_twenty_above(
    nano, clean, corrupted, part, together
):
    data = patching_controls(nano, clean, corrupted, METRIC, part, together=together, n=40)
    assert data.sizes["control"] == 40
    assert (np.abs(data.recovered) > float(data.floor)).sum() == 2
    assert float(data.floor) > 0
    again = patching_controls(nano, clean, corrupted, METRIC, part, together=together, n=40)
    np.testing.assert_array_equal(data.recovered, again.recovered)


def test_a_control_is_the_whole_run_with_that_move(nano, clean, corrupted):
    """The last position of the last layer alone: one cell, whose controls can be made by hand."""
    data = patching_controls(nano, clean, corrupted, METRIC, "resid_pre", layers=[3], positions=[10], n=3, seed=5)
    draw = np.random.default_rng(5)
    draw.permutation(1)
    plain, there = (done["blocks.3.hook_resid_pre"][0, 10] for done in (corrupted, clean))
    for control in range(3):
        moved = plain + random_like(there - plain, draw)

        def put(x, hook, moved=moved):
            x = x.clone()
            x[:, 10] = moved
            return x

        with torch.no_grad():
            logits = nano.run_with_hooks(corrupted.tokens, fwd_hooks=[("blocks.3.hook_resid_pre", put)])[0, -1]
        assert float(data.metric[control]) == pytest.approx(float(logits[30] - logits[40]), abs=1e-4)


def test_what_is_no_part_is_refused(nano, clean, corrupted):
    for wrong in ({"part": "resid"}, {"part": "attn_out", "together": True}, {"n": 0}):
        with pytest.raises(ValueError, match="expected"):
            patching_controls(nano, clean, corrupted, METRIC, **wrong)


def test_a_grid_goes_on_only_from_one_of_the_same_layers_and_positions(nano, clean, corrupted):
    def grid(layers, **more):
        return patching_grid(nano, clean, corrupted, METRIC, ["resid_pre"], layers, progress=False, **more)

    def joint(positions, **more):
        return joint_patching(nano, clean, corrupted, METRIC, "head", [3], positions, progress=False, **more)

    with pytest.raises(ValueError, match="of another grid"):
        grid([2, 3], resume=grid([0, 1]))
    with pytest.raises(ValueError, match="of another grid"):
        joint([11], resume=joint([4]))
    np.testing.assert_array_equal(joint([4], resume=joint([4])).metric, joint([4]).metric)
