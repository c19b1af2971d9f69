"""Statistics of routing over a corpus: who is busy, who is a specialist, who works together (OLMoE, arXiv 2409.02060).

They count routes and nothing else. A busy expert may still write nothing that matters: only an intervention says that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Int
from tqdm.auto import tqdm

from workbench.activations import Run
from workbench.experiments.experts.routes import Routes, Source, check_shuffles, collect
from workbench.experiments.rows import check_whole, quantity
from workbench.experiments.texts import token_texts
from workbench.model import HookedGptOss

LAYER_EXPERT = ("layer", "expert")


def routing_statistics(
    source: Source,
    texts: Sequence[Any] | None = None,
    domains: Sequence[str] | None = None,
    *,
    shuffles: int = 20,
    seed: int = 0,
    progress: bool = True,
) -> xr.Dataset:
    """How a corpus is spread over the experts.

    Args:
        source: runs of one model, or a model with ``texts``.
        domains: one name a text (each row of each run is a text).
        shuffles: how often the labels are shuffled for the null of each mutual information.
        seed: of the shuffles.

    Returns:
        load (layer, expert), the share of tokens that go to the expert, and weight_share, its mean routing weight;
        load_cv (layer), the standard deviation of the loads over their mean; share_entropy (layer), −Σ p log p / log E
        with p the expert's share of all routes; token_entropy (layer), the same with p the softmax of a token's router
        logits over all experts, averaged over tokens; coactivation (layer, expert, other_expert) N_ij / N_i, the share
        of the expert's tokens that also go to the other, NaN where it has none and on its diagonal; speaker_load
        (speaker, layer, expert), the load over the tokens of each role and channel.
        token_information, token_information_null (layer), in bits: the mutual information of a token's id and one of
        its routes, and its mean when ids are shuffled over tokens; token_information_spread, the shuffles' standard
        deviation. What a corpus of this size gives by chance is the null: read the difference.
        With domains also domain_load (domain, layer, expert), N_i^D / N^D, and domain_information with its null and
        spread, domains shuffled over whole texts.

    Raises:
        ValueError: for texts, runs or domains that do not fit together.
        KeyError: if a run did not keep its routing.
    """
    check_shuffles(shuffles)
    routes = collect(source, texts, domains, "routing_statistics", progress)
    chosen, n = routes.chosen, len(routes.token_id)
    speakers = np.array(sorted(set(routes.speaker.tolist())), dtype=str)
    variables = _spread(routes, chosen) | {
        "coactivation": ((*LAYER_EXPERT, "other_expert"), _together(chosen), quantity("share of its tokens shared")),
        "speaker_load": (("speaker", *LAYER_EXPERT), _loads(chosen, routes.speaker, speakers), quantity("load")),
        "speaker_tokens": ("speaker", np.array([(routes.speaker == s).sum() for s in speakers]), quantity("tokens")),
    }
    ids = np.unique(routes.token_id, return_inverse=True)[1].reshape(-1)
    labels = {"token": (ids, np.arange(n))}
    coords: dict[str, Any] = {name: np.arange(chosen.shape[-1]) for name in ("expert", "other_expert")}
    coords |= {"layer": np.arange(len(chosen)), "speaker": speakers}
    if routes.domains is not None:
        names, of_text = np.unique(np.array(routes.domains, dtype=str), return_inverse=True)
        variables["domain_load"] = (("domain", *LAYER_EXPERT), _loads(chosen, routes.domain_of_token(), names),
                                    quantity("share of the domain's tokens that go to the expert"))  # fmt: skip
        coords["domain"] = names
        labels["domain"] = (of_text.reshape(-1), routes.text)
    for name, (values, index) in labels.items():
        variables |= _information(routes, name, values, index, shuffles, seed, progress)
    even = routes.config.experts_per_token / routes.config.n_experts
    return xr.Dataset(variables, coords, routes.attrs | {"even_load": even, "shuffles": shuffles, "seed": seed})


def _spread(routes: Routes, chosen: Bool[np.ndarray, "layer token expert"]) -> dict[str, tuple]:
    load, n_experts = chosen.mean(1), chosen.shape[-1]
    given = np.zeros(chosen.shape)
    np.put_along_axis(given, routes.experts, routes.weights, axis=-1)
    share = load / load.sum(-1, keepdims=True)
    entropy = -np.where(share > 0, share * np.log(np.where(share > 0, share, 1)), 0).sum(-1) / np.log(n_experts)
    of_tokens = routes.entropy.mean(-1) / np.log(n_experts)
    return {
        "load": (LAYER_EXPERT, load, quantity("share of tokens that go to the expert")),
        "weight_share": (LAYER_EXPERT, given.mean(1), quantity("mean routing weight")),
        "load_cv": ("layer", load.std(-1) / load.mean(-1), quantity("standard deviation of the loads over their mean")),
        "share_entropy": ("layer", entropy, quantity("−Σ p log p / log E, p the expert's share of routes")),
        "token_entropy": ("layer", of_tokens, quantity("−Σ p log p / log E, p the router's softmax, mean over tokens")),
    }


def _together(chosen: Bool[np.ndarray, "layer token expert"]) -> Float[np.ndarray, "layer expert other_expert"]:
    """N_ij / N_i; NaN for i = j, which says nothing."""
    made = np.empty((len(chosen), chosen.shape[-1], chosen.shape[-1]))
    for layer, here in enumerate(chosen):
        both = here.astype(np.float64).T @ here
        count = np.diag(both)[:, None]
        made[layer] = np.divide(both, count, out=np.full_like(both, np.nan), where=count > 0)
        np.fill_diagonal(made[layer], np.nan)
    return made


def _loads(
    chosen: Bool[np.ndarray, "layer token expert"], label: np.ndarray, names: np.ndarray
) -> Float[np.ndarray, "name layer expert"]:
    return np.stack([chosen[:, label == name].mean(1) for name in names])


def _information(
    routes: Routes, name: str, label: np.ndarray, index: np.ndarray, shuffles: int, seed: int, progress: bool
) -> dict[str, tuple]:
    """Mutual information of a label and the expert of a route, beside that of the labels shuffled.

    Args:
        label: whole numbers from 0; ``label[index]`` is that of each token. What is shuffled is ``label``.
    """
    generator = np.random.default_rng([seed, sum(map(ord, name))])
    n_experts = routes.config.n_experts
    found = np.array([mutual_information(layer, label[index], n_experts) for layer in routes.experts])
    null = np.full((shuffles, len(found)), np.nan)
    for i in tqdm(range(shuffles), desc=f"shuffled {name}s", disable=not progress):
        shuffled = generator.permutation(label)[index]
        null[i] = [mutual_information(layer, shuffled, n_experts) for layer in routes.experts]
    mean, spread = (null.mean(0), null.std(0)) if shuffles else (np.full(len(found), np.nan),) * 2
    said = f"mutual information of {name} and expert"
    return {
        f"{name}_information": ("layer", found, quantity(said, "bits")),
        f"{name}_information_null": ("layer", mean, quantity(f"{said}, {name}s shuffled, mean", "bits")),
        f"{name}_information_spread": ("layer", spread, quantity(f"{said}, {name}s shuffled, deviation", "bits")),
    }


def mutual_information(
    experts: Int[np.ndarray, "token slot"], label: Int[np.ndarray, " token"], n_experts: int
) -> float:
    """Σ p(x, i) log2 p(x, i) / (p(x) p(i)) in bits, over the routes: a token counts once for each of its experts."""
    n_labels = int(label.max()) + 1 if len(label) else 0
    pairs = label[:, None].astype(np.int64) * n_experts + experts
    seen, counts = np.unique(pairs, return_counts=True)
    both, of_expert = counts / counts.sum(), np.bincount(experts.reshape(-1), minlength=n_experts) / experts.size
    of_label = np.bincount(label, minlength=n_labels) / len(label)
    return float((both * np.log2(both / (of_label[seen // n_experts] * of_expert[seen % n_experts]))).sum())


def vocabulary_specialisation(
    source: Source,
    texts: Sequence[Any] | None = None,
    *,
    min_count: int = 5,
    max_tokens: int = 1000,
    progress: bool = True,
) -> xr.Dataset:
    """Of each token id, which share of its occurrences goes to each expert: N_{i,x} / N_x.

    Args:
        min_count: ids seen less often are left out: their shares are mostly chance.
        max_tokens: at most so many ids, the most frequent ones.

    Returns:
        share (layer, expert, vocab), which sums over experts to experts_per_token; count (vocab), N_x; specialisation
        (layer, expert), the mean share of the tokens that the expert serves, each counted as often as it is served:
        1 for an expert whose ids always come to it. Coordinates of vocab: its token id, token, its text.

    Raises:
        ValueError: if no id is seen ``min_count`` times, or for texts and runs that do not fit together.
    """
    check_whole(1, min_count=min_count, max_tokens=max_tokens)
    routes = collect(source, texts, None, "vocabulary_specialisation", progress)
    ids, inverse, counts = np.unique(routes.token_id, return_inverse=True, return_counts=True)
    kept = np.flatnonzero(counts >= min_count)
    if not len(kept):
        raise ValueError(f"no token is seen {min_count} times (the most frequent {counts.max()}); give more text")
    kept = kept[np.argsort(-counts[kept], kind="stable")][:max_tokens]
    n_experts = routes.config.n_experts
    pairs = inverse.reshape(-1)[:, None] * n_experts + routes.experts
    served = np.stack([np.bincount(p.reshape(-1), minlength=len(ids) * n_experts) for p in pairs])
    served = served.reshape(len(served), len(ids), n_experts)[:, kept].transpose(0, 2, 1)
    share = served / counts[kept]
    total = served.sum(-1)
    special = np.divide((share * served).sum(-1), total, out=np.full(total.shape, np.nan), where=total > 0)
    variables = {
        "share": ((*LAYER_EXPERT, "vocab"), share, quantity("share of the token's occurrences that go to the expert")),
        "count": ("vocab", counts[kept], quantity("occurrences")),
        "specialisation": (LAYER_EXPERT, special, quantity("mean share of the tokens that it serves")),
    }
    coords = {"layer": np.arange(len(share)), "expert": np.arange(n_experts), "vocab": ids[kept]}
    coords["token"] = ("vocab", token_texts(_model_of(source), ids[kept]))
    return xr.Dataset(variables, coords, routes.attrs | {"min_count": min_count})


def _model_of(source: Source) -> HookedGptOss:
    if isinstance(source, HookedGptOss):
        return source
    return source.model if isinstance(source, Run) else source[0].model
