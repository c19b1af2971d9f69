"""Probes find what is there, do not find what is not, and never see a text on both sides of a split."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.metrics import balanced_accuracy_score, r2_score

from workbench.activations import run
from workbench.experiments.directions import probes
from workbench.experiments.directions.probes import probe
from workbench.figures.probes import probe_scores

quiet = {"progress": False}
NAMES = ("Mia", "Tom", "Ana", "Ben", "Eva", "Max", "Lily", "Leo")
TEXTS = [f"{name} is in the {place}" for name in NAMES for place in ("park", "mill")]
PLACES = ["park", "mill"] * len(NAMES)


@pytest.fixture(scope="module")
def made(model):
    return probe(model, TEXTS, PLACES, groups=[t.split()[0] for t in TEXTS], folds=4, shuffles=3, **quiet)


def test_the_last_word_can_be_read_off_its_own_position_in_unseen_texts(made):
    assert (made.score == 1).all()
    assert float(made.chance) == 0.5
    assert float(made.shuffled_score.mean()) < 0.8
    assert made["count"].values.tolist() == [8, 8]


def test_what_is_not_there_is_not_found(model):
    """Random labels: they fit what they were fitted on, and nothing else."""
    rng = np.random.default_rng(0)
    texts = rng.integers(20, 900, (100, 3)).tolist()
    labels = rng.integers(0, 2, 100).tolist()
    found = probe(model, texts, labels, layers=[2], shuffles=0, folds=3, strength=0.01, **quiet)
    assert float(found.train_score.mean()) > 0.6
    assert abs(float(found.score.mean()) - 0.5) < 0.15


def test_copies_of_a_text_are_never_on_both_sides(model, monkeypatch):
    """A label that only memory can give: with copies on both sides of a split it would be found."""
    seen = []
    scored = probes._scored

    def watched(values, labels, split, *rest):
        seen.append(split)
        return scored(values, labels, split, *rest)

    monkeypatch.setattr(probes, "_scored", watched)
    rng = np.random.default_rng(1)
    texts = [row for row in rng.integers(20, 900, (24, 5)).tolist() for _ in range(3)]
    labels = np.repeat(rng.permutation([0, 1] * 12), 3).tolist()
    found = probe(model, texts, labels, layers=[2], folds=3, shuffles=1, **quiet)
    for train, test in seen:
        assert not {tuple(texts[i]) for i in train} & {tuple(texts[i]) for i in test}
        assert set(train.tolist()) | set(test.tolist()) == set(range(72))
    assert float(found.score.mean()) < 0.75
    assert found.attrs["n_groups"] == 24


def test_a_ridge_probe_is_scikit_learns_on_scaled_features(model):
    rng = np.random.default_rng(2)
    texts = rng.integers(20, 900, (24, 4)).tolist()
    values = np.stack([run(model, [t])["blocks.1.hook_mlp_out"][0, -1].numpy() for t in texts])
    labels = (values @ rng.standard_normal(32)).tolist()
    found = probe(model, texts, labels, kind="ridge", site="mlp_out", layers=[1], folds=3, shuffles=0, **quiet)
    scaled = (values - values.mean(0)) / values.std(0)
    by_hand = Ridge(alpha=1.0).fit(scaled, labels)
    assert found.direction.values[0, 0] == pytest.approx(by_hand.coef_ / values.std(0), rel=1e-3, abs=1e-5)


def test_scores_are_scikit_learns():
    rng = np.random.default_rng(3)
    truth, said = rng.integers(0, 3, (2, 50))
    assert probes._score(truth, said, "logistic") == pytest.approx(balanced_accuracy_score(truth, said))
    assert probes._score(truth * 1.0, said * 1.0, "ridge") == pytest.approx(r2_score(truth, said))


def test_a_label_for_each_token_is_read_at_each_token(model):
    """Whether a token is the first of its text is written on it: nothing came before."""
    texts = [f"{name} is in the {place}" for name in NAMES for place in ("park",)]
    rows = [model.to_tokens(text)[0].tolist() for text in texts]
    labels = [["first"] + [None] * (len(row) - 2) + ["last"] for row in rows]
    found = probe(model, texts, labels, layers=[2], folds=4, shuffles=2, **quiet)
    assert found.attrs["n_examples"] == 2 * len(texts)
    assert float(found.score.mean()) == 1
    assert float(found.shuffled_score.mean()) < 0.9


def test_the_direction_tells_the_classes_apart(model, made):
    values = np.stack([run(model, text)["blocks.1.hook_resid_post"][0, -1].numpy() for text in TEXTS])
    side = values @ made.direction.sel(layer=1).values[0]
    park, mill = side[::2], side[1::2]
    # Classes are in alphabetical order: the direction points at the second.
    assert park.min() > mill.max()


def test_the_same_seed_gives_the_same_probes(model, made):
    again = probe(model, TEXTS, PLACES, groups=[t.split()[0] for t in TEXTS], folds=4, shuffles=3, **quiet)
    assert np.array_equal(again.shuffled_score, made.shuffled_score)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"labels": PLACES[:3]}, "3 labels for 16 texts"),
        ({"folds": 40}, "folds=40 of 16 groups"),
        ({"labels": ["one"] * 16}, "two classes"),
        ({"labels": [["a"]] * 16}, "expected one a token"),
        ({"layers": [9]}, "layer=9"),
        ({"folds": 1}, "at least 2"),
    ],
)
def test_what_does_not_fit_is_refused(model, given, told):
    with pytest.raises(ValueError, match=told):
        probe(model, TEXTS, **({"labels": PLACES} | given), **quiet)


def test_the_figure_shows_the_mean_of_the_folds(made, tmp_path):
    drawn = probe_scores(made)
    assert len(drawn.data) == 3
    assert list(drawn.data[1].y) == pytest.approx(made.score.mean("fold").values)
    made.to_netcdf(tmp_path / "stored.nc", engine="scipy")
    with pytest.raises(ValueError, match=r"experiments\.probe returns"):
        probe_scores(made.drop_vars("score"))
