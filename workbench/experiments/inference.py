"""Effects over many prompts: confidence intervals, p-values, and their correction over a whole grid of cells.

Prompts are the sample: they are resampled whole, so that the cells of one prompt stay together. Every p-value is that
of a sign-flip permutation: under the null, a prompt's effect is as likely to be +d as −d, so the signs of whole prompts
are flipped at random. That needs effects that are symmetric about 0 under the null, and no other form of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import numpy as np
import xarray as xr
from tqdm.auto import tqdm

from workbench.experiments.resampling import (
    Statistic,
    bca_shares,
    estimated,
    quantiles,
    reduction,
    resampled,
    sign_flip_p,
    step_down,
)
from workbench.experiments.rows import check_whole, is_whole, quantity

PROMPT = "prompt"
Method = Literal["bca", "percentile"]
Correction = Literal["max_t", "holm", "benjamini_hochberg"]


def bootstrap(
    values: xr.DataArray | np.ndarray,
    statistic: Statistic = "mean",
    *,
    n: int = 9999,
    level: float = 0.95,
    seed: int = 0,
    method: Method = "bca",
    null: float = 0.0,
    dim: str = PROMPT,
) -> xr.Dataset:
    """A statistic over prompts, its confidence interval and its p-value, in every cell of a grid at once.

    Args:
        values: an effect for each prompt; of a plain array the first axis is the prompts.
        statistic: "mean", "median", or a function of (array, axis=) as numpy's.
        n: resamples of the interval, and permutations of the p-value (all 2^prompts of them, where that is no more).
        level: of the interval.
        method: "bca", bias-corrected and accelerated (Efron 1987), or "percentile".
        null: the effect that the p-value is of. Two-sided; see the module's words for what it supposes.
        dim: the axis of the prompts.

    Returns:
        estimate, low, high and p over the other axes; NaN in a cell where some prompt's effect is not a number. The
        smallest p is 1 / (n + 1), and with few prompts 2 / 2^prompts: below six it cannot fall under 0.05.

    Raises:
        ValueError: for fewer than two prompts, infinite effects, or an option that is not there.

    >>> interval = experiments.bootstrap(np.array([0.9, 1.1, 1.0, 1.2, 0.8, 1.0]), n=999)
    >>> bool(interval.low < 1.0 < interval.high)
    True
    """
    array, table = _table(values, dim)
    _check(level, method, n, seed, null)
    of = reduction(statistic)
    estimate = estimated(of, table)
    samples = resampled(of, table, n, np.random.default_rng(seed))
    tail = np.full(table.shape[1], (1 - level) / 2)
    low, high = (tail, 1 - tail) if method == "percentile" else bca_shares(of, table, samples, estimate, tail[0])
    samples.sort(axis=0)
    found = {
        "estimate": estimate,
        "low": quantiles(samples, low),
        "high": quantiles(samples, high),
        "p": sign_flip_p(of, table - null, n, seed),
    }
    name = statistic if isinstance(statistic, str) else getattr(statistic, "__name__", "statistic")
    meanings = {
        "estimate": f"{name} over prompts",
        "low": f"lower end of the {level:.0%} interval",
        "high": f"upper end of the {level:.0%} interval",
        "p": f"two-sided p of {name} = {null:g}, signs of prompts flipped",
    }
    missing = np.isnan(table).any(axis=0)
    made = {
        name: _back(np.where(missing, np.nan, flat), array, dim, quantity(meanings[name]))
        for name, flat in found.items()
    }
    about = {"statistic": name, "level": level, "method": method, "resamples": n, "seed": seed, "null": null}
    return xr.Dataset(made, attrs={**array.attrs, **about, "prompts": len(table), "p_of": "sign-flip permutation"})


def max_t(
    values: xr.DataArray | np.ndarray, *, n: int = 9999, seed: int = 0, null: float = 0.0, dim: str = PROMPT
) -> xr.DataArray:
    """p-values that hold for all cells together: the chance that any cell of a null grid would look so strong.

    Westfall and Young's step-down maximum: each flip of the prompts' signs is the same for every cell, so whatever
    correlation the cells have is kept (Holm supposes the worst). Cells are compared by their |t|. Controls the
    family-wise error.

    Args, errors: as :func:`bootstrap`'s.
    """
    array, table = _table(values, dim)
    _check(0.95, "bca", n, seed, null)
    present = ~np.isnan(table).any(axis=0)
    adjusted = np.full(table.shape[1], np.nan)
    adjusted[present] = step_down(table[:, present] - null, n, seed)
    return _back(adjusted, array, dim, quantity("p, family-wise over the grid, by the maximum of |t|")).rename("p")


def adjusted(p: xr.DataArray | np.ndarray, method: Literal["holm", "benjamini_hochberg"] = "holm") -> xr.DataArray:
    """p-values corrected for how many of them there are, over every axis; NaN stays NaN and counts for none.

    ``holm`` controls the chance of any false positive, whatever the dependence; ``benjamini_hochberg`` the share of
    false ones among the positives, under independence or positive dependence.

    Raises:
        ValueError: for another method, or a p outside 0 to 1.

    >>> experiments.adjusted(np.array([0.01, 0.02, 0.5])).values.round(3).tolist()
    [0.03, 0.04, 0.5]
    """
    array = p if isinstance(p, xr.DataArray) else xr.DataArray(p)
    if array.dtype.kind not in "biuf":
        raise ValueError(f"p is of {array.dtype}: expected numbers from 0 to 1")
    flat = np.asarray(array, dtype=float).reshape(-1)
    present = ~np.isnan(flat)
    if ((flat[present] < 0) | (flat[present] > 1)).any():
        raise ValueError(f"p from {np.nanmin(flat):g} to {np.nanmax(flat):g}: expected 0 to 1")
    order = np.argsort(flat[present], kind="stable")
    count, ranked = len(order), flat[present][order]
    if method == "holm":
        steps = np.maximum.accumulate(ranked * (count - np.arange(count)))
    elif method == "benjamini_hochberg":
        steps = np.minimum.accumulate((ranked * count / np.arange(1, count + 1))[::-1])[::-1]
    else:
        raise ValueError(f"method={method!r}: expected 'holm' or 'benjamini_hochberg'")
    made, found = np.full(flat.shape, np.nan), np.empty(count)
    found[order] = np.minimum(steps, 1)
    made[present] = found
    return array.copy(data=made.reshape(array.shape)).assign_attrs(quantity(f"p, corrected over the grid ({method})"))


def over_prompts(
    source: Callable[[Any], Any] | Sequence[Any] | xr.Dataset | xr.DataArray,
    prompts: Sequence[Any] | None = None,
    *,
    variable: str | None = None,
    correction: Correction | None = "max_t",
    statistic: Statistic = "mean",
    n: int = 9999,
    level: float = 0.95,
    seed: int = 0,
    method: Method = "bca",
    progress: bool = True,
) -> xr.Dataset:
    """An experiment's effect over many prompts, with what can be said of it.

    Args:
        source: a function of a prompt that gives its Dataset (or DataArray, or number); or those already made, one a
            prompt; or one Dataset that has them along ``prompt``.
        prompts: for the function.
        variable: of the datasets; None if they have just one.
        correction: over all cells: "max_t" and "holm" bound the chance of any false positive, "benjamini_hochberg" the
            share of false ones; None leaves p_adjusted out.
        statistic, n, level, seed, method: as of :func:`bootstrap`.

    Returns:
        estimate, low, high, p, p_adjusted over the experiment's axes.

    Raises:
        ValueError: for fewer than two prompts, datasets of different axes, or a variable that is not there.
    """
    if correction is not None and correction not in get_args(Correction):
        raise ValueError(f"correction={correction!r}: expected one of {get_args(Correction)}, or None")
    values = stack_prompts(source, prompts, variable=variable, progress=progress)
    made = bootstrap(values, statistic, n=n, level=level, seed=seed, method=method)
    if correction == "max_t":
        made["p_adjusted"] = max_t(values, n=n, seed=seed)
    elif correction is not None:
        made["p_adjusted"] = adjusted(made["p"], correction)
    return made.assign_attrs(correction=correction or "", variable=str(values.name or ""))


def stack_prompts(
    source: Callable[[Any], Any] | Sequence[Any] | xr.Dataset | xr.DataArray,
    prompts: Sequence[Any] | None = None,
    *,
    variable: str | None = None,
    progress: bool = True,
) -> xr.DataArray:
    """One variable of an experiment for each prompt, along ``prompt``. Arguments and errors as :func:`over_prompts`'.

    Coordinates and attributes that differ from prompt to prompt (its tokens, the time) are left out.
    """
    if isinstance(source, xr.Dataset | xr.DataArray):
        made = _variable(source, variable)
        if PROMPT not in made.dims:
            raise ValueError(
                f"the dataset has axes {made.dims}: expected {PROMPT!r} among them, or one for each prompt"
            )
        return made
    if callable(source):
        if prompts is None:
            raise ValueError("give the prompts that the function is to be called with")
        bar = tqdm(prompts, desc=getattr(source, "__name__", "prompts"), unit="prompt", disable=not progress)
        source = [source(prompt) for prompt in bar]
    parts = [_variable(part, variable) for part in source]
    if len(parts) < 2:
        raise ValueError(f"{len(parts)} prompts: expected at least two, to say how far one differs from another")
    first = parts[0]
    for i, part in enumerate(parts):
        if part.dims != first.dims or part.shape != first.shape or not _same_labels(part, first):
            sizes = f"{dict(first.sizes)} of prompt 0 and {dict(part.sizes)} of prompt {i}"
            raise ValueError(f"axes {sizes}: expected the same, with the same labels")
    same = {name: coord for name, coord in first.coords.items() if all(_has(part, name, coord) for part in parts)}
    attrs = {key: value for key, value in first.attrs.items() if all(part.attrs.get(key) == value for part in parts)}
    data = np.stack([np.asarray(part, dtype=float) for part in parts])
    coords = same | {PROMPT: np.arange(len(parts))}
    return xr.DataArray(data, dims=(PROMPT, *first.dims), coords=coords, attrs=attrs, name=first.name)


def _same_labels(one: xr.DataArray, other: xr.DataArray) -> bool:
    return set(one.indexes) == set(other.indexes) and all(one.indexes[d].equals(other.indexes[d]) for d in one.indexes)


def _has(part: xr.DataArray, name: Any, coord: xr.DataArray) -> bool:
    return name in part.coords and coord.equals(part.coords[name])


def _variable(part: Any, variable: str | None) -> xr.DataArray:
    if not isinstance(part, xr.Dataset):
        return part if isinstance(part, xr.DataArray) else xr.DataArray(part)
    names = [str(name) for name in part.data_vars]
    chosen = names[0] if variable is None and len(names) == 1 else variable
    if chosen not in names:
        raise ValueError(f"variable={variable!r}: expected one of {names}")
    return part[chosen].assign_attrs({**part.attrs, **part[chosen].attrs})


def _table(values: xr.DataArray | np.ndarray, dim: str) -> tuple[xr.DataArray, np.ndarray]:
    if not isinstance(values, xr.DataArray):
        values = np.atleast_1d(np.asarray(values))
        values = xr.DataArray(values, dims=(dim, *(f"axis_{i}" for i in range(1, values.ndim))))
    if dim not in values.dims:
        raise ValueError(f"values have axes {values.dims}: expected {dim!r} among them")
    array = values.transpose(dim, ...)
    if array.sizes[dim] < 2:
        raise ValueError(f"{array.sizes[dim]} prompts: expected at least two, to say how far one differs from another")
    if array.dtype.kind not in "biuf":
        raise ValueError(f"values are {array.dtype}: expected numbers, an effect for each prompt")
    if (n_infinite := int(np.isinf(np.asarray(array, dtype=float)).sum())) > 0:
        raise ValueError(
            f"values hold inf {n_infinite} times, and no mean or interval can be had of it: leave those prompts out, "
            "or make them NaN (their cells are then NaN)"
        )
    return array, np.asarray(array, dtype=float).reshape(array.sizes[dim], -1)


def _back(flat: np.ndarray, array: xr.DataArray, dim: str, attrs: dict[str, str]) -> xr.DataArray:
    like = array.isel({dim: 0}, drop=True)
    return xr.DataArray(flat.reshape(like.shape), dims=like.dims, coords=like.coords, attrs=attrs)


def _check(level: float, method: str, n: int, seed: int, null: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"level={level}: expected between 0 and 1, such as 0.95")
    if method not in get_args(Method):
        raise ValueError(f"method={method!r}: expected one of {get_args(Method)}")
    if not is_whole(n) or n < 1:
        raise ValueError(f"n={n!r}: expected a whole number, at least 1, and some thousands for a p-value to rely on")
    check_whole(0, seed=seed)
    if not np.isfinite(null):
        raise ValueError(f"null={null!r}: expected the effect that p-values are of, a number")
