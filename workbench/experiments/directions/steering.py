"""Steering: a direction added to the stream, and what it does beside directions that mean nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch import Tensor
from tqdm.auto import tqdm

from workbench.experiments.metrics import as_metric
from workbench.experiments.rows import check_whole, quantity
from workbench.experiments.texts import about, activations, rows_of
from workbench.model import HookedGptOss
from workbench.model.interrupts import without_gradients
from workbench.model.sites import RESID

At = Literal["last", "mean"]
QUANTILES = (0.05, 0.5, 0.95)


@dataclass(frozen=True, eq=False)
class SteeringVector:
    """A direction at a site.

    Attributes:
        site: where it was found, and is added unless told otherwise; [batch pos d_model].
        vector: the direction, in the stream's own units.
        shuffled: the same found with the labels of the examples shuffled: what such a vector is by chance.
        provenance: how it was made, plain text and numbers.
    """

    site: str
    vector: Float[np.ndarray, " d_model"]
    shuffled: Float[np.ndarray, "shuffle d_model"] = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def norm(self) -> float:
        return float(np.linalg.norm(self.vector))

    def save(self, path: str | Path) -> None:
        """Write it as a safetensors file."""
        arrays = {"vector": np.ascontiguousarray(self.vector), "shuffled": np.ascontiguousarray(self.shuffled)}
        save_file(arrays, str(path), {"site": self.site, "provenance": json.dumps(self.provenance)})

    @classmethod
    def load(cls, path: str | Path) -> SteeringVector:
        """Read what :meth:`save` wrote.

        Raises:
            ValueError: for a file that is none, or holds something else.
        """
        try:
            with safe_open(str(path), framework="numpy") as file:
                meta, names = file.metadata() or {}, set(file.keys())
                if not {"site", "provenance"} <= set(meta) or names != {"vector", "shuffled"}:
                    raise ValueError(f"{path} holds {sorted(names)}: expected a file that SteeringVector.save wrote")
                arrays = {name: file.get_tensor(name) for name in names}
        except SafetensorError as error:
            raise ValueError(f"{path} is no safetensors file: {error}") from None
        return cls(meta["site"], **arrays, provenance=json.loads(meta["provenance"]))


def difference_of_means(
    model: HookedGptOss,
    positive: Sequence[Any],
    negative: Sequence[Any],
    site: str,
    *,
    at: At = "last",
    shuffles: int = 16,
    seed: int = 0,
    progress: bool = True,
) -> SteeringVector:
    """The mean activation over texts of one kind, less that over texts of another.

    Args:
        positive, negative: texts, Chats or rows of ids; as many as there are of each.
        at: the text's last token, or the mean over its tokens.
        shuffles: how many vectors to make with the two kinds dealt out at random, as controls for :func:`steer`.

    Raises:
        ValueError: for a site that is no vector of the stream, or no texts.
        UnknownSite: for a site that does not exist.
    """
    _check(model, site, shuffles)
    found = [_read(model, texts, site, at, progress) for texts in (positive, negative)]
    every, n = np.concatenate(found), len(found[0])
    generator = np.random.default_rng(seed)
    dealt = [every[generator.permutation(len(every))] for _ in range(shuffles)]
    shuffled = _stacked([part[:n].mean(0) - part[n:].mean(0) for part in dealt], every.shape[1])
    made = {"method": "difference of means", "n_positive": n, "n_negative": len(every) - n, "at": at, "seed": seed}
    vector = found[0].mean(0) - found[1].mean(0)
    return SteeringVector(site, vector, shuffled, about(model, "steering_vector", **made))


def contrastive_activation_addition(
    model: HookedGptOss,
    pairs: Sequence[Any],
    site: str,
    *,
    at: At = "last",
    shuffles: int = 16,
    seed: int = 0,
    progress: bool = True,
) -> SteeringVector:
    """The mean over pairs of the difference between their two activations (CAA, arXiv 2312.06681).

    The two texts of a pair should differ in what is to be steered alone, as one question with either answer appended.

    Args:
        pairs: (positive, negative) texts, or objects with ``clean`` and ``corrupt``.
        shuffles: how many vectors to make with a random half of the pairs turned around, as controls for :func:`steer`.

    Raises:
        ValueError: for a site that is no vector of the stream, or no pairs.
        UnknownSite: for a site that does not exist.
    """
    _check(model, site, shuffles)
    sides = [(pair.clean, pair.corrupt) if hasattr(pair, "clean") else tuple(pair) for pair in pairs]
    wrong = [i for i, pair in enumerate(sides) if len(pair) != 2]
    if not sides or wrong:
        raise ValueError(f"{len(sides)} pairs, not two texts in {wrong}: expected (positive, negative) texts")
    positive, negative = (_read(model, texts, site, at, progress) for texts in zip(*sides, strict=True))
    difference = positive - negative
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], (shuffles, len(difference)))
    shuffled = _stacked([(sign[:, None] * difference).mean(0) for sign in signs], difference.shape[1])
    made = {"method": "contrastive activation addition", "n_pairs": len(sides), "at": at, "seed": seed}
    return SteeringVector(site, difference.mean(0), shuffled, about(model, "steering_vector", **made))


def _stacked(vectors: list[np.ndarray], d_model: int) -> Float[np.ndarray, "shuffle d_model"]:
    return np.stack(vectors).astype(np.float32) if vectors else np.zeros((0, d_model), np.float32)


def _check(model: HookedGptOss, site: str, shuffles: int) -> None:
    check_whole(0, shuffles=shuffles)
    _check_site(model, site)


def _check_site(model: HookedGptOss, site: str) -> None:
    if model.sites[site].dims != RESID:
        raise ValueError(f"site={site!r} has dims {model.sites[site].dims}: expected one of {RESID}")


def _read(
    model: HookedGptOss, texts: Sequence[Any], site: str, at: At, progress: bool
) -> Float[np.ndarray, "text d_model"]:
    if at not in get_args(At):
        raise ValueError(f"at={at!r}: expected one of {get_args(At)}")
    found = activations(model, rows_of(model, texts if isinstance(texts, str) else list(texts)), [site], progress)
    values = [v[site].float() for v in found]
    return np.stack([(v[-1] if at == "last" else v.mean(0)).cpu().numpy() for v in values])


@without_gradients
def steer(
    model: HookedGptOss,
    texts: Any,
    vector: SteeringVector,
    metric: Any,
    *,
    site: str | None = None,
    scales: Sequence[float] = (-2.0, -1.0, -0.5, 0.5, 1.0, 2.0),
    positions: Literal["all", "last"] = "all",
    controls: int = 16,
    seed: int = 0,
    progress: bool = True,
) -> xr.Dataset:
    """Add a vector to the stream at several scales, and unrelated vectors of the same norm beside it.

    Args:
        texts: what a run takes: text, a Chat, several of them, or ids [batch pos].
        metric: of the logits after each text's last token; see ``experiments.metrics.as_metric``.
        site: where it is added; None for the vector's own.
        scales: times the vector.
        positions: all real tokens, or each text's last.
        controls: how many random directions; and at most so many of the vector's own, of shuffled labels. Those are
            made as long as the vector. Mind what that does: labels dealt anew are never dealt quite evenly, so a part
            of the real direction stays in them, and a short vector that is made long is mostly that part. They are a
            strict control: a vector that lies within their band may still be real, one beyond it is.

    Returns:
        metric (scale, text); plain (text), without steering; effect (scale), the mean of metric − plain.
        control_effect (control, scale), the same of the control vectors, with the coordinate control_kind: "random"
        (normal numbers) or "shuffled labels"; control_quantile (quantile, scale), the 5, 50 and 95 % of all of
        them; percentile (scale), the share of controls whose |effect| is smaller than the vector's.

    Raises:
        ValueError: for a vector of another size, a site that is no vector of the stream, no scale, or a metric that
            does not fit.
    """
    site = vector.site if site is None else site
    _check_site(model, site)
    scales = [float(scale) for scale in scales]
    if vector.vector.shape != (model.config.d_model,):
        raise ValueError(f"the vector has shape {vector.vector.shape}: this model's d_model is {model.config.d_model}")
    check_whole(0, controls=controls)
    if not scales or not np.isfinite(scales).all() or positions not in ("all", "last"):
        raise ValueError(
            f"scales={scales}, positions={positions!r}: expected at least one scale, all of them numbers, and 'all' or "
            "'last'"
        )
    measure, said = as_metric(model, metric)
    tokens, mask = model.as_batch(texts)
    others, kinds = _controls(vector, controls, seed)
    where = _where(tokens, mask, positions)
    measured = _Steered(model, tokens, mask, site, where, measure)
    plain = measured(None)
    table = np.empty((1 + len(others), len(scales), len(tokens)))
    jobs = [(v, s) for v in range(len(table)) for s in range(len(scales))]
    for v, s in tqdm(jobs, desc="steering", unit="run", disable=not progress):
        direction = vector.vector if v == 0 else others[v - 1]
        table[v, s] = measured(torch.as_tensor(scales[s] * direction))
    effect = (table - plain).mean(-1)
    attrs = about(model, "steering", site=site, metric=said, positions=positions, seed=seed, norm=vector.norm)
    return _dataset(table[0], plain, effect, kinds, scales, said, attrs | _prefixed(vector.provenance))


@dataclass(frozen=True)
class _Steered:
    """The metric of each text with a vector added."""

    model: HookedGptOss
    tokens: Int[Tensor, "batch pos"]
    mask: Bool[Tensor, "batch pos"] | None
    site: str
    where: Bool[Tensor, "batch pos"]
    measure: Callable[[Tensor], Tensor]

    def __call__(self, vector: Float[Tensor, " d_model"] | None) -> Float[np.ndarray, " text"]:
        def add(x: Tensor, hook: object) -> Tensor:
            assert vector is not None
            return x + self.where[..., None].to(x) * vector.to(x)

        hooks: list[tuple[str | Callable, Callable]] = [] if vector is None else [(self.site, add)]
        with self.model.hooks(fwd_hooks=hooks):
            logits = self.model(self.tokens, attention_mask=self.mask, logits_at="last")[:, 0]
        return self.measure(logits).double().cpu().numpy()


def _where(
    tokens: Int[Tensor, "batch pos"], mask: Bool[Tensor, "batch pos"] | None, positions: str
) -> Bool[Tensor, "batch pos"]:
    real = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
    if positions == "all":
        return real
    columns = torch.arange(tokens.shape[1], device=tokens.device)
    last = torch.where(real, columns, -1).max(1, keepdim=True).values
    return columns == last


def _controls(vector: SteeringVector, n: int, seed: int) -> tuple[Float[np.ndarray, "control d_model"], list[str]]:
    """Random directions and the vector's own shuffled ones, all of its norm."""
    random = np.random.default_rng(seed).standard_normal((n, len(vector.vector)))
    own = vector.shuffled[:n] if n else vector.shuffled[:0]
    own = own[np.linalg.norm(own, axis=-1) > 0] if own.size else np.zeros((0, len(vector.vector)))
    both = np.concatenate([random, own])
    scaled = both / np.linalg.norm(both, axis=-1, keepdims=True) * vector.norm
    return scaled.astype(np.float32), ["random"] * len(random) + ["shuffled labels"] * len(own)


def _prefixed(provenance: dict[str, Any]) -> dict[str, Any]:
    return {f"vector_{name}": value for name, value in provenance.items()}


def _dataset(
    table: np.ndarray,
    plain: np.ndarray,
    effect: np.ndarray,
    kinds: list[str],
    scales: list[float],
    said: str,
    attrs: dict[str, Any],
) -> xr.Dataset:
    n = len(kinds)
    bounds = np.quantile(effect[1:], QUANTILES, axis=0) if n else np.full((len(QUANTILES), len(scales)), np.nan)
    smaller = (np.abs(effect[1:]) < np.abs(effect[:1])).mean(0) if n else np.full(len(scales), np.nan)
    variables = {
        "metric": (("scale", "text"), table, quantity(said)),
        "plain": ("text", plain, quantity(f"{said}, not steered")),
        "effect": ("scale", effect[0], quantity(f"mean change of {said}")),
        "control_effect": (("control", "scale"), effect[1:], quantity(f"mean change of {said}, control vectors")),
        "control_quantile": (("quantile", "scale"), bounds, quantity("quantiles of the controls' effects")),
        "percentile": ("scale", smaller, quantity("share of controls with a smaller |effect|")),
    }
    coords = {"scale": scales, "text": np.arange(len(plain)), "quantile": list(QUANTILES)}
    coords |= {"control": np.arange(n), "control_kind": ("control", np.array(kinds, dtype=str))}
    return xr.Dataset(variables, coords, attrs)
