"""A dictionary on a site of the model: its features read, ablated and steered, its error left in place.

What is written back is x + (edited features − features) · W_dec, never the reconstruction itself: the error term stays
exactly what it was, and where no feature changed, so does every bit of the stream.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Real
from operator import index
from typing import Literal, SupportsIndex, get_args

import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens.hook_points import HookPoint

from workbench.dictionaries.dictionary import Dictionary
from workbench.model import HookedGptOss
from workbench.model.interrupts import Hooked

Kind = Literal["set", "add", "scale"]


@dataclass(frozen=True)
class FeatureOp:
    """What is done to a feature's activation: set to a value, a value added, multiplied by one. Frozen, plain data.

    ``positions`` are columns of the row (None for all). A result below 0, which no feature has by itself, is left as
    it is: that is steering against it.
    """

    kind: Kind
    value: float
    positions: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ValueError(f"kind={self.kind!r}: expected one of {get_args(Kind)}")
        if not isinstance(self.value, Real) or not math.isfinite(self.value):
            raise ValueError(f"value={self.value!r}: expected a number")
        # One counted from the end, or none at all, would match no column and look like an edit that does nothing.
        if self.positions is not None and (not self.positions or not all(map(_is_column, self.positions))):
            raise ValueError(f"positions={self.positions!r}: expected columns of the row, from 0, or None for all")

    def __call__(self, activation: Float[Tensor, "*lead pos"], first_column: int = 0) -> Float[Tensor, "*lead pos"]:
        """The activations as they are to be; ``first_column`` is the row's column of the first of them."""
        made = {
            "set": lambda: torch.full_like(activation, self.value),
            "add": lambda: activation + self.value,
            "scale": lambda: activation * self.value,
        }[self.kind]()
        if self.positions is None:
            return made
        columns = torch.arange(activation.shape[-1], device=activation.device) + first_column
        chosen = torch.isin(columns, torch.tensor(self.positions, device=activation.device))
        return torch.where(chosen, made, activation)


def ablate(positions: tuple[int, ...] | None = None) -> FeatureOp:
    """Take a feature out."""
    return FeatureOp("set", 0.0, positions)


def set_to(value: float, positions: tuple[int, ...] | None = None) -> FeatureOp:
    """Give a feature this activation, there or not."""
    return FeatureOp("set", float(value), positions)


def add(value: float, positions: tuple[int, ...] | None = None) -> FeatureOp:
    """Steer: add this to a feature's activation."""
    return FeatureOp("add", float(value), positions)


def scale(factor: float, positions: tuple[int, ...] | None = None) -> FeatureOp:
    """Multiply a feature's activation."""
    return FeatureOp("scale", float(factor), positions)


def _is_column(position: object) -> bool:
    return isinstance(position, SupportsIndex) and index(position) >= 0


Op = FeatureOp | Callable[[Tensor], Tensor]


def feature_edit_hook(
    dictionary: Dictionary, ops: Mapping[int, Op], first_column: Callable[[], int | None] | None = None
) -> Callable:
    """A forward hook that edits features and nothing else, for ``model.hooks(fwd_hooks=[(site, hook)])``.

    Args:
        ops: feature → what is done to it: a :class:`FeatureOp`, or a function of its activations [batch pos].
        first_column: gives the column of the pass's first token, where passes do not start at the row's beginning (a
            generation with a KV cache); :func:`attached` gives the model's.

    Raises:
        ValueError: for a feature that the dictionary does not have.
    """
    features = dictionary.check_features(list(ops))

    def hook(x: Float[Tensor, "batch pos d_model"], hook: object = None) -> Tensor | None:
        if not features:
            return None
        before = dictionary.encode(x, features)
        start = (first_column() if first_column else None) or 0
        columns = [_edited(op, before[..., i], start) for i, op in enumerate(ops.values())]
        return _with_change(dictionary, x, torch.stack(columns, -1) - before, features)

    return hook


class Attachment:
    """A dictionary while it is on a model.

    Attributes:
        dictionary, site: which, and where.
        features: [batch pos feature] of the last pass, after the edits; None before the first.
        input: [batch pos d_model], the site in the last pass, before the edits.
        hook_features: a HookPoint that every pass sends its features through: ``add_hook`` reads and edits them, and
            gradients reach them.
    """

    def __init__(self, dictionary: Dictionary, site: str, ops: Mapping[int, Op], model: HookedGptOss) -> None:
        self.dictionary, self.site, self.model = dictionary, site, model
        self.hook_features = HookPoint()
        self.hook_features.name = f"{site}.hook_features"
        self.features: Tensor | None = None
        self.input: Tensor | None = None
        self._ops = dict(ops)
        dictionary.check_features(list(self._ops))

    @property
    def error(self) -> Float[Tensor, "batch pos d_model"]:
        """What the dictionary leaves out of the last pass.

        Raises:
            ValueError: before the first pass.
        """
        if self.input is None:
            raise ValueError("nothing has run with this dictionary yet; call the model inside the with block")
        return self.dictionary.error(self.input)

    def __call__(self, x: Float[Tensor, "batch pos d_model"], hook: object = None) -> Tensor | None:
        """The forward hook."""
        before = self.dictionary.encode(x)
        edited = before
        start = self.model.first_column or 0
        for feature, op in self._ops.items():
            column = _edited(op, edited[..., feature], start)
            edited = edited.index_copy(-1, torch.tensor([feature], device=edited.device), column[..., None])
        edited = self.hook_features(edited)
        self.input, self.features = x.detach(), edited
        if edited is before:
            return None
        # Only what changed is written: few of a hundred thousand features, as a rule.
        changed = (edited != before).flatten(0, -2).any(0).nonzero()[:, 0].tolist()
        if edited.requires_grad and torch.is_grad_enabled():
            changed = list(range(self.dictionary.n_features))
        return _with_change(self.dictionary, x, (edited - before)[..., changed], changed)


def attached(
    model: HookedGptOss, dictionary: Dictionary, site: str | None = None, ops: Mapping[int, Op] | None = None
) -> Hooked[Attachment]:
    """Put a dictionary on a site for a while. Without edits, every output is bit for bit the model's own.

    ``with attached(model, dictionary, ops={7: ablate()}) as on: logits = model(tokens)``, then ``on.features``.

    Args:
        site: where; the dictionary's own if None.
        ops: feature → what is done to it, as in :func:`feature_edit_hook`.

    Raises:
        UnknownSite: for a site that the model does not have.
        ValueError: for no site at all, one of another width, or a feature that the dictionary does not have.
    """
    site = check_site(model, dictionary, site)
    on = Attachment(dictionary, site, ops or {}, model)
    return Hooked(on, model.hooks(fwd_hooks=[(site, on)]), model._lock)


def check_site(model: HookedGptOss, dictionary: Dictionary, site: str | None) -> str:
    """The site that a dictionary is to read, its own if None.

    Raises:
        UnknownSite: for one that the model does not have.
        ValueError: for none, or one of another width.
    """
    site = dictionary.site if site is None else site
    if site is None:
        raise ValueError("this dictionary does not say where it belongs; name a site, say 'blocks.3.hook_resid_post'")
    dims = model.sites[site].dims
    if dims != ("batch", "pos", "d_model") or model.config.d_model != dictionary.d_model:
        raise ValueError(
            f"a dictionary of width {dictionary.d_model} on {site}, which is {' '.join(dims)} with d_model "
            f"{model.config.d_model}: expected batch pos d_model of the same width"
        )
    return site


def _edited(op: Op, activation: Float[Tensor, "*lead pos"], first_column: int) -> Float[Tensor, "*lead pos"]:
    return op(activation, first_column) if isinstance(op, FeatureOp) else op(activation)


def _with_change(
    dictionary: Dictionary, x: Tensor, change: Float[Tensor, "*lead chosen"], features: list[int]
) -> Tensor:
    """The stream with a change of features written into it, and untouched bits where nothing changed."""
    written = dictionary.written(change, features, like=x)
    made = (x.to(torch.promote_types(x.dtype, written.dtype)) + written).to(x.dtype)
    if change.requires_grad and torch.is_grad_enabled():
        return made  # x + 0 is x, and the gradient passes
    return torch.where((change != 0).any(-1, keepdim=True), made, x)
