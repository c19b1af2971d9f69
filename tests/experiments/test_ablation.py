"""Ablation sweeps, against whole runs one by one."""

import numpy as np
import pytest
import torch

import workbench as wb
from workbench.activations import run
from workbench.experiments.effects.ablation import ablation_sweep
from workbench.experiments.effects.knock_out import greedy_knock_out
from workbench.interventions import AblateExpert, AblateHead, AblateMLP
from workbench.model import HookedGptOss

PROMPTS = ["Mia went to the park.", "Ben saw a red ball near the old tree and took it.", "Lily and Tom"]


@pytest.fixture(scope="module")
def nano() -> HookedGptOss:
    return wb.load("nano")


def metric(logits: torch.Tensor) -> torch.Tensor:
    return logits[:, 30] - logits[:, 40]


def by_whole_runs(model: HookedGptOss, specs: list) -> np.ndarray:
    """metric with the specs − metric without, a prompt at a time."""
    found = []
    for prompt in PROMPTS:
        plain, edited = run(model, prompt), run(model, prompt, specs)
        found.append(float(metric(edited.logits[:, -1]) - metric(plain.logits[:, -1])))
    return np.array(found)


@pytest.mark.parametrize("components", ["experts", "heads"])
def test_effects_are_those_of_whole_runs_one_by_one(nano: HookedGptOss, components):
    policies = ("zero", "reroute") if components == "experts" else ("zero",)
    data = ablation_sweep(nano, PROMPTS, metric, components, policies=policies, progress=False)
    kind = {"experts": AblateExpert, "heads": AblateHead}[components]
    assert data.sizes == {"component": 32 * len(policies), "prompt": 3}
    for i in (0, 9, 18, 31, data.sizes["component"] - 1):
        cell = data.isel(component=i)
        spec = kind(int(cell.layer), int(cell["index"]), str(cell.policy.values))
        assert str(cell.spec.values) == repr(spec)
        np.testing.assert_allclose(cell.effect, by_whole_runs(nano, [spec]), atol=2e-4)


def test_interventions_of_ones_own_and_groups_of_them_are_components_too(nano: HookedGptOss):
    groups = [AblateMLP(2), [AblateHead(1, 7), AblateHead(3, 0)]]
    data = ablation_sweep(nano, PROMPTS, metric, groups, progress=False)
    for i, specs in enumerate(([groups[0]], groups[1])):
        np.testing.assert_allclose(data.effect[i], by_whole_runs(nano, specs), atol=2e-4)


def test_kl_is_that_of_the_run(nano: HookedGptOss):
    data = ablation_sweep(nano, PROMPTS, metric, [AblateHead(1, 7)], progress=False)
    expected = [float(run(nano, prompt, [AblateHead(1, 7)]).kl[0, -1]) for prompt in PROMPTS]
    np.testing.assert_allclose(data.kl[0], expected, rtol=1e-3, atol=1e-6)


def test_a_control_moves_the_stream_as_far_as_the_ablation_does(nano: HookedGptOss, monkeypatch: pytest.MonkeyPatch):
    moved, resume = [], HookedGptOss.resume

    def watched(self, recording, *args, **kwargs):
        if kwargs.get("stream") is not None:
            moved.append((kwargs["stream"] - recording.streams[3]).norm(dim=-1))
        return resume(self, recording, *args, **kwargs)

    monkeypatch.setattr(HookedGptOss, "resume", watched)
    ablation_sweep(nano, PROMPTS[:1], metric, [AblateMLP(2)], controls=2, progress=False)
    lengths = run(nano, PROMPTS[0], sites="all")["blocks.2.hook_mlp_out"].norm(dim=-1)
    assert len(moved) == 2
    for each in moved:
        torch.testing.assert_close(each, lengths, rtol=1e-4, atol=1e-4)


def test_controls_say_which_effects_stand_out_and_come_back_with_their_seed(nano: HookedGptOss):
    again = [
        ablation_sweep(nano, PROMPTS, metric, [AblateMLP(0), AblateMLP(3)], controls=9, seed=s, progress=False)
        for s in (0, 0, 1)
    ]
    assert again[0].identical(again[1].assign_attrs(again[0].attrs)) and not again[0].control_effect.equals(
        again[2].control_effect
    )
    larger = (np.abs(again[0].control_effect) >= np.abs(again[0].mean_effect)).sum("control")
    np.testing.assert_allclose(again[0].p, (1 + larger) / 10)
    np.testing.assert_allclose(again[0].floor, np.abs(again[0].control_effect).max("control"))


def test_greedy_takes_at_each_step_what_brute_force_takes(nano: HookedGptOss):
    some = [AblateHead(layer, head) for layer in (1, 2) for head in (0, 3, 7)]
    data = greedy_knock_out(nano, PROMPTS, metric, some, steps=2, controls=3, progress=False)

    def mean(specs: list) -> float:
        return float(np.mean([float(metric(run(nano, p, specs).logits[:, -1])) for p in PROMPTS]))

    first = min(some, key=lambda spec: mean([spec]))
    second = min((s for s in some if s != first), key=lambda spec: mean([first, spec]))
    assert list(data.chosen.values) == ["none", repr(first), repr(second)]
    np.testing.assert_allclose(data["mean"], [mean([]), mean([first]), mean([first, second])], atol=2e-4)
    assert data.control_mean.shape == (3, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prompts": []}, "expected several texts"),
        ({"prompts": "one"}, "expected several texts"),
        ({"metric": None}, "these prompts are none: name a metric"),
        ({"components": []}, "at least one intervention"),
        ({"components": [AblateHead(1, 99)]}, "there is no head 99"),
        ({"components": [wb.AblatePosition((0,))]}, "edits hook_embed; use wb.run"),
    ],
)
def test_what_does_not_fit_is_refused(nano: HookedGptOss, arguments: dict, message: str):
    given = {"prompts": PROMPTS, "metric": metric, "components": "heads", "progress": False} | arguments
    with pytest.raises(ValueError, match=message):
        ablation_sweep(nano, **given)


def test_a_cancelled_sweep_keeps_what_is_done_and_goes_on_from_there(nano: HookedGptOss):
    some = [AblateHead(layer, 0) for layer in range(4)]

    def swept(**more):
        return ablation_sweep(nano, PROMPTS, metric, some, controls=2, progress=False, **more)

    whole, heard = swept(), []
    part = swept(on_result=lambda cell, value: heard.append(cell["component"]), cancel=lambda: len(heard) >= 2)
    assert heard == [0, 1] and part.attrs["components_left"] == 2
    assert np.isnan(part.effect.values[2:]).all() and np.isnan(part.p.values[2:]).all()
    rest = swept(resume=part, on_result=lambda cell, value: heard.append(cell["component"]))
    assert heard == [0, 1, 2, 3] and rest.attrs["components_left"] == 0
    for name in ("effect", "kl", "control_effect", "p"):
        np.testing.assert_allclose(rest[name], whole[name], atol=1e-6)
    with pytest.raises(ValueError, match="dataset of another sweep"):
        ablation_sweep(nano, PROMPTS, metric, some[:3], controls=2, progress=False, resume=part)


def test_what_is_given_is_on_in_the_clean_run_and_under_each_ablation(nano: HookedGptOss):
    given = [wb.AblatePosition((1,)), wb.EditSink(2, 3), AblateExpert(1, 2, "reroute")]
    parts = [AblateHead(1, 7), AblateExpert(1, 5, "reroute"), AblateMLP(3)]
    data = ablation_sweep(nano, PROMPTS, metric, parts, given=given, controls=1, progress=False)

    def measured(specs: list) -> np.ndarray:
        return np.array([float(metric(run(nano, prompt, specs).logits[:, -1])) for prompt in PROMPTS])

    np.testing.assert_allclose(data.clean, measured(given), atol=2e-4)
    for i, spec in enumerate(parts):
        np.testing.assert_allclose(data.effect[i], measured([*given, spec]) - measured(given), atol=3e-4)


def test_a_sweep_goes_on_only_from_one_of_as_many_prompts(nano):
    some = [AblateHead(0, 1)]
    part = ablation_sweep(nano, PROMPTS[:1], (30, 40), some, progress=False)
    with pytest.raises(ValueError, match="of another sweep"):
        ablation_sweep(nano, PROMPTS, (30, 40), some, progress=False, resume=part)


def test_fewer_than_no_controls_are_refused(nano):
    with pytest.raises(ValueError, match="controls=-1"):
        ablation_sweep(nano, PROMPTS, (30, 40), controls=-1, progress=False)


def test_controls_of_another_seed_are_not_mixed_into_a_resumed_sweep(nano):
    some = [AblateHead(0, 1)]
    part = ablation_sweep(nano, PROMPTS, (30, 40), some, controls=1, seed=0, progress=False)
    with pytest.raises(ValueError, match="of another sweep"):
        ablation_sweep(nano, PROMPTS, (30, 40), some, controls=1, seed=1, progress=False, resume=part)
