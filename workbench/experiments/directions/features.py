"""What a dictionary's features do: where they are active, on which tokens most, and which tokens they promote."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from workbench.activations import Run
from workbench.dictionaries import Dictionary
from workbench.dictionaries.attach import check_site
from workbench.experiments.rows import check_whole, is_whole, numpy, provenance, quantity, real_columns, row_coords
from workbench.experiments.texts import token_texts
from workbench.model import HookedGptOss
from workbench.model.fingerprint import fingerprint
from workbench.model.interrupts import without_gradients

_CHUNK = 512  # rows of features × vocabulary, or of positions × features, at once


@without_gradients
def feature_activations(
    run: Run,
    dictionary: Dictionary,
    row: int = 0,
    site: str | None = None,
    features: Sequence[int] | Literal["active", "all"] = "active",
) -> xr.Dataset:
    """How strongly each feature is there at each token of a row.

    Args:
        run: one that kept the site.
        site: which to read; the dictionary's own if None.
        features: which to give; "active" those that are there at some token, of which there are few.

    Returns:
        activation (pos, feature); n_active (pos), of all features; error_share (pos), the length of what the
        reconstruction leaves out over the length of the activation. Token coordinates on pos.

    Raises:
        ValueError: for a row or feature that is not there, or a dictionary that does not fit the site.
        UnknownSite: for a site that the model does not have; KeyError if the run did not keep it.
    """
    site = check_site(run.model, dictionary, site)
    x = run[site][row, real_columns(run, row)]
    found = dictionary.encode(x)
    ids = _chosen(dictionary, found, features)
    left = dictionary.error(x).norm(dim=-1) / x.to(found.dtype).norm(dim=-1)
    variables = {
        "activation": (("pos", "feature"), numpy(found[:, ids]), quantity("activation of the feature")),
        "n_active": ("pos", numpy((found > 0).sum(-1)), quantity("features that are there", "features")),
        "error_share": ("pos", numpy(left), quantity("length of the error / length of the activation")),
    }
    coords = row_coords(run, row) | {"feature": np.array(ids, dtype=np.int64)}
    return xr.Dataset(variables, coords, provenance(run, "feature_activations", row, site=site, **_said(dictionary)))


def _chosen(
    dictionary: Dictionary, found: Float[Tensor, "pos feature"], features: Sequence[int] | Literal["active", "all"]
) -> list[int]:
    if features == "all":
        return list(range(dictionary.n_features))
    if features == "active":
        return (found > 0).any(0).nonzero()[:, 0].tolist()
    if isinstance(features, str):
        raise ValueError(f"features={features!r}: expected 'active', 'all' or a list of features")
    return dictionary.check_features(features)


@without_gradients
def top_tokens(
    runs: Sequence[Run],
    dictionary: Dictionary,
    features: Sequence[int],
    top_k: int = 10,
    site: str | None = None,
    context: int = 5,
) -> xr.Dataset:
    """The tokens on which each feature is strongest, over every row of some runs.

    Args:
        runs: of one model, which kept the site.
        site: which to read; the dictionary's own if None.
        context: how many tokens before and after to show as text.

    Returns:
        activation (feature, rank), the strongest first (rank counts from 1), 0 and no token where a feature is there
        on fewer; token, token_id, context; run, row and pos (feature, rank) say where it stands, −1 for nowhere.
        frequency (feature), the share of tokens on which it is there; strongest (feature).

    Raises:
        ValueError: for no run, a top_k below 1, a feature that is not there, or a dictionary that does not fit.
    """
    ids = dictionary.check_features(features)
    check_whole(0, context=context)
    if not runs or not is_whole(top_k) or top_k < 1 or not ids:
        raise ValueError(f"{len(runs)} runs, {len(ids)} features, top_k={top_k}: expected at least one of each")
    values, places = _everywhere(runs, dictionary, ids, site)
    order = np.argsort(-values, axis=1, kind="stable")[:, :top_k]
    best = np.zeros((len(ids), top_k))
    best[:, : order.shape[1]] = np.take_along_axis(values, order, axis=1)
    at = np.full((len(ids), top_k, 3), -1)
    at[:, : order.shape[1]] = places[order]
    at[best <= 0] = -1
    best = np.maximum(best, 0)
    dims, texts = ("feature", "rank"), _texts_at(runs, at, context)
    variables: dict[str, Any] = {"activation": (dims, best, quantity("activation of the feature"))}
    variables |= {name: (dims, at[..., i]) for i, name in enumerate(("run", "row", "pos"))}
    variables |= {name: (dims, found) for name, found in texts.items()}
    variables["frequency"] = ("feature", (values > 0).mean(1), quantity("share of tokens on which it is there"))
    variables["strongest"] = ("feature", values.max(1), quantity("activation of the feature"))
    coords = {"feature": np.array(ids, dtype=np.int64), "rank": np.arange(1, top_k + 1)}
    attrs = provenance(runs[0], "top_tokens") | _said(dictionary)
    attrs |= {"site": check_site(runs[0].model, dictionary, site), "runs": len(runs), "tokens": values.shape[1]}
    return xr.Dataset(variables, coords, attrs)


def _everywhere(
    runs: Sequence[Run], dictionary: Dictionary, ids: list[int], site: str | None
) -> tuple[np.ndarray, np.ndarray]:
    """Activations (feature, token) at every real token of every run, and (token, 3) its run, row and position."""
    values, places = [], []
    for i, run in enumerate(runs):
        where = check_site(run.model, dictionary, site)
        for row in range(len(run.tokens)):
            columns = real_columns(run, row)
            for part in columns.split(_CHUNK):
                values.append(numpy(dictionary.encode(run[where][row, part], ids)).T)
                places.append(np.stack([np.full(len(part), i), np.full(len(part), row), part.cpu().numpy()], 1))
    return np.concatenate(values, axis=1), np.concatenate(places)


def _texts_at(runs: Sequence[Run], at: np.ndarray, context: int) -> dict[str, np.ndarray]:
    """Token, its id and its surroundings at each (run, row, pos); nothing at −1."""
    strings = {
        (i, row): runs[i].str_tokens(row)
        for i, row in {(int(i), int(row)) for i, row, _ in at.reshape(-1, 3)}
        if i >= 0
    }
    token, near, ids = [], [], []
    for i, row, pos in at.reshape(-1, 3).tolist():
        texts = strings.get((i, row), [])
        token.append(texts[pos] if texts else "")
        near.append("".join(texts[max(0, pos - context) : pos + context + 1]))
        ids.append(int(runs[i].tokens[row, pos]) if texts else -1)
    shape = at.shape[:2]
    return {
        "token": np.array(token, dtype=str).reshape(shape),
        "token_id": np.array(ids).reshape(shape),
        "context": np.array(near, dtype=str).reshape(shape),
    }


@without_gradients
def feature_logit_effect(
    model: HookedGptOss, dictionary: Dictionary, features: Sequence[int], top_k: int = 10
) -> xr.Dataset:
    """Which tokens each feature pushes up and down if its direction goes straight to the unembedding.

    The effect of one unit of activation on the logits, before the final norm divides by the stream's root mean square:
    W_dec[feature] · (γ ⊙ W_U[:, token]).

    Returns:
        promoted_effect, promoted_id, promoted_token and demoted_… (feature, rank), the strongest first (rank counts
        from 1); mean and std (feature) of the effect over the vocabulary.

    Raises:
        ValueError: for a feature that is not there, a top_k that does not fit, or a dictionary of another width.
    """
    ids = dictionary.check_features(features)
    if not is_whole(top_k) or not 1 <= top_k <= model.config.d_vocab:
        raise ValueError(f"top_k={top_k!r}: expected 1 to d_vocab={model.config.d_vocab}")
    if not ids:
        raise ValueError("features=[]: expected at least one")
    if dictionary.d_model != model.config.d_model:
        raise ValueError(f"a dictionary of width {dictionary.d_model} on a model of d_model {model.config.d_model}")
    made = [_effects(model, dictionary, ids[start : start + _CHUNK], top_k) for start in range(0, len(ids), _CHUNK)]
    found = {name: np.concatenate([part[name] for part in made]) for name in made[0]}
    dims: tuple[str, str] = ("feature", "rank")
    variables: dict[str, Any] = {}
    for name in ("promoted", "demoted"):
        texts = token_texts(model, found[f"{name}_id"])
        variables[f"{name}_effect"] = (
            dims,
            found[f"{name}_effect"],
            quantity("logit before the final norm's division"),
        )
        variables |= {f"{name}_id": (dims, found[f"{name}_id"]), f"{name}_token": (dims, texts)}
    variables |= {name: ("feature", found[name], quantity(f"{name} over the vocabulary")) for name in ("mean", "std")}
    coords = {"feature": np.array(ids, dtype=np.int64), "rank": np.arange(1, top_k + 1)}
    attrs = {"experiment": "feature_logit_effect", "model": model.config.name, "fingerprint": fingerprint(model)}
    return xr.Dataset(variables, coords, attrs | _said(dictionary))


def _effects(model: HookedGptOss, dictionary: Dictionary, ids: list[int], top_k: int) -> dict[str, np.ndarray]:
    rows = dictionary.W_dec[ids].to(model.ln_final.w.dtype) * model.ln_final.w
    effect = rows.to(model.W_U.dtype) @ model.W_U
    up, down = effect.topk(top_k, dim=-1), effect.topk(top_k, dim=-1, largest=False)
    found = {"promoted_effect": up.values, "promoted_id": up.indices}
    found |= {"demoted_effect": down.values, "demoted_id": down.indices}
    found |= {"mean": effect.float().mean(-1), "std": effect.float().std(-1)}
    return {name: numpy(tensor) for name, tensor in found.items()}


def _said(dictionary: Dictionary) -> dict[str, str]:
    return {"dictionary": repr(dictionary), "dictionary_form": str(dictionary.about.get("form", ""))}
