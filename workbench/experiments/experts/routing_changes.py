"""Routing compared: between two checkpoints, between two kinds of text, and from one layer to the next."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import xarray as xr

from workbench.experiments.experts.routes import Source, check_shuffles, collect
from workbench.experiments.experts.routing_statistics import LAYER_EXPERT
from workbench.experiments.rows import check_whole, quantity


def routing_saturation(
    before: Source, after: Source, texts: Sequence[Any] | None = None, *, progress: bool = True
) -> xr.Dataset:
    """How much of the routing of a later checkpoint an earlier one has already: |S_t ∩ S_T| / k (arXiv 2409.02060).

    Args:
        before, after: two models with ``texts``, or runs of each on the same tokens.

    Returns:
        saturation (layer), the mean over tokens; first_slot (layer), the share of tokens whose strongest expert is the
        same; chance (layer), the saturation of after's routes shuffled over tokens exactly: Σ load_t · load_T / k.

    Raises:
        ValueError: for other tokens, or models of another number of layers or experts.
    """
    one, other = (collect(source, texts, None, "routing_saturation", progress) for source in (before, after))
    if not np.array_equal(one.token_id, other.token_id) or not np.array_equal(one.text, other.text):
        raise ValueError(f"before has {len(one.token_id)} tokens, after {len(other.token_id)}: expected the same texts")
    if one.chosen.shape != other.chosen.shape or one.experts.shape != other.experts.shape:
        raise ValueError(f"routes {one.chosen.shape} and {other.chosen.shape} [layer token expert]: expected one shape")
    k = one.config.experts_per_token
    shared = (one.chosen & other.chosen).sum(-1) / k
    chance = (one.chosen.mean(1) * other.chosen.mean(1)).sum(-1) / k
    first = (one.experts[..., 0] == other.experts[..., 0]).mean(1)
    variables = {
        "saturation": ("layer", shared.mean(1), quantity("share of the later experts chosen already")),
        "first_slot": ("layer", first, quantity("share of tokens whose strongest expert is the same")),
        "chance": ("layer", chance, quantity("saturation if tokens were shuffled")),
    }
    attrs = one.attrs | {"after": other.attrs["model"], "after_fingerprint": other.attrs["fingerprint"]}
    return xr.Dataset(variables, {"layer": np.arange(len(shared))}, attrs)


def routing_contrast(
    first: Source,
    second: Source,
    texts: tuple[Sequence[Any], Sequence[Any]] | None = None,
    *,
    shuffles: int = 100,
    seed: int = 0,
    progress: bool = True,
) -> xr.Dataset:
    """Which experts one kind of text uses more than another: p₁ − p₂ of their loads (SteerMoE, arXiv 2509.09660).

    Args:
        first, second: runs of each kind; or the same model twice, with ``texts`` of each kind.
        shuffles: how often whole texts are dealt out anew between the two kinds, for the noise floor.

    Returns:
        first, second, contrast (layer, expert): the two loads and their difference; noise (layer, expert), the 95 %
        quantile of |contrast| over the shuffles; largest_noise, that of the largest |contrast| of all experts, which a
        contrast must pass if it was picked from among them.

    Raises:
        ValueError: for runs or texts that do not fit together.
    """
    check_shuffles(shuffles)
    pairs = (None, None) if texts is None else texts
    sides = [collect(s, t, None, "routing_contrast", progress) for s, t in zip((first, second), pairs, strict=True)]
    if sides[0].chosen.shape[::2] != sides[1].chosen.shape[::2]:
        raise ValueError("the two sides were run on models of different layers or experts")
    # For each text, how often each expert was chosen, and its length.
    counts = [np.stack([s.chosen[:, s.text == t].sum(1) for t in range(s.attrs["n_texts"])]) for s in sides]
    lengths = [np.bincount(s.text, minlength=s.attrs["n_texts"]) for s in sides]
    loads = [c.sum(0) / n.sum() for c, n in zip(counts, lengths, strict=True)]
    every, length, n_first = np.concatenate(counts), np.concatenate(lengths), len(counts[0])
    generator, null = np.random.default_rng(seed), []
    for _ in range(shuffles):
        order = generator.permutation(len(every))
        here, there = order[:n_first], order[n_first:]
        null.append(np.abs(every[here].sum(0) / length[here].sum() - every[there].sum(0) / length[there].sum()))
    noise, largest = np.full(loads[0].shape, np.nan), np.nan
    if null:
        noise, largest = np.quantile(null, 0.95, axis=0), np.quantile(np.max(null, axis=(1, 2)), 0.95)
    variables = {
        "first": (LAYER_EXPERT, loads[0], quantity("share of tokens that go to the expert, first texts")),
        "second": (LAYER_EXPERT, loads[1], quantity("share of tokens that go to the expert, second texts")),
        "contrast": (LAYER_EXPERT, loads[0] - loads[1], quantity("load in the first texts − load in the second")),
        "noise": (LAYER_EXPERT, noise, quantity("95 % of |contrast| between texts dealt out at random")),
        "largest_noise": ((), largest, quantity("95 % of the largest |contrast| between texts dealt out at random")),
    }
    attrs = sides[0].attrs | {"shuffles": shuffles, "seed": seed, "n_texts": len(every), "n_tokens": int(length.sum())}
    coords = {"layer": np.arange(every.shape[1]), "expert": np.arange(every.shape[2])}
    return xr.Dataset(variables, coords, attrs)


def expert_paths(
    source: Source, texts: Sequence[Any] | None = None, *, n_paths: int = 20, progress: bool = True
) -> xr.Dataset:
    """From which expert to which: routes from each layer to the next, and the most frequent ways through all of them.

    Returns:
        transitions (layer, expert, next_expert), how many tokens go to the expert in the layer and to the next expert
        in the layer after it; expected, the number if the layers chose independently, N_i · N_j / N. path_expert
        (path, path_layer), the strongest expert in each layer of the ``n_paths`` most frequent whole paths; path_count
        (path); n_different, how many different paths there are.

    Raises:
        ValueError: for a model of a single layer, fewer than one path, or texts and runs that do not fit together.
    """
    check_whole(1, n_paths=n_paths)
    routes = collect(source, texts, None, "expert_paths", progress)
    chosen, n = routes.chosen, len(routes.token_id)
    if len(chosen) < 2:
        raise ValueError("a path needs at least two layers")
    count = np.stack([a.astype(np.int64).T @ b for a, b in pairwise(chosen)])
    total = chosen.sum(1)
    expected = total[:-1, :, None] * total[1:, None, :] / n
    paths = Counter(map(tuple, routes.experts[..., 0].T.tolist()))
    most = sorted(paths.items(), key=lambda item: (-item[1], item[0]))[:n_paths]
    dims = ("layer", "expert", "next_expert")
    variables = {
        "transitions": (dims, count, quantity("tokens", "tokens")),
        "expected": (dims, expected, quantity("tokens if layers chose independently", "tokens")),
        "path_expert": (("path", "path_layer"), np.array([p for p, _ in most]), quantity("strongest expert")),
        "path_count": ("path", np.array([c for _, c in most]), quantity("tokens that go this way", "tokens")),
        "n_different": ((), len(paths), quantity("different paths")),
    }
    experts = np.arange(chosen.shape[-1])
    coords = {"layer": np.arange(len(chosen) - 1), "expert": experts, "next_expert": experts}
    coords |= {"path": np.arange(len(most)), "path_layer": np.arange(len(chosen))}
    return xr.Dataset(variables, coords, routes.attrs)
