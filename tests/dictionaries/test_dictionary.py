"""What a dictionary computes, against its formula written out one number at a time."""

import math

import pytest
import torch

from tests.dictionaries.trained import random_weights
from workbench.dictionaries import Dictionary

KINDS = ["relu", "topk", "jumprelu", "gated"]


def by_hand(weights, activation, x, k=None, subtract_bias=True) -> torch.Tensor:
    """Features of one vector, in plain Python."""
    d_model, n_features = weights["W_enc"].shape
    centred = [float(x[d] - (weights["b_dec"][d] if subtract_bias else 0)) for d in range(d_model)]
    dots = [sum(centred[d] * float(weights["W_enc"][d, f]) for d in range(d_model)) for f in range(n_features)]
    if activation == "gated":
        gate, mag, r = (weights[name].tolist() for name in ("b_gate", "b_mag", "r_mag"))
        return torch.tensor(
            [max(dot * math.exp(r[f]) + mag[f], 0.0) if dot + gate[f] > 0 else 0.0 for f, dot in enumerate(dots)]
        )
    pre = [dot + float(weights["b_enc"][f]) for f, dot in enumerate(dots)]
    if activation == "topk":
        largest = sorted(range(n_features), key=lambda f: -pre[f])[:k]
        return torch.tensor([max(pre[f], 0.0) if f in largest else 0.0 for f in range(n_features)])
    floor = weights["threshold"].tolist() if activation == "jumprelu" else [0.0] * n_features
    return torch.tensor([p if p > max(floor[f], 0.0) else 0.0 for f, p in enumerate(pre)])


@pytest.mark.parametrize("subtract_bias", [True, False])
@pytest.mark.parametrize("activation", KINDS)
def test_every_kind_encodes_as_its_formula_says(activation, subtract_bias, seed):
    weights = random_weights(activation, 6, 20, seed)
    k = 5 if activation == "topk" else None
    made = Dictionary(weights, activation, k=k, subtract_bias=subtract_bias)
    x = torch.randn(2, 3, 6, generator=torch.Generator().manual_seed(seed))
    expected = torch.stack([by_hand(weights, activation, v, k, subtract_bias) for v in x.reshape(-1, 6)])
    torch.testing.assert_close(made.encode(x), expected.reshape(2, 3, 20), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(made.encode(x, [7, 2]), made.encode(x)[..., [7, 2]], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("normalisation", ["none", "constant_norm_rescale", "layer_norm"])
def test_reconstruction_and_error_add_up_to_the_input(normalisation, seed):
    made = Dictionary(random_weights("relu", 6, 20, seed), "relu", normalisation=normalisation)
    x = torch.randn(4, 6, generator=torch.Generator().manual_seed(seed)) * 3 + 1
    torch.testing.assert_close(made(x) + made.error(x), x)
    torch.testing.assert_close(made(x), made.decode(made.encode(x), like=x))


@pytest.mark.parametrize("normalisation", ["constant_norm_rescale", "layer_norm"])
def test_a_normalising_dictionary_does_not_see_the_size_of_its_input_and_puts_it_back(normalisation, seed):
    made = Dictionary(random_weights("relu", 6, 20, seed), "relu", normalisation=normalisation)
    x = torch.randn(4, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float32) * 50
    torch.testing.assert_close(made.encode(3 * x), made.encode(x), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(made(3 * x), 3 * made(x), rtol=1e-3, atol=1e-2)
    with pytest.raises(ValueError, match=r"decode\(features, like=x\)"):
        made.decode(made.encode(x))


def test_its_weights_are_frozen():
    made = Dictionary(random_weights("relu", 6, 20), "relu")
    assert not list(made.parameters()) and not made.training
    assert not any(tensor.requires_grad for tensor in made.state_dict().values())


@pytest.mark.usefixtures("as_in_a_notebook")
@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"activation": "gelu"}, "activation='gelu': expected one of"),
        ({"normalisation": "unit"}, "normalisation='unit': expected one of"),
        ({"k": 3}, "k=3 of a relu dictionary"),
        ({"activation": "topk"}, "k=None of a topk dictionary: expected 1 to 20"),
        ({"activation": "topk", "k": 21}, "k=21 of a topk"),
        ({"activation": "jumprelu"}, r"missing weights \['threshold'\]"),
        ({"b_dec": torch.zeros(5)}, r"b_dec has shape \(5,\): expected \(6,\)"),
        ({"W_dec": torch.zeros(6, 20)}, r"W_dec has shape \(6, 20\): expected \(20, 6\)"),
    ],
)
def test_weights_that_make_no_dictionary_are_refused(change, complaint):
    weights, options = random_weights("relu", 6, 20), {"activation": "relu"}
    for name, value in change.items():
        (weights if name in weights else options)[name] = value
    with pytest.raises(ValueError, match=complaint):
        Dictionary(weights, **options)


@pytest.mark.usefixtures("as_in_a_notebook")
def test_an_input_of_another_width_and_a_feature_that_is_not_there_are_refused():
    made = Dictionary(random_weights("relu", 6, 20), "relu", site="blocks.0.hook_resid_post")
    with pytest.raises(ValueError, match=r"width 7 for a dictionary of width 6, made for blocks\.0\.hook_resid_post"):
        made.encode(torch.zeros(2, 7))
    with pytest.raises(ValueError, match=r"feature=20: the dictionary has features 0 to 19, the nearest is 19"):
        made.encode(torch.zeros(2, 6), [3, 20])
    with pytest.raises(ValueError, match=r"feature=1\.5: expected a whole number"):
        made.encode(torch.zeros(2, 6), [1.5])
