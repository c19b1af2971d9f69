"""Prompts of many lengths and kinds, and metrics of many kinds, through sweeps: each row its own number."""

import numpy as np
import pytest
import torch
import xarray as xr

from workbench.activations import run
from workbench.experiments import prompts
from workbench.experiments.effects import ablation, knock_out
from workbench.experiments.effects.ablation import ablation_sweep
from workbench.experiments.effects.knock_out import greedy_knock_out
from workbench.experiments.metrics import as_metric, kl_from, logit_difference, probability
from workbench.experiments.patching.grid import patching_grid
from workbench.interventions import AblateExpert, AblateHead, AblateMLP, AblatePosition, EditSink, KnockOut, Patch
from workbench.prompts import Pair
from workbench.text import Chat

TEXTS = ["Mia went to the park.", "Ben saw a red ball near the old tree and took it.", "Lily and Tom", "A dog"]
RIGHT, WRONG = [30, 31, 32, 33], [40, 41, 42, 43]
SPECS = [AblateMLP(1), AblateHead(0, 1)]


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """At most two prompts at once."""
    few = prompts.batches
    for module in (ablation, knock_out):
        monkeypatch.setattr(module, "batches", lambda model, given, metric: few(model, given, metric, most=30))


def logits_of(model, texts, specs=()) -> list[torch.Tensor]:
    """[1 d_vocab] after each text, run alone."""
    return [run(model, text, list(specs)).logits[:, -1] for text in texts]


def by_hand(model, measured) -> np.ndarray:
    """Effects [spec prompt] of measured(i, logits) by whole runs."""
    plain = [measured(i, one) for i, one in enumerate(logits_of(model, TEXTS))]
    table = [[measured(i, one) for i, one in enumerate(logits_of(model, TEXTS, [spec]))] for spec in SPECS]
    return np.array(table) - np.array(plain)


def difference(i: int, logits: torch.Tensor) -> float:
    return float(logits[0, RIGHT[i]] - logits[0, WRONG[i]])


@pytest.mark.parametrize("form", ["pair", "named", "pairs"])
def test_a_metric_of_one_token_a_row_meets_its_own_row_in_every_batch(model, small_batches, form):
    texts, metric = TEXTS, (RIGHT, WRONG)
    if form == "named":
        metric = logit_difference(RIGHT, WRONG)
    if form == "pairs":
        sides = zip(TEXTS, RIGHT, WRONG, strict=True)
        texts, metric = [Pair(text, text, right, wrong, "test") for text, right, wrong in sides], None
    data = ablation_sweep(model, texts, metric, SPECS, progress=False)
    np.testing.assert_allclose(data.effect, by_hand(model, difference), atol=1e-4)
    if form != "pairs":
        assert "30, 31, 32, 33" in data.metric


def test_a_metric_of_too_many_tokens_is_refused_before_anything_runs(model, monkeypatch):
    monkeypatch.setattr(model, "record", None)
    for metric in ((RIGHT[:3], WRONG), probability(RIGHT[:2])):
        with pytest.raises(ValueError, match=r"names [23] tokens, one a row, and there are 4 prompts"):
            ablation_sweep(model, TEXTS, metric, SPECS, progress=False)


def test_a_share_of_right_answers_is_a_metric(model, small_batches):
    data = ablation_sweep(model, TEXTS, lambda logits: logits.argmax(-1) == 5, SPECS, progress=False)
    expected = by_hand(model, lambda i, logits: float(logits.argmax(-1)[0] == 5))
    np.testing.assert_allclose(data.effect, expected)


def test_tokens_of_a_metric_may_be_numbers_of_any_library(model, as_in_a_notebook):
    logits = torch.randn(2, model.config.d_vocab)
    for right, wrong in [(np.int64(3), np.int64(4)), (torch.tensor(3), torch.tensor(4))]:
        measure, said = as_metric(model, logit_difference(right, wrong))
        assert torch.equal(measure(logits), logits[:, 3] - logits[:, 4]) and said == "logit of 3 − logit of 4"
    measure, _ = as_metric(model, logit_difference(np.array([3, 5]), torch.tensor([4, 6])))
    assert torch.equal(measure(logits), torch.stack((logits[0, 3] - logits[0, 4], logits[1, 5] - logits[1, 6])))


def test_chats_texts_and_rows_of_ids_are_prompts_side_by_side(model, small_batches):
    chat = Chat().user("Where is Mia?")
    given = [chat, TEXTS[0], model.to_tokens(TEXTS[1])[0], model.to_tokens(TEXTS[2])[0].tolist()]
    data = ablation_sweep(model, given, (30, 40), SPECS, progress=False)
    for j, prompt in enumerate([chat, *TEXTS[:3]]):
        plain, edited = (run(model, prompt, specs).logits[0, -1] for specs in ([], [SPECS[0]]))
        expected = (edited[30] - edited[40]) - (plain[30] - plain[40])
        assert float(data.effect[0, j]) == pytest.approx(float(expected), abs=1e-4)


@pytest.mark.parametrize(
    ("components", "message"),
    [
        ([AblatePosition((0,))], "edits hook_embed; use wb.run"),
        ([AblateHead(0, 0, positions=(500,))], "there is no position 500"),
        ([AblateHead(0, 0), [AblateHead(0, 9)]], "there is no head 9"),
        ([Patch("blocks.0.hook_mlp_out", "four")], "has 4 rows and this run 1: expected"),
    ],
)
def test_what_cannot_be_ablated_is_refused_before_anything_runs(
    model, small_batches, monkeypatch, components, message: str
):
    four = run(model, TEXTS, sites="all")
    monkeypatch.setattr(model, "record", None)
    for sweep in (ablation_sweep, greedy_knock_out):
        steps = {"steps": 1} if sweep is greedy_knock_out else {}
        with pytest.raises(ValueError, match=message):
            sweep(model, TEXTS, (30, 40), components, sources={"four": four}, progress=False, **steps)


def test_more_re_routings_than_a_layer_has_experts_for_are_refused(model, monkeypatch):
    monkeypatch.setattr(model, "record", None)
    with pytest.raises(ValueError, match=r"steps=7.*policy 'zero'"):
        greedy_knock_out(model, TEXTS, (30, 40), "experts", 7, policies=("reroute",), controls=1, progress=False)


def test_a_group_over_several_layers_has_controls_where_the_last_of_them_leaves(model):
    group = [AblateHead(0, 1), AblateExpert(1, 2, "zero")]
    data = ablation_sweep(model, TEXTS, (30, 40), [group], controls=3, progress=False)
    plain, edited = (run(model, TEXTS[0], specs, sites="all") for specs in ([], group))
    moved = edited["blocks.1.hook_resid_post"] - plain["blocks.1.hook_resid_post"]
    assert data.control_effect.shape == (1, 3) and float(moved.norm()) > 0 and bool(np.isfinite(data.p).all())


def test_sweeps_of_every_kind_of_spec_can_be_stored(model, tmp_path):
    specs = [EditSink(1, None), KnockOut(0, ((None, 0),)), AblateHead(2, 3)]
    data = ablation_sweep(model, TEXTS, (30, 40), specs, progress=False)
    assert data["index"].values.tolist() == [-1, -1, 3] and data["index"].dtype.kind == "i"
    data.to_netcdf(tmp_path / "sweep.nc")
    with xr.open_dataset(tmp_path / "sweep.nc") as stored:
        xr.testing.assert_identical(stored.load(), data)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_on_either_side_leaves_a_patching_grid_as_it_is(model, side):
    clean, corrupted = model.to_tokens("Mia went to the park."), model.to_tokens("Tom went to the park.")
    assert clean.shape == corrupted.shape
    plain = patching_grid(model, clean, corrupted, (30, 40), progress=False)
    pad, mask = torch.zeros(1, 4, dtype=torch.long), torch.ones_like(clean, dtype=torch.bool)
    order = (lambda a, b: torch.cat((a, b), 1)) if side == "left" else (lambda a, b: torch.cat((b, a), 1))
    runs = [
        run(model, order(pad, tokens), attention_mask=order(pad.bool(), mask), sites="all")
        for tokens in (clean, corrupted)
    ]
    padded = patching_grid(model, *runs, (30, 40), progress=False)
    np.testing.assert_allclose(padded.metric, plain.metric, atol=1e-4)
    assert padded.pos.values.tolist() == [p + 4 * (side == "left") for p in plain.pos.values.tolist()]


def test_a_distance_from_one_distribution_is_a_metric_of_every_prompt(model, small_batches):
    (base,) = logits_of(model, ["One day"])
    data = ablation_sweep(model, TEXTS, kl_from(base), SPECS, progress=False)

    def divergence(i: int, logits: torch.Tensor) -> float:
        p, q = base.log_softmax(-1), logits.log_softmax(-1)
        return float((p.exp() * (p - q)).sum())

    np.testing.assert_allclose(data.effect, by_hand(model, divergence), atol=1e-4)
