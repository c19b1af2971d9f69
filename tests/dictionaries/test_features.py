"""What features do on nano: where they are, on which tokens, and which tokens they promote; against plain loops."""

import numpy as np
import pytest
import torch

from tests.dictionaries.trained import SITE, random_weights
from workbench.activations import run
from workbench.dictionaries import Dictionary, add, feature_edit_hook
from workbench.experiments.directions.features import feature_activations, feature_logit_effect, top_tokens


def test_activations_are_the_dictionarys_at_each_token_with_its_labels(runs, dictionary, tmp_path):
    made = feature_activations(runs[0], dictionary, row=1)
    real = runs[0].attention_mask[1]
    expected = dictionary.encode(runs[0][SITE][1, real])
    np.testing.assert_array_equal(made["activation"], expected[:, made["feature"].values.tolist()])
    assert set(made["feature"].values) == set((expected > 0).any(0).nonzero()[:, 0].tolist())
    np.testing.assert_array_equal(made["n_active"], (expected > 0).sum(-1))
    assert list(made["token"].values) == np.array(runs[0].str_tokens(1))[real.numpy()].tolist()
    share = dictionary.error(runs[0][SITE][1, real]).norm(dim=-1) / runs[0][SITE][1, real].norm(dim=-1)
    np.testing.assert_allclose(made["error_share"], share, rtol=1e-5)
    assert made.attrs["site"] == SITE and made.attrs["experiment"] == "feature_activations"
    made.to_netcdf(tmp_path / "features.nc")


def test_activations_of_chosen_features_are_given_in_that_order(runs, dictionary):
    made = feature_activations(runs[1], dictionary, features=[9, 3])
    assert list(made["feature"]) == [9, 3]
    assert made["activation"].shape == (runs[1].tokens.shape[1], 2)
    assert feature_activations(runs[1], dictionary, features="all").sizes["feature"] == 256


def test_top_tokens_are_the_strongest_of_a_plain_search(runs, dictionary):
    found = [  # every feature at every real token
        (dictionary.encode(done[SITE][row, pos]), i, row, pos)
        for i, done in enumerate(runs)
        for row in range(len(done.tokens))
        for pos in range(done.tokens.shape[1])
        if done.attention_mask is None or done.attention_mask[row, pos]
    ]
    features = [int(f) for f in torch.stack([acts for acts, *_ in found]).sum(0).topk(3).indices]
    made = top_tokens(runs, dictionary, features, top_k=4)
    for feature in features:
        its = made.sel(feature=feature)
        ranked = sorted(found, key=lambda place: -float(place[0][feature]))[:4]
        np.testing.assert_allclose(its["activation"], [float(acts[feature]) for acts, *_ in ranked], rtol=1e-4)
        for rank in range(4):
            i, row, pos = (int(its[name][rank]) for name in ("run", "row", "pos"))
            np.testing.assert_allclose(
                float(dictionary.encode(runs[i][SITE][row, pos])[feature]), its["activation"][rank], rtol=1e-4
            )
            token = runs[i].str_tokens(row)[pos]
            assert str(its["token"][rank].values) == token and token in str(its["context"][rank].values)
        share = np.mean([float(acts[feature]) > 0 for acts, *_ in found])
        np.testing.assert_allclose(its["frequency"], share)
    assert made.attrs["tokens"] == len(found)


def test_a_feature_that_is_nowhere_has_no_top_token(runs):
    weights = random_weights("relu", 128, 4)
    weights["b_enc"] = torch.tensor([-1e6, 0.0, 0.0, 0.0])
    made = top_tokens(runs[1:2], Dictionary(weights, site=SITE), [0], top_k=2)
    assert made["token"].values.tolist() == [["", ""]] and made["pos"].values.tolist() == [[-1, -1]]
    assert made["activation"].values.tolist() == [[0, 0]] and float(made["frequency"][0]) == 0


def test_the_direct_effect_is_what_steering_the_last_stream_does_to_the_logits(nano, dictionary):
    """At the last layer W_dec reaches the logits through the final norm alone, whose division is undone."""
    last = f"blocks.{nano.config.n_layers - 1}.hook_resid_post"
    text = "Mia lives in the park."
    plain = run(nano, text, sites=[last, "ln_final.hook_scale"])
    with torch.no_grad(), nano.hooks(fwd_hooks=[(last, feature_edit_hook(dictionary, {5: add(1.0)}))]):
        seen = {}
        keep = lambda x, hook: seen.update(scale=x)  # noqa: E731
        with nano.hooks(fwd_hooks=[("ln_final.hook_scale", keep)]):
            steered = nano(plain.tokens)
    change = steered[0, -1] * seen["scale"][0, -1] - plain.logits[0, -1] * plain["ln_final.hook_scale"][0, -1]
    made = feature_logit_effect(nano, dictionary, [5], top_k=6).sel(feature=5)
    up, down = change.topk(6), change.topk(6, largest=False)
    np.testing.assert_allclose(made["promoted_effect"], up.values, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(made["demoted_effect"], down.values, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(change[made["promoted_id"].values.tolist()], up.values, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(made["mean"], change.mean(), atol=1e-3)
    assert list(made["promoted_token"].values) == nano.tokenizer.str_tokens(made["promoted_id"].values.tolist())


@pytest.mark.usefixtures("as_in_a_notebook")
def test_what_is_not_there_is_refused(nano, runs, dictionary):
    with pytest.raises(ValueError, match="rows 0 to 3"):
        feature_activations(runs[0], dictionary, row=4)
    with pytest.raises(ValueError, match="features='live'"):
        feature_activations(runs[0], dictionary, features="live")
    with pytest.raises(KeyError, match="did not keep"):
        feature_activations(runs[0], dictionary, site="blocks.0.hook_resid_post")
    with pytest.raises(ValueError, match="0 runs, 1 features"):
        top_tokens([], dictionary, [1])
    with pytest.raises(ValueError, match=r"top_k=0: expected 1 to d_vocab=1024"):
        feature_logit_effect(nano, dictionary, [1], top_k=0)
    with pytest.raises(ValueError, match="width 64 on a model of d_model 128"):
        feature_logit_effect(nano, Dictionary(random_weights("relu", 64, 9)), [1])
