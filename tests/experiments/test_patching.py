"""A patching grid is what one whole run a cell gives, and what TransformerLens' own patching gives, for less work."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from transformer_lens import patching

import workbench as wb
from workbench.activations import Run, run
from workbench.experiments import patching_grid
from workbench.experiments.patching import cells
from workbench.experiments.patching.cells import SITES

CLEAN, CORRUPTED = "One day Mia went to the park.", "One day Tom went to the mill."


def last(logits: Tensor) -> Tensor:
    """A metric that reads a row of logits."""
    return logits[:, 40] - 2 * logits[:, 7]


@pytest.fixture(scope="module")
def clean(model) -> Run:
    return run(model, CLEAN, name="clean")


@pytest.fixture(scope="module")
def corrupted(model) -> Run:
    return run(model, CORRUPTED, name="corrupted")


@pytest.fixture(scope="module")
def grid(model, clean, corrupted):
    return patching_grid(model, clean, corrupted, last, sites=SITES, progress=False)


@torch.no_grad()
def one_by_one(model, clean: Run, tokens: Tensor, metric: Callable, sites=SITES, at: int = -1) -> np.ndarray:
    """The table by definition: a whole run for each cell, on the corrupted tokens [1 pos]."""

    def patched(site: str, column: int) -> float:
        def put(x: Tensor, hook: object) -> Tensor:
            x = x.clone()
            x[:, column] = clean[site][:, column]
            return x

        return float(metric(model.run_with_hooks(tokens, fwd_hooks=[(site, put)])[:, at]))

    names = [[f"blocks.{layer}.hook_{site}" for layer in range(model.config.n_layers)] for site in sites]
    return np.array([[[patched(n, column) for column in range(tokens.shape[1])] for n in row] for row in names])


def assert_same(table, expected: np.ndarray) -> None:
    assert np.abs(np.asarray(table) - expected).max() <= 1e-5
    assert np.ptp(expected) > 0.1  # some patch does something


def test_every_cell_is_a_whole_run_with_that_patch(model, clean, corrupted, grid):
    assert grid.metric.dims == ("site", "layer", "pos")
    assert_same(grid.metric, one_by_one(model, clean, corrupted.tokens, last))


@pytest.mark.parametrize("site", ["resid_pre", "attn_out", "mlp_out", "resid_mid"])
def test_it_is_the_table_of_transformer_lens_own_patching(model, clean, corrupted, grid, site):
    function = getattr(patching, f"get_act_patch_{site}")
    with torch.no_grad():
        theirs = function(model, corrupted.tokens, clean.cache, lambda logits: last(logits[:, -1]).mean())
    assert_same(grid.metric.sel(site=site), theirs.numpy())


def test_metrics_of_the_two_runs_and_the_share_recovered_are_theirs(clean, corrupted, grid):
    assert float(grid.clean) == pytest.approx(float(last(clean.logits[:, -1])), abs=1e-5)
    assert float(grid.corrupted) == pytest.approx(float(last(corrupted.logits[:, -1])), abs=1e-5)
    expected = (grid.metric - grid.corrupted) / (grid.clean - grid.corrupted)
    assert np.allclose(grid.recovered, expected)
    # What leaves the last layer at the last position is all that the answer is read from.
    end = grid.recovered.sel(site="resid_post", layer=2)
    assert end.values[-1] == pytest.approx(1, abs=1e-4) and np.abs(end.values[:-1]).max() <= 1e-5


def test_before_the_first_token_that_differs_nothing_can_be_recovered(clean, corrupted, grid):
    same = int((clean.tokens != corrupted.tokens)[0].nonzero()[0])
    assert same >= 2
    assert (grid.metric.values[..., :same] == float(grid.corrupted)).all()


def test_tokens_are_labelled_and_it_says_what_was_done(model, clean, corrupted, grid):
    assert grid.token.values.tolist() == corrupted.str_tokens()
    assert grid.clean_token.values.tolist() == clean.str_tokens()
    assert grid.clean_token_id.values.tolist() == clean.tokens[0].tolist()
    assert grid.token_id.dims == grid.role.dims == ("pos",)
    assert grid.site.values.tolist() == list(SITES) and grid.layer.values.tolist() == [0, 1, 2]
    about = grid.attrs
    assert about["experiment"] == "patching_grid" and about["fingerprint"] == clean.provenance["fingerprint"]
    assert (about["run"], about["corrupted_run"], about["metric"]) == ("clean", "corrupted", "last")
    assert about["logits_at"] == corrupted.tokens.shape[1] - 1


def test_text_and_two_tokens_do_as_runs_and_a_function_do(model, clean, corrupted):
    right, wrong = model.to_single_token(" park"), model.to_single_token(" mill")
    by_function = patching_grid(
        model, clean, corrupted, lambda logits: logits[:, right] - logits[:, wrong], progress=False
    )
    by_text = patching_grid(model, CLEAN, CORRUPTED, (" park", wrong), progress=False)
    assert by_text.site.values.tolist() == ["resid_pre", "attn_out", "mlp_out"]
    assert np.array_equal(by_text.metric, by_function.metric)
    assert by_text.attrs["metric"] == f"logit of ' park' − logit of {wrong}"


@pytest.mark.parametrize(("each", "most"), [(0, 1), (0, 4096), (1e9, 4096), (1e9, 30), (64, 100)])
def test_how_the_cells_are_put_together_changes_no_number(model, clean, corrupted, grid, monkeypatch, each, most):
    monkeypatch.setattr(cells, "PASS", each)
    monkeypatch.setattr(cells, "MOST", most)
    cells._spans.cache_clear()
    again = patching_grid(model, clean, corrupted, last, sites=SITES, progress=False)
    cells._spans.cache_clear()
    assert np.abs(again.metric - grid.metric).max() <= 1e-5


def test_no_pass_computes_more_tokens_than_it_may(model, clean, corrupted, monkeypatch):
    monkeypatch.setattr(cells, "MOST", 30)
    seen = tokens_through(model, lambda: patching_grid(model, clean, corrupted, last, progress=False))
    assert max(seen) <= 30


def test_it_computes_a_fraction_of_what_a_run_a_cell_does(model):
    clean, corrupted = torch.arange(20, 36)[None], torch.arange(40, 56)[None]
    seen = tokens_through(model, lambda: patching_grid(model, clean, corrupted, last, progress=False))
    cells_and_layers, tokens = 3 * 3 * 16 * 3, 16
    assert sum(seen) < 0.35 * cells_and_layers * tokens
    assert len(seen) < 0.2 * cells_and_layers


def tokens_through(model, work: Callable) -> list[int]:
    """How many tokens each pass through a layer's experts had."""
    seen: list[int] = []
    handles = [
        block.mlp.register_forward_hook(lambda module, given, made: seen.append(made.shape[0] * made.shape[1]))
        for block in model.blocks
    ]
    try:
        work()
    finally:
        for handle in handles:
            handle.remove()
    return seen


def test_some_layers_and_positions_are_a_part_of_the_whole(model, clean, corrupted, grid):
    part = patching_grid(
        model, clean, corrupted, last, sites=["mlp_out", "resid_pre"], layers=[2, 1], positions=[7, 3], progress=False
    )
    expected = grid.metric.sel(site=["mlp_out", "resid_pre"], layer=[2, 1], pos=[7, 3])
    assert part.metric.dims == expected.dims and part.token.identical(expected.token)
    assert np.abs(part.metric - expected).max() <= 1e-5


def test_an_earlier_position_can_be_read(model, clean, corrupted):
    at = 5
    part = patching_grid(model, clean, corrupted, last, sites=SITES, logits_at=at, progress=False)
    assert part.pos.values.tolist() == list(range(at + 1))
    expected = one_by_one(model, clean, corrupted.tokens, last, at=at)
    assert_same(part.metric, expected[..., : at + 1])
    assert np.allclose(expected[..., at + 1 :], float(part.corrupted), atol=1e-5)  # the past is what it was


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_padded_row_is_the_row(model, clean, corrupted, grid, side):
    def beside_a_longer_one(text: str) -> Run:
        tokens, mask = model.to_tokens([text, text + " It was a day."], padding_side=side, return_mask=True)
        return run(model, tokens, attention_mask=mask)

    padded = patching_grid(
        model, beside_a_longer_one(CLEAN), beside_a_longer_one(CORRUPTED), last, sites=SITES, progress=False
    )
    assert np.abs(padded.metric.values - grid.metric.values).max() <= 1e-5
    assert padded.token.values.tolist() == grid.token.values.tolist()
    assert int(padded.pos[0]) == (0 if side == "right" else int(padded.pos[-1]) + 1 - len(grid.pos))


def test_an_edited_clean_run_is_patched_in_as_it_was(model, corrupted):
    edited = run(model, CLEAN, [wb.AblateExpert(0, 1), wb.AblateExpert(1, 3, "zero", positions=(0,))])
    made = patching_grid(model, edited, corrupted, last, sites=SITES, progress=False)
    assert_same(made.metric, one_by_one(model, edited, corrupted.tokens, last))
    assert (made.metric.values[..., 0] != float(made.corrupted)).any()  # though the first token is the same
    assert "AblateExpert" in made.attrs["interventions"]


def test_hooks_that_are_on_take_part_in_every_cell(model, clean, corrupted):
    with model.hooks(fwd_hooks=[("blocks.1.attn.hook_z", lambda z, hook: 0.5 * z)]):
        made = patching_grid(model, clean, corrupted, last, sites=SITES, progress=False)
        assert_same(made.metric, one_by_one(model, clean, corrupted.tokens, last))


def test_runs_that_score_the_same_recover_nothing_that_could_be_measured(model, clean):
    made = patching_grid(model, clean, clean, last, progress=False)
    assert float(made.clean) == pytest.approx(float(made.corrupted), abs=1e-6)
    assert np.abs(made.metric - made.corrupted).max() == 0


def test_a_metric_that_raises_leaves_the_model_as_it_was(model, clean, corrupted):
    def broken(logits: Tensor) -> Tensor:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        patching_grid(model, clean, corrupted, broken, progress=False)
    assert not model.list_hooks() and model.positions is None
    assert torch.equal(model(corrupted.tokens), corrupted.logits)


def test_the_bar_counts_cells(model, clean, corrupted, capsys):
    patching_grid(model, clean, corrupted, last, sites=["attn_out"])
    different = clean.tokens.shape[1] - int((clean.tokens != corrupted.tokens)[0].nonzero()[0])
    assert f"{3 * different}/{3 * different}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"sites": ["z"]}, r"sites=\['z'\]: expected some of \('resid_pre'"),
        ({"sites": "resid_pre"}, "sites='resid_pre': expected some of"),
        ({"sites": ["attn_out", "attn_out"]}, "expected at least one, each once"),
        ({"layers": [3]}, "layer=3: the model has layers 0 to 2"),
        ({"layers": []}, r"layers=\[\]: expected at least one"),
        ({"positions": [1, 99]}, r"positions=\[99\]: expected some of 0 to"),
        ({"row": 1}, "row=1: corrupted has rows 0 to 0"),
        ({"logits_at": 99}, "logits_at=99: the corrupted row has positions 0 to"),
        ({"metric": (5000, 1)}, "token=5000"),
        ({"metric": lambda logits: logits.mean()}, r"the metric gave \(\) for logits \(1, \d+\).*expected one number"),
        ({"metric": lambda logits: 1.0}, "the metric gave float for logits"),
        ({"corrupted": "Mia"}, r"clean has \d+ tokens and corrupted \d+: expected as many"),
    ],
)
def test_what_does_not_fit_is_refused(model, clean, corrupted, given, told):
    with pytest.raises(ValueError, match=told):
        patching_grid(**({"model": model, "clean": clean, "corrupted": corrupted, "metric": last} | given))


def test_runs_that_it_cannot_patch_are_refused(model, clean, corrupted):
    other = wb.HookedGptOss(model.config, model.tokenizer)
    with pytest.raises(ValueError, match="clean is a run of another model, 'small'"):
        patching_grid(other, clean, CORRUPTED, last)
    with pytest.raises(ValueError, match="corrupted is a run of another model"):
        patching_grid(other, CLEAN, corrupted, last)
    with pytest.raises(ValueError, match=r"corrupted was edited itself \(AblateExpert"):
        patching_grid(model, clean, run(model, CORRUPTED, [wb.AblateExpert(0, 1)]), last)
    with pytest.raises(KeyError, match=r"did not keep 'blocks\.0\.hook_resid_pre'"):
        patching_grid(model, run(model, CLEAN, sites="hook_embed"), corrupted, last)
