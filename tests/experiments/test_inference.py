"""Inference over prompts: scipy's intervals, permutations counted out, and error rates by simulation."""

import itertools

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from tests.small import as_in_a_notebook
from workbench.experiments.inference import adjusted, bootstrap, max_t, over_prompts, stack_prompts

__all__ = ["as_in_a_notebook"]


def draws(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


def not_more_often_than(rate: float, hits: int, trials: int) -> bool:
    """Whether so many hits are unsurprising (1 in 1000) if each trial hits with at most this rate."""
    return stats.binomtest(hits, trials, rate, alternative="greater").pvalue > 1e-3


# ---------------------------------------------------------------- intervals


@pytest.mark.parametrize("method", ["bca", "percentile"])
@pytest.mark.parametrize(("name", "function"), [("mean", np.mean), ("median", np.median), (np.std, np.std)])
def test_intervals_are_scipys(seed, method, name, function):
    values = np.exp(draws(seed, 24, 5))
    made = bootstrap(values, name, n=800, seed=seed, method=method)
    theirs = stats.bootstrap(
        (values,), function, axis=0, n_resamples=800, method=method, rng=np.random.default_rng(seed)
    )
    np.testing.assert_allclose(made["estimate"], function(values, axis=0))
    np.testing.assert_allclose(made["low"], theirs.confidence_interval.low, rtol=1e-9)
    np.testing.assert_allclose(made["high"], theirs.confidence_interval.high, rtol=1e-9)


@pytest.mark.parametrize("method", ["bca", "percentile"])
def test_intervals_cover_the_truth_as_often_as_they_say(method):
    """3000 samples of 60 skewed numbers whose mean is 2; n prompts of 60 leave the bootstrap a little short of 95 %."""
    values = np.random.default_rng(0).gamma(4.0, 0.5, size=(60, 3000))
    made = bootstrap(values, n=999, method=method)
    covered = float(((made["low"] <= 2) & (made["high"] >= 2)).mean())
    assert 0.925 <= covered <= 0.965


def test_other_levels_cover_as_often_as_they_say():
    made = bootstrap(draws(1, 60, 3000), n=999, level=0.8)
    assert 0.77 <= float(((made["low"] <= 0) & (made["high"] >= 0)).mean()) <= 0.82


def test_prompts_that_all_agree_leave_an_interval_of_one_point():
    made = bootstrap(np.full(10, 0.25), n=99)
    assert float(made["low"]) == float(made["high"]) == float(made["estimate"]) == 0.25


def test_labels_stay_and_a_cell_with_a_missing_prompt_is_missing():
    values = xr.DataArray(draws(2, 3, 8, 2), dims=("layer", "prompt", "head"), coords={"layer": [0, 5, 9]})
    values[1, 3, 0] = np.nan
    made = bootstrap(values, n=200)
    assert made["estimate"].dims == ("layer", "head") and list(made["layer"]) == [0, 5, 9]
    for name in ("estimate", "low", "high", "p"):
        missing = np.isnan(made[name].values)
        assert missing[1, 0] and missing.sum() == 1
    whole = bootstrap(values.isel(layer=[0, 2]), n=200)
    xr.testing.assert_allclose(made.isel(layer=[0, 2]), whole)
    assert np.isnan(max_t(values, n=200).values[1, 0])


# ---------------------------------------------------------------- p-values


def test_p_is_the_share_of_sign_flips_that_are_as_strong(seed):
    values = draws(seed, 9, 4) + 0.4
    flips = np.array(list(itertools.product([1, -1], repeat=9)))
    for name, function in (("mean", np.mean), ("median", np.median)):
        strength = np.array([abs(function(values * flip[:, None], axis=0)) for flip in flips])
        expected = (strength >= abs(function(values, axis=0)) - 1e-12).mean(0)
        np.testing.assert_allclose(bootstrap(values, name, n=600)["p"], expected)


def test_with_many_prompts_p_is_scipys_permutation_test(seed):
    values = draws(seed, 40, 3) + 0.25
    made = bootstrap(values, n=9999, seed=seed)["p"]
    theirs = stats.permutation_test(
        (values,), np.mean, permutation_type="samples", axis=0, n_resamples=9999, rng=np.random.default_rng(1)
    ).pvalue
    np.testing.assert_allclose(made, theirs, atol=0.02)
    assert float(made.min()) >= 1 / 10_000


def test_a_null_other_than_0_shifts_the_question():
    values = draws(3, 20, 3)
    np.testing.assert_allclose(bootstrap(values + 2, n=500, null=2.0)["p"], bootstrap(values, n=500)["p"])


@pytest.mark.parametrize("shape", ["normal", "uniform", "cauchy"])
def test_null_effects_are_called_real_in_no_more_than_5_percent_of_cells(shape):
    random = np.random.default_rng(4)
    values = {
        "normal": random.normal,
        "uniform": lambda size: random.uniform(-1, 1, size),
        "cauchy": random.standard_cauchy,
    }[shape](size=(20, 4000))
    p = bootstrap(values, n=499)["p"]
    assert not_more_often_than(0.05, int((p <= 0.05).sum()), 4000)
    assert not_more_often_than(0.01, int((p <= 0.01).sum()), 4000)


# ---------------------------------------------------------------- many cells


def test_holm_and_benjamini_hochberg_are_their_definitions(seed):
    p = np.random.default_rng(seed).uniform(size=(4, 5)) ** 3
    np.testing.assert_allclose(
        adjusted(p, "benjamini_hochberg").values.reshape(-1), stats.false_discovery_control(p.reshape(-1), method="bh")
    )
    flat = p.reshape(-1)
    order = np.argsort(flat)
    expected = np.array([max((20 - j) * flat[order[j]] for j in range(list(order).index(i) + 1)) for i in range(20)])
    np.testing.assert_allclose(adjusted(p, "holm").values.reshape(-1), np.minimum(expected, 1))


def test_missing_cells_count_for_nothing():
    p = np.array([0.01, np.nan, 0.02])
    np.testing.assert_allclose(adjusted(p, "holm"), [0.02, np.nan, 0.02])
    np.testing.assert_allclose(adjusted(p, "benjamini_hochberg"), [0.02, np.nan, 0.02])


def test_max_t_is_the_step_down_maximum_counted_out(seed):
    values = draws(seed, 8, 5) + np.array([0, 1.5, 0, 0.8, 0])
    flips = np.array(list(itertools.product([1, -1], repeat=8)))

    def t(x):
        return np.abs(x.mean(0)) / (x.std(0, ddof=1) / np.sqrt(len(x)))

    observed, null = t(values), np.array([t(values * flip[:, None]) for flip in flips])
    order = np.argsort(-observed)
    expected, last = np.empty(5), 0.0
    for j, cell in enumerate(order):
        strongest = null[:, order[j:]].max(1)
        last = max(last, float((strongest >= observed[cell] * (1 - 1e-9)).mean()))
        expected[cell] = last
    np.testing.assert_allclose(max_t(values, n=300), expected)


@pytest.mark.parametrize("correction", ["max_t", "holm"])
@pytest.mark.parametrize("correlated", [False, True])
def test_a_null_grid_has_any_false_positive_in_no_more_than_5_percent_of_studies(correction, correlated):
    random, trials, hits = np.random.default_rng(5), 300, 0
    for trial in range(trials):
        values = random.normal(size=(16, 20))
        if correlated:
            values = 0.4 * values + random.normal(size=(16, 1))
        if correction == "max_t":
            p = max_t(values, n=299, seed=trial)
        else:
            p = adjusted(bootstrap(values, n=999, seed=trial, method="percentile")["p"], "holm")
        hits += bool((p <= 0.05).any())
    assert not_more_often_than(0.05, hits, trials)


def test_of_what_benjamini_hochberg_calls_real_no_more_than_5_percent_is_not():
    """30 cells with an effect among 100; the rate is bounded by 5 % times the share of nulls."""
    random, shares, found = np.random.default_rng(6), [], 0
    for trial in range(100):
        values = random.normal(size=(24, 100))
        values[:, :30] += 0.9
        p = adjusted(bootstrap(values, n=1999, seed=trial, method="percentile")["p"], "benjamini_hochberg")
        positive = p.values <= 0.05
        shares.append(positive[30:].sum() / max(positive.sum(), 1))
        found += positive[:30].sum()
    assert np.mean(shares) <= 0.05 + 3 * np.std(shares) / np.sqrt(len(shares))
    assert found > 0.8 * 30 * 100  # and it does find them


def test_max_t_keeps_the_correlation_that_holm_gives_away():
    """Twenty copies of one cell are one question; Holm still pays for twenty."""
    one = draws(7, 16, 1) + 0.75
    p = float(max_t(one, n=9999)[0])
    np.testing.assert_allclose(max_t(np.repeat(one, 20, axis=1), n=9999), p)
    assert float(adjusted(bootstrap(np.repeat(one, 20, axis=1), n=9999)["p"], "holm")[0]) > 10 * p


def test_cells_that_never_move_are_no_finding_and_cells_that_always_agree_are():
    values = np.concatenate([np.zeros((8, 1)), np.ones((8, 1)), draws(8, 8, 3)], axis=1)
    p = max_t(values, n=300)
    assert float(p[0]) == 1.0
    assert float(p[1]) <= 0.05


# ---------------------------------------------------------------- over prompts


def study(prompt: int) -> xr.Dataset:
    effect = draws(prompt, 2, 3) + np.array([[0, 0, 0], [0, 3.0, 0]])
    coords = {"layer": [0, 1], "pos": [0, 1, 2], "token": ("pos", [f"{prompt}a", "b", "c"])}
    return xr.Dataset({"effect": (("layer", "pos"), effect), "n": ((), 3)}, coords, {"model": "x", "time": str(prompt)})


def test_an_experiment_over_prompts_finds_the_cell_that_has_an_effect():
    made = over_prompts(study, range(30), variable="effect", n=999, progress=False)
    assert set(made.data_vars) == {"estimate", "low", "high", "p", "p_adjusted"}
    np.testing.assert_array_equal(made["p_adjusted"] <= 0.05, [[False] * 3, [False, True, False]])
    np.testing.assert_allclose(made["estimate"], np.mean([study(i)["effect"] for i in range(30)], axis=0))
    assert made.attrs["prompts"] == 30 and made.attrs["model"] == "x" and "time" not in made.attrs
    assert "token" not in made.coords and list(made["pos"]) == [0, 1, 2]
    assert all(isinstance(value, str | int | float) for value in made.attrs.values())


def test_a_function_its_datasets_and_their_stack_give_the_same():
    datasets = [study(i) for i in range(8)]
    stack = stack_prompts(datasets, variable="effect")
    expected = over_prompts(study, range(8), variable="effect", correction="holm", n=99, progress=False)
    xr.testing.assert_identical(over_prompts(datasets, variable="effect", correction="holm", n=99), expected)
    xr.testing.assert_identical(over_prompts(stack, correction="holm", n=99), expected)
    assert "p_adjusted" not in over_prompts(stack, correction=None, n=99)


def test_numbers_are_enough():
    made = over_prompts([1.0, 2.0, 4.0, 3.0], n=99, correction=None)
    assert float(made["estimate"]) == 2.5 and float(made["p"]) == 2 / 16


@pytest.mark.usefixtures("as_in_a_notebook")
@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (lambda: bootstrap(np.zeros((1, 3))), "1 prompts: expected at least two"),
        (lambda: bootstrap(np.zeros((4, 3)), "mode"), "statistic='mode'"),
        (lambda: bootstrap(np.zeros((4, 3)), level=95), "level=95: expected between 0 and 1"),
        (lambda: bootstrap(np.zeros((4, 3)), method="basic"), "method='basic'"),
        (lambda: bootstrap(np.zeros((4, 3)), n=0), "n=0"),
        (lambda: bootstrap(xr.DataArray(np.zeros((4, 3)), dims=("a", "b"))), "expected 'prompt' among them"),
        (lambda: adjusted(np.array([0.1, 1.5])), "expected 0 to 1"),
        (lambda: adjusted(np.array([0.1]), "bonferroni"), "method='bonferroni'"),
        (lambda: over_prompts(study, range(3), progress=False), r"variable=None: expected one of \['effect', 'n'\]"),
        (lambda: over_prompts(study), "give the prompts"),
        (lambda: over_prompts([1.0]), "1 prompts"),
        (lambda: over_prompts([1.0, 2.0], correction="fdr"), "correction='fdr'"),
        (lambda: over_prompts([study(0).effect, study(1).effect[:, :2]]), "expected the same, with the same labels"),
        (lambda: over_prompts(study(0), variable="effect"), "expected 'prompt' among them"),
    ],
)
def test_what_cannot_be_asked_is_refused(call, complaint):
    with pytest.raises(ValueError, match=complaint):
        call()


@pytest.mark.parametrize("other", [np.zeros(4), xr.DataArray(np.zeros(3), dims="dim_0", coords={"dim_0": [1, 2, 3]})])
def test_prompts_whose_cells_are_not_the_same_are_refused(other):
    first = xr.DataArray(np.zeros(3))
    for pair in ([first, other], [other, first]):
        with pytest.raises(ValueError, match="expected the same, with the same labels"):
            stack_prompts(pair)
