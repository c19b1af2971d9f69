"""A dictionary of features: the stream as a sparse sum of directions, and what that sum leaves out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, SupportsIndex, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

Activation = Literal["relu", "topk", "jumprelu", "gated"]
Normalisation = Literal["none", "constant_norm_rescale", "layer_norm"]

# What each kind has beside W_enc [d_model feature], W_dec [feature d_model] and b_dec [d_model]; all are [feature].
BIASES: dict[str, tuple[str, ...]] = {
    "relu": ("b_enc",),
    "topk": ("b_enc",),
    "jumprelu": ("b_enc", "threshold"),
    "gated": ("b_gate", "b_mag", "r_mag"),
}
_LAYER_NORM_EPS = 1e-5


class Dictionary(nn.Module):
    """A trained sparse autoencoder, frozen: its weights are buffers that no optimiser sees.

    ``x ≈ decode(encode(x))``, and ``x = decode(encode(x)) + error(x)``. Kinds, with pre = (x − b_dec) W_enc + b_enc:
    ``relu`` max(pre, 0); ``topk`` that of each position's k largest; ``jumprelu`` that where pre > threshold;
    ``gated`` max((x − b_dec) (W_enc·exp r_mag) + b_mag, 0) where (x − b_dec) W_enc + b_gate > 0.

    Args:
        weights: W_enc [d_model feature], W_dec [feature d_model], b_dec [d_model], and the kind's own [feature].
        activation: the kind.
        k: of topk, how many features a position may have.
        subtract_bias: whether b_dec is taken off the input (``apply_b_dec_to_input`` in SAELens).
        normalisation: what is done to each input vector first and undone at the end: "none"; "constant_norm_rescale"
            to the length √d_model; "layer_norm" to mean 0 and standard deviation 1.
        site: where it was trained, as the model here calls it.
        about: where it came from, plain values.

    Raises:
        ValueError: for weights that are missing, too many or of the wrong shape, or a k that does not fit.
    """

    W_enc: Tensor
    W_dec: Tensor
    b_dec: Tensor

    def __init__(
        self,
        weights: Mapping[str, Tensor],
        activation: Activation = "relu",
        *,
        k: int | None = None,
        subtract_bias: bool = True,
        normalisation: Normalisation = "none",
        site: str | None = None,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        _check(weights, activation, k, normalisation)
        self.activation, self.k = activation, k
        self.subtract_bias, self.normalisation = subtract_bias, normalisation
        self.site, self.about = site, dict(about or {})
        for name, tensor in weights.items():
            self.register_buffer(name, tensor.detach())
        self.eval()

    @property
    def d_model(self) -> int:
        """Width of the site that it reads."""
        return self.W_enc.shape[0]

    @property
    def n_features(self) -> int:
        """How many directions it has."""
        return self.W_enc.shape[1]

    def encode(
        self, x: Float[Tensor, "*lead d_model"], features: Sequence[int] | None = None
    ) -> Float[Tensor, "*lead feature"]:
        """How strongly each feature is there, ≥ 0, in the dictionary's dtype; of some features alone if they are given.

        Raises:
            ValueError: for an input of another width, or a feature that is not there.
        """
        self._check_width(x)
        chosen = slice(None) if features is None else self.check_features(features)
        inputs, _, _ = self._normalised(x)
        inputs = inputs - self.b_dec if self.subtract_bias else inputs
        if self.activation == "topk":
            # Which are the largest can only be said with all of them at hand.
            return _largest(inputs @ self.W_enc + self.get_buffer("b_enc"), self.k or 0)[..., chosen]
        here = {name: self.get_buffer(name)[chosen] for name in BIASES[self.activation]}
        projected = inputs @ self.W_enc[:, chosen]
        if self.activation == "gated":
            magnitude = (projected * here["r_mag"].exp() + here["b_mag"]).relu()
            return magnitude * (projected + here["b_gate"] > 0)
        pre = projected + here["b_enc"]
        return pre.relu() * (pre > here["threshold"]) if self.activation == "jumprelu" else pre.relu()

    def decode(
        self, features: Float[Tensor, "*lead feature"], like: Float[Tensor, "*lead d_model"] | None = None
    ) -> Float[Tensor, "*lead d_model"]:
        """The sum of directions that the features stand for, with b_dec.

        Args:
            like: the input whose scale is put back; needed only with a normalisation.

        Raises:
            ValueError: without ``like`` where it is needed.
        """
        made = features @ self.W_dec + self.b_dec
        if self.normalisation == "none":
            return made
        if like is None:
            raise ValueError(f"this dictionary scales each input ({self.normalisation}): give decode(features, like=x)")
        _, shift, size = self._normalised(like)
        return made * size + shift

    def forward(self, x: Float[Tensor, "*lead d_model"]) -> Float[Tensor, "*lead d_model"]:
        """The reconstruction."""
        return self.decode(self.encode(x), like=x)

    def error(self, x: Float[Tensor, "*lead d_model"]) -> Float[Tensor, "*lead d_model"]:
        """What the reconstruction leaves out: x − decode(encode(x))."""
        return x.to(self.W_enc.dtype) - self(x)

    def written(
        self, change: Float[Tensor, "*lead chosen"], features: Sequence[int], like: Float[Tensor, "*lead d_model"]
    ) -> Float[Tensor, "*lead d_model"]:
        """What a change of some features does to the output: change · decoder rows, in the scale of the input."""
        return change @ self.W_dec[self.check_features(features)] * self._normalised(like)[2]

    def check_features(self, features: Sequence[int]) -> list[int]:
        """The features as a list.

        Raises:
            ValueError: for one that is no number, or that the dictionary does not have.
        """
        for feature in features:
            if not isinstance(feature, SupportsIndex):
                raise ValueError(f"feature={feature!r:.40}: expected a whole number")
            if not 0 <= feature < self.n_features:
                nearest = min(max(feature, 0), self.n_features - 1)
                raise ValueError(
                    f"feature={feature}: the dictionary has features 0 to {self.n_features - 1}, "
                    f"the nearest is {nearest}"
                )
        return list(features)

    def _check_width(self, x: Tensor) -> None:
        if x.shape[-1] != self.d_model:
            where = f", made for {self.site}" if self.site else ""
            raise ValueError(f"an input of width {x.shape[-1]} for a dictionary of width {self.d_model}{where}")

    def _normalised(self, x: Tensor) -> tuple[Tensor, Tensor | float, Tensor | float]:
        """(the input as the encoder takes it, what was taken off, what it was divided by)."""
        x = x.to(self.W_enc.dtype)
        if self.normalisation == "constant_norm_rescale":
            size = x.norm(dim=-1, keepdim=True) / self.d_model**0.5
            return x / size, 0.0, size
        if self.normalisation == "layer_norm":
            shift = x.mean(-1, keepdim=True)
            size = (x - shift).std(-1, keepdim=True)  # divided by d_model − 1, as SAELens has it
            return (x - shift) / (size + _LAYER_NORM_EPS), shift, size
        return x, 0.0, 1.0

    def __repr__(self) -> str:
        kind = f"topk k={self.k}" if self.activation == "topk" else self.activation
        return f"Dictionary({self.n_features} features of width {self.d_model}, {kind}, site {self.site})"


def _largest(pre: Float[Tensor, "*lead feature"], k: int) -> Float[Tensor, "*lead feature"]:
    top = pre.topk(k, dim=-1)
    return torch.zeros_like(pre).scatter(-1, top.indices, top.values.relu())


def _check(weights: Mapping[str, Tensor], activation: str, k: int | None, normalisation: str) -> None:
    if activation not in BIASES:
        raise ValueError(f"activation={activation!r}: expected one of {get_args(Activation)}")
    if normalisation not in get_args(Normalisation):
        raise ValueError(f"normalisation={normalisation!r}: expected one of {get_args(Normalisation)}")
    expected = {"W_enc", "W_dec", "b_dec", *BIASES[activation]}
    if set(weights) != expected:
        missing, extra = sorted(expected - set(weights)), sorted(set(weights) - expected)
        raise ValueError(f"a {activation} dictionary: missing weights {missing}, unknown weights {extra}")
    if weights["W_enc"].ndim != 2:
        raise ValueError(f"W_enc has shape {tuple(weights['W_enc'].shape)}: expected [d_model feature]")
    d_model, n_features = weights["W_enc"].shape
    shapes = {"W_dec": (n_features, d_model), "b_dec": (d_model,)} | dict.fromkeys(BIASES[activation], (n_features,))
    for name, shape in shapes.items():
        if tuple(weights[name].shape) != shape:
            raise ValueError(
                f"{name} has shape {tuple(weights[name].shape)}: expected {shape}, as W_enc is {(d_model, n_features)}"
            )
    if (k is not None) != (activation == "topk") or (k is not None and not 0 < k <= n_features):
        raise ValueError(f"k={k} of a {activation} dictionary: expected 1 to {n_features} for topk, None for others")
