"""The difference of two logit lenses, against the two lenses themselves and numpy."""

import numpy as np
import pytest

from workbench.activations import run
from workbench.experiments.lenses.lens_difference import lens_difference, partners
from workbench.experiments.lenses.logit_lens import logit_lens
from workbench.figures.lens_difference import SHADES, lens_difference_heatmap
from workbench.interventions import AblateHead, AblateLayer


@pytest.fixture(scope="module")
def pair(model):
    mia = run(model, "Mia lives in the park. Tom", name="mia")
    ana = run(model, mia.tokens.roll(1, 1), name="ana")
    return mia, ana


@pytest.fixture(scope="module")
def apart(pair):
    return lens_difference(*pair)


def test_a_difference_is_one_lens_less_the_other(model, pair, apart):
    mia, ana = pair
    vocabulary = model.config.d_vocab
    one, two = (logit_lens(done, top_k=vocabulary) for done in (mia, ana))
    final = mia.logits[0].argmax(-1).numpy()
    for pos in range(len(final)):
        for layer in range(-1, 3):
            cell = apart.isel(pos=pos).sel(layer=layer)
            probabilities = []
            for lens in (one, two):
                here = lens.isel(pos=pos).sel(layer=layer)
                whole = np.zeros(vocabulary)
                whole[here.top_id.values] = here.top_probability.values
                probabilities.append(whole)
            p, q = probabilities
            word, target = int(p.argmax()), final[pos]
            assert int(cell.top_id) == word and int(cell.other_id) == int(q.argmax())
            assert float(cell.word_change) == pytest.approx(p[word] - q[word], abs=1e-6)
            assert float(cell.target_change) == pytest.approx(p[target] - q[target], abs=1e-6)
            ranks = [(v > v[target]).sum() + 1 for v in (p, q)]
            assert float(cell.rank_change) == pytest.approx(np.log10(ranks[0] / ranks[1]), abs=1e-6)
            entropies = [-(v * np.log(v)).sum() for v in (p, q)]
            assert float(cell.entropy_change) == pytest.approx(entropies[0] - entropies[1], abs=1e-5)
            assert float(cell.kl) == pytest.approx((p * np.log(p / q)).sum(), abs=1e-5)


def test_a_run_differs_from_itself_in_nothing(pair):
    same = lens_difference(pair[0], pair[0])
    for name in ("word_change", "target_change", "rank_change", "entropy_change", "kl"):
        assert float(np.abs(same[name]).max()) == 0


def test_an_edit_shows_only_from_its_layer_on(model, pair):
    edited = run(model, pair[0].tokens, [AblateHead(1, 0)])
    apart = lens_difference(edited, pair[0])
    assert float(apart.kl.sel(layer=[-1, 0]).max()) == 0
    assert float(apart.kl.sel(layer=[1, 2]).min()) > 0
    assert apart.attrs["interventions"] and apart.attrs["other"] == "mia"


def test_texts_of_other_lengths_are_compared_where_they_are_alike(model, pair):
    shorter = run(model, pair[0].tokens[:, [0, 1, 4, 5, 6]])
    apart = lens_difference(pair[0], shorter)
    assert (
        apart.other_pos.values.tolist() == [0, 1, *[-1] * (pair[0].tokens.shape[1] - 5), 2, 3, 4][: apart.sizes["pos"]]
    )
    without = apart.isel(pos=apart.other_pos.values < 0)
    assert np.isnan(without.kl).all() and (without.top_id == -1).all() and (without.top_token == "").all()
    assert not np.isnan(apart.isel(pos=[0, 1, -1]).kl).any()


@pytest.mark.parametrize(
    ("one", "other", "found"),
    [
        ([1, 2, 3], [4, 5, 6], [0, 1, 2]),
        ([1, 2, 3], [1, 9, 2, 3], [0, 2, 3]),
        ([1, 1, 1], [1, 1], [0, 1, -1]),
        ([1, 1], [1, 1, 1], [0, 1]),
        ([7], [1, 2], [-1]),
        ([1, 2, 9, 9, 3], [1, 2, 3], [0, 1, -1, -1, 2]),
        ([1, 5, 2, 3, 8, 4], [1, 6, 7, 2, 3, 9, 4], [0, -1, 3, 4, 5, 6]),
    ],
)
def test_partners_are_the_same_tokens_or_as_many_others_in_their_place(one, other, found):
    assert partners(one, other).tolist() == found


def test_a_target_is_followed(model, pair):
    apart = lens_difference(*pair, target=" park")
    assert set(apart.target_token.values) == {" park"} and apart.attrs["target"] == " park"


def test_models_of_other_sizes_are_refused(model, pair):
    from workbench.model import NANO, HookedGptOss, random_weights

    other = random_weights(HookedGptOss(NANO.with_(n_layers=2, d_model=32, d_mlp=16, n_heads=4)), seed=1)
    with pytest.raises(ValueError, match="n_layers=3 and 2"):
        lens_difference(pair[0], run(other, pair[0].tokens))


@pytest.mark.parametrize("shade", SHADES)
def test_the_figure_shows_the_numbers_of_the_dataset(model, pair, shade):
    apart = lens_difference(run(model, pair[0].tokens, [AblateLayer(1)]), pair[0])
    drawn = lens_difference_heatmap(apart, shade)
    z = np.array(drawn.data[0].z, float)
    assert z == pytest.approx(apart[SHADES[shade][0]].values, nan_ok=True)
    with pytest.raises(ValueError, match="expected one of"):
        lens_difference_heatmap(apart, "colour")


def test_the_partner_is_a_column_of_the_other_run_where_that_is_padded_on_the_left(model):
    tokens, mask = model.to_tokens(["Tom", "Mia lives in the park."], padding_side="left", return_mask=True)
    alone, padded = run(model, "Tom"), run(model, tokens, attention_mask=mask)
    assert lens_difference(alone, padded).other_pos.values.tolist() == mask[0].nonzero()[:, 0].tolist() != [0]
