"""An experiment swept over a grid gives, cell by cell, what it gives when it is called by hand."""

from __future__ import annotations

import pickle

import pytest
import torch
import xarray as xr

import workbench as wb
from workbench import experiments, prompts
from workbench.experiments import each, logit_difference, metric_of
from workbench.sweeps import Grid, sweep
from workbench.sweeps.content import key

TEXTS = ["Mia went to the park", "Tom gave the ball to", "def f(x, y):"]


@pytest.fixture(scope="module")
def nano():
    return wb.load("nano")


@pytest.fixture(scope="module")
def pairs(nano):
    return prompts.pairs(nano, "indirect object", n=4, seed=3)


def swept(measure, grid, nano, **more):
    return sweep(measure, grid, model=nano, progress=False, **more)


def test_an_experiment_of_a_run_is_called_with_each_cells_run(nano):
    found = swept(each(experiments.logit_lens, top_k=2), Grid(prompt=TEXTS), nano)
    assert not found.failures
    for cell, value in found:
        by_hand = experiments.logit_lens(wb.run(nano, cell["prompt"]), top_k=2)
        assert set(value) == set(by_hand.data_vars)
        for name, array in value.items():
            xr.testing.assert_identical(array, by_hand[name])


def test_axes_that_are_arguments_are_given_and_the_function_makes_interventions_of_the_others(nano):
    measure = each(experiments.direct_logit_attribution, spec=_head, sites="all", answers=(" Mia", " Tom"))
    found = swept(measure, Grid(layer=[1, 2], head=[0], position=[-1]), nano).failures
    assert all("no axis 'prompt'" in str(failure) for failure in found.values()) and len(found) == 2
    found = swept(measure, Grid(prompt=TEXTS[:1], layer=[1, 2], head=[0], position=[-1, 2]), nano)
    assert not found.failures, found.failures
    for cell, value in found:
        run = wb.run(nano, TEXTS[0], [wb.AblateHead(cell["layer"], 0, "zero")], sites="all")
        by_hand = experiments.direct_logit_attribution(run, answers=(" Mia", " Tom"), position=cell["position"])
        for name, array in value.items():
            clash = {axis: f"result_{axis}" for axis in ("layer", "head", "position") if axis in by_hand[name].coords}
            xr.testing.assert_allclose(array, by_hand[name].rename(clash))
    assert {"layer", "head", "position", "result_layer"} <= set(found.to_xarray()["heads"].dims)


def _head(cell):
    return wb.AblateHead(cell["layer"], cell["head"], "zero")


def test_an_experiment_of_a_model_takes_every_axis_as_an_argument(nano):
    found = swept(each(experiments.head_scores, n_rows=2), Grid(length=[8, 12], seed=[0, 1]), nano)
    assert not found.failures and found.done == 4
    for cell, value in found:
        by_hand = experiments.head_scores(nano, length=cell["length"], n_rows=2, seed=cell["seed"])
        for name, array in value.items():
            xr.testing.assert_identical(array, by_hand[name])


def test_a_metric_in_batches_is_that_of_each_run_by_itself(nano, pairs):
    specs = [None, wb.AblateExpert(1, 1), (wb.AblateHead(1, 0, "zero"), wb.AblateHead(2, 1, "zero"))]
    found = swept(metric_of(), Grid(spec=specs, prompt=pairs), nano, batch=8)
    assert found.done == 12, found.failures
    for cell, value in found:
        pair, spec = cell["prompt"], cell["spec"]
        chosen = [] if spec is None else list(spec) if isinstance(spec, tuple) else [spec]
        logits = wb.run(nano, pair.clean, chosen).logits[0, -1]
        by_hand = logits[nano.to_single_token(pair.right)] - logits[nano.to_single_token(pair.wrong)]
        assert value == pytest.approx(float(by_hand), abs=1e-4)


def test_prompts_of_several_lengths_share_a_batch_and_keep_their_numbers(nano):
    metric = logit_difference(" the", " a")
    found = swept(metric_of(metric), Grid(prompt=TEXTS), nano)
    for cell, value in found:
        logits = wb.run(nano, cell["prompt"]).logits[0, -1]
        by_hand = logits[nano.to_single_token(" the")] - logits[nano.to_single_token(" a")]
        assert value == pytest.approx(float(by_hand), abs=1e-4)


def test_a_patch_from_the_clean_side_brings_the_corrupt_side_back(nano, pairs):
    """At the last position of the last layer the patch is the whole of what is unembedded."""
    last = nano.config.n_layers - 1
    n_pos = nano.to_tokens(pairs[0].clean).shape[1]
    spec = wb.Patch(f"blocks.{last}.hook_resid_post", source="clean", positions=(n_pos - 1,))
    same = [pair for pair in pairs if nano.to_tokens(pair.clean).shape[1] == n_pos]
    clean = swept(metric_of(), Grid(prompt=same), nano).to_xarray().value
    corrupt = swept(metric_of(side="corrupt"), Grid(prompt=same), nano).to_xarray().value
    patched = swept(metric_of(side="corrupt"), Grid(spec=[spec], prompt=same), nano).to_xarray().value[0]
    assert patched.values == pytest.approx(clean.values, abs=1e-4)
    assert float(abs(clean - corrupt).min()) > 0.1


def test_a_vector_that_is_given_steers(nano):
    vector = torch.randn(nano.config.d_model, generator=torch.Generator().manual_seed(0))
    spec = wb.Steer("blocks.1.hook_resid_post", "direction", scale=3.0)
    metric = logit_difference(" the", " a")
    measure = metric_of(metric, sources={"direction": vector})
    (value,) = [value for _, value in swept(measure, Grid(spec=[spec], prompt=TEXTS[:1]), nano)]
    logits = wb.run(nano, TEXTS[0], [spec], sources={"direction": vector}).logits[0, -1]
    by_hand = logits[nano.to_single_token(" the")] - logits[nano.to_single_token(" a")]
    assert value == pytest.approx(float(by_hand), abs=1e-4)


def test_no_hook_outlives_a_sweep_even_of_cells_that_fail(nano):
    before = nano(nano.to_tokens(TEXTS[0]))
    specs = [wb.AblateExpert(1, 1), wb.AblateExpert(99, 0), wb.Patch("blocks.1.hook_resid_post", source="elsewhere")]
    found = swept(metric_of(logit_difference(" the", " a")), Grid(spec=specs, prompt=TEXTS[:2]), nano)
    assert found.done == 2 and len(found.failures) == 4
    assert any("clean" in str(failure) and "elsewhere" in str(failure) for failure in found.failures.values())
    assert torch.equal(before, nano(nano.to_tokens(TEXTS[0])))


def test_axes_that_nobody_reads_are_refused(nano):
    found = swept(metric_of(logit_difference(" the", " a")), Grid(prompt=TEXTS[:1], layer=[0]), nano)
    (failure,) = found.failures.values()
    assert "spec=" in str(failure)
    with pytest.raises(ValueError, match="takes no 'topk'"):
        each(experiments.logit_lens, topk=3)


def test_measures_travel_and_are_told_apart(pairs):
    one, other = metric_of(spec=_head), metric_of(spec=_head, side="corrupt")
    assert pickle.loads(pickle.dumps(one)) == one
    assert key(one) == key(metric_of(spec=_head)) != key(other)
    assert key(each(experiments.logit_lens)) != key(each(experiments.tuned_lens))
    assert key(metric_of(logit_difference(" a", " b"))) != key(metric_of(logit_difference(" a", " c")))


def test_neighbours_with_the_same_interventions_are_one_call(nano, pairs, monkeypatch):
    calls = []
    forward = type(nano).forward

    def counted(self, *given, **named):
        calls.append(1)
        return forward(self, *given, **named)

    monkeypatch.setattr(type(nano), "forward", counted)
    swept(metric_of(), Grid(spec=[wb.AblateExpert(1, i) for i in range(3)], prompt=pairs), nano, batch=8)
    assert len(calls) == 3
