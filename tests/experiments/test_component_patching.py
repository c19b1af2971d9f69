"""Heads and experts patched one by one, against TransformerLens, specs and whole runs."""

import numpy as np
import pytest
import torch
from transformer_lens import patching

import workbench as wb
from workbench.activations import run
from workbench.experiments.patching import cells
from workbench.experiments.patching.grid import component_patching, patching_grid
from workbench.model import HookedGptOss

CLEAN, CORRUPTED = "Mia and Ben went to the park. Mia gave", "Mia and Ben went to the park. Ben gave"


@pytest.fixture(scope="module")
def nano() -> HookedGptOss:
    return wb.load("nano")


def metric(logits: torch.Tensor) -> torch.Tensor:
    return logits[:, 30] - logits[:, 40]


@pytest.fixture(scope="module")
def texts(nano: HookedGptOss) -> tuple[torch.Tensor, torch.Tensor]:
    clean, corrupted = nano.to_tokens(CLEAN), nano.to_tokens(CORRUPTED)
    assert clean.shape == corrupted.shape and (clean != corrupted).sum() == 1
    return clean, corrupted


def test_every_head_at_every_position_scores_as_in_transformer_lens(nano: HookedGptOss, texts):
    clean, corrupted = texts
    data = component_patching(nano, clean, corrupted, metric, "head", progress=False)
    _, cache = nano.run_with_cache(clean)
    theirs = patching.get_act_patch_attn_head_out_by_pos(nano, corrupted, cache, lambda x: metric(x[:, -1])[0])
    np.testing.assert_allclose(data.metric.transpose("layer", "pos", "head"), theirs, atol=1e-4)
    assert np.abs(data.recovered).max() > 0.01


def test_every_expert_at_every_position_scores_as_the_run_with_that_patch(nano: HookedGptOss, texts):
    clean, corrupted = texts
    source = run(nano, clean, sites="all")
    data = component_patching(nano, clean, corrupted, metric, "expert", progress=False)
    chosen = np.stack([source[f"blocks.{layer}.mlp.hook_expert_indices"][0] for layer in range(4)])
    moved = 0
    for layer, expert, pos in [(0, 1, 8), (1, 4, 8), (3, 0, 9), (2, 7, 9), *((1, int(e), 9) for e in chosen[1, 9])]:
        spec = wb.PatchExpert(layer, expert, "clean", (pos,))
        done = run(nano, corrupted, [spec], sources={"clean": source})
        expected = float(metric(done.logits[:, -1]))
        assert float(data.metric[layer, expert, pos]) == pytest.approx(expected, abs=1e-4)
        moved += abs(expected - float(data.corrupted)) > 1e-3
    assert moved


def test_all_experts_of_a_position_together_are_its_mlp_out_to_first_order(nano: HookedGptOss, texts):
    """In the last layer, at the last position, nothing follows but the norm."""
    clean, corrupted = texts
    by_expert = component_patching(nano, clean, corrupted, lambda x: x[:, 30], "expert", progress=False)
    changes = by_expert.metric[3, :, -1] - by_expert.corrupted
    whole = patching_grid(nano, clean, corrupted, lambda x: x[:, 30], ("mlp_out",), progress=False)
    assert float(changes.sum()) == pytest.approx(float(whole.metric[0, 3, -1] - whole.corrupted), rel=0.3, abs=0.1)


@pytest.mark.parametrize("component", ["head", "expert"])
def test_noising_is_the_same_with_the_runs_changing_places(nano: HookedGptOss, texts, component):
    clean, corrupted = texts
    noised = component_patching(nano, clean, corrupted, metric, component, direction="noising", progress=False)
    swapped = component_patching(nano, corrupted, clean, metric, component, progress=False)
    np.testing.assert_array_equal(noised.metric, swapped.metric)
    np.testing.assert_allclose(noised.lost, (noised.clean - noised.metric) / (noised.clean - noised.corrupted))
    assert float(noised.clean) == float(swapped.corrupted) and noised.attrs["direction"] == "noising"


def test_noising_a_grid_of_the_whole_stream_loses_everything_at_the_last_position(nano: HookedGptOss, texts):
    data = patching_grid(nano, *texts, metric, ("resid_post",), direction="noising", progress=False)
    assert float(data.lost[0, -1, -1]) == pytest.approx(1, abs=1e-4)
    assert [str(t) for t in data.corrupted_token.values] == nano.to_str_tokens(CORRUPTED)


def test_an_unknown_component_or_direction_is_refused(nano: HookedGptOss, texts):
    for bad in ({"component": "neuron"}, {"direction": "sideways"}):
        with pytest.raises(Exception, match=r"expected one of|Type-check"):
            component_patching(nano, *texts, metric, progress=False, **bad)


@pytest.mark.parametrize("kind", ["grid", "expert"])
def test_a_cancelled_grid_keeps_what_is_done_and_goes_on_from_there(
    nano: HookedGptOss, texts, kind: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(cells, "MOST", 8)  # tokens, so that there are many passes

    def patched(**more):
        if kind == "grid":
            return patching_grid(nano, *texts, metric, progress=False, **more)
        return component_patching(nano, *texts, metric, "expert", progress=False, **more)

    whole, heard = patched(), []
    part = patched(
        on_result=lambda cell, value: heard.append((cell["layer"], cell["pos"], value)), cancel=lambda: heard
    )
    done = np.isfinite(part.metric)
    left = int(part.attrs["cells_left"])
    assert left > 0 and heard
    np.testing.assert_array_equal(part.metric.values[done], whole.metric.values[done])
    again = []
    rest = patched(resume=part, on_result=lambda cell, value: again.append(value))
    assert len(again) == left
    np.testing.assert_allclose(rest.metric, whole.metric, atol=1e-5)
    assert rest.attrs["cells_left"] == 0


def test_another_grid_is_no_grid_to_go_on_from(nano: HookedGptOss, texts):
    done = patching_grid(nano, *texts, metric, progress=False)
    for other in ({"sites": ("attn_out",)}, {"direction": "noising"}, {"layers": [0]}):
        with pytest.raises(ValueError, match="dataset of another grid"):
            patching_grid(nano, *texts, metric, progress=False, resume=done, **other)


def test_a_metric_that_fails_is_said_and_not_swallowed(nano: HookedGptOss, texts):
    calls = []

    def fails(logits: torch.Tensor) -> torch.Tensor:
        calls.append(len(logits))
        if len(calls) > 2:  # the two runs' own are fine
            raise ZeroDivisionError("mine")
        return logits[:, 0]

    with pytest.raises(ZeroDivisionError, match="mine"):
        patching_grid(nano, *texts, fails, progress=False)


def test_noising_names_the_clean_and_the_corrupted_run_as_they_were_given(model):
    clean, corrupted = (run(model, text, name=name) for text, name in (("Mia ran.", "one"), ("Tom ran.", "two")))
    for direction in ("denoising", "noising"):
        found = patching_grid(model, clean, corrupted, (30, 40), layers=[0], direction=direction, progress=False)
        assert (found.attrs["run"], found.attrs["corrupted_run"]) == ("one", "two")
