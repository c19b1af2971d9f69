"""Linear probes: can a label be read off an activation, on texts the probe never saw, and better than by chance?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import xarray as xr
from jaxtyping import Float, Int
from tqdm.auto import tqdm

from workbench.experiments.rows import check_index, check_whole, quantity
from workbench.experiments.texts import about, activations, rows_of
from workbench.model import HookedGptOss
from workbench.model.sites import RESID

Kind = Literal["logistic", "ridge"]


@dataclass(frozen=True)
class _Examples:
    """One activation, label and group for each example: a text's last token, or each of its tokens."""

    values: Float[np.ndarray, "layer example d_model"]
    labels: np.ndarray
    group: Int[np.ndarray, " example"]
    text: Int[np.ndarray, " example"]
    per_token: bool


def probe(
    model: HookedGptOss,
    texts: Sequence[Any],
    labels: Sequence[Any],
    *,
    site: str = "resid_post",
    layers: Sequence[int] | None = None,
    kind: Kind = "logistic",
    groups: Sequence[Any] | None = None,
    folds: int = 5,
    shuffles: int = 5,
    strength: float = 1.0,
    seed: int = 0,
    progress: bool = True,
) -> xr.Dataset:
    """Fit a linear probe on a site's activations in each layer, and score it on texts that it was not fitted on.

    Args:
        texts: texts, Chats or rows of ids.
        labels: one a text, read at its last token; or for each text a list, one a token, None for tokens without one.
        site: a site of every layer that is a vector of the stream, without "hook_": "resid_post", "attn_out", …
        kind: "logistic" tells classes apart, scored by balanced accuracy (the mean over classes of the share found);
            "ridge" foretells a number, scored by R².
        groups: one a text; texts of a group are never on both sides of a split. By default, texts of the same tokens.
        folds: into how many parts the groups are split, each held out once.
        shuffles: how many probes are fitted on shuffled labels, and scored on shuffled ones (whole groups are
            shuffled where each has a single label).
        strength: of the regularisation, on features scaled to variance 1: scikit-learn's alpha, or 1 / C.

    Returns:
        score (layer, fold), held out; train_score (layer, fold), on what it was fitted on; shuffled_score (layer,
        shuffle, fold); chance, balanced accuracy of guessing or the R² of the mean; direction (layer, output, d_model):
        the weights of a probe fitted on all examples, in the activations' own units, an output a class (one alone
        where there are two classes or a number); label, count (class).

    Raises:
        ValueError: for labels, groups, folds, layers or a site that do not fit.
    """
    chosen, names = _sites(model, site, layers)
    check_whole(2, folds=folds)
    check_whole(0, shuffles=shuffles)
    if kind not in get_args(Kind) or not 0 < strength < float("inf"):
        raise ValueError(f"kind={kind!r}, strength={strength}: expected one of {get_args(Kind)}, and above 0")
    examples = _examples(model, texts, labels, names, groups, kind, progress)
    splits = list(_splits(examples, kind, folds, seed))
    generator = np.random.default_rng(seed)
    shuffled = [_shuffled(examples, generator) for _ in range(shuffles)]
    score, train = np.empty((2, len(chosen), folds))
    by_chance = np.empty((len(chosen), shuffles, folds))
    jobs = [(i, j) for i in range(len(chosen)) for j in range(folds)]
    for i, j in tqdm(jobs, desc="probes", disable=not progress):
        score[i, j], train[i, j] = _scored(examples.values[i], examples.labels, splits[j], kind, strength)
        for k, other in enumerate(shuffled):
            by_chance[i, k, j] = _scored(examples.values[i], other, splits[j], kind, strength)[0]
    direction = np.stack([_direction(values, examples.labels, kind, strength) for values in examples.values])
    said = "balanced accuracy" if kind == "logistic" else "R²"
    classes, counts = np.unique(examples.labels, return_counts=True) if kind == "logistic" else (np.array([]),) * 2
    variables = {
        "score": (("layer", "fold"), score, quantity(f"{said}, held out")),
        "train_score": (("layer", "fold"), train, quantity(f"{said}, on what it was fitted on")),
        "shuffled_score": (("layer", "shuffle", "fold"), by_chance, quantity(f"{said}, labels shuffled, held out")),
        "chance": ((), 1 / max(len(classes), 1) if kind == "logistic" else 0.0, quantity(f"{said} of guessing")),
        "direction": (("layer", "output", "d_model"), direction, quantity("weights of the probe on all examples")),
        "count": ("class", counts, quantity("examples")),
    }
    coords = {"layer": chosen, "fold": np.arange(folds), "shuffle": np.arange(shuffles), "class": classes.astype(str)}
    more = {"site": site, "kind": kind, "metric": said, "strength": strength, "seed": seed}
    more |= {"n_examples": len(examples.labels), "n_groups": len(np.unique(examples.group))}
    return xr.Dataset(variables, coords, about(model, "probe", **more))


def _sites(model: HookedGptOss, site: str, layers: Sequence[int] | None) -> tuple[list[int], list[str]]:
    chosen = list(range(model.config.n_layers) if layers is None else layers)
    for layer in chosen:
        check_index("layer", layer, model.config.n_layers)
    names = [f"blocks.{layer}.hook_{site}" for layer in chosen]
    dims = [model.sites[name].dims for name in names]
    if not names or set(dims) != {RESID}:
        raise ValueError(f"site={site!r}, layers={chosen}: expected at least one layer, and a site of {RESID}")
    return chosen, names


def _examples(
    model: HookedGptOss,
    texts: Sequence[Any],
    labels: Sequence[Any],
    names: list[str],
    groups: Sequence[Any] | None,
    kind: Kind,
    progress: bool,
) -> _Examples:
    rows = rows_of(model, texts)
    for what, given in (("labels", labels), ("groups", groups)):
        if given is not None and (isinstance(given, str) or len(given) != len(rows)):
            raise ValueError(f"{len(given)} {what} for {len(rows)} texts: expected one of them for each text")
    per_token = bool(len(labels)) and isinstance(labels[0], list | tuple | np.ndarray)
    asked = [_asked(i, row.shape[0], labels[i], per_token) for i, row in enumerate(rows)]
    own = [tuple(row.tolist()) for row in rows] if groups is None else list(groups)
    number = {key: n for n, key in enumerate(dict.fromkeys(own))}
    parts = []
    for at, cache in zip(asked, activations(model, rows, names, progress), strict=True):
        parts.append(np.stack([cache[name][list(at)].float().cpu().numpy() for name in names]))
    text = np.repeat(np.arange(len(rows)), [len(at) for at in asked])
    flat = np.array([label for at in asked for label in at.values()])
    if kind == "ridge":
        flat = _numbers(flat)
    group = np.array([number[own[i]] for i in text])
    return _Examples(np.concatenate(parts, axis=1), flat, group, text, per_token)


def _numbers(labels: np.ndarray) -> Float[np.ndarray, " example"]:
    try:
        found = labels.astype(float)
    except (TypeError, ValueError):
        raise ValueError(
            f"labels such as {labels[0]!r}: kind='ridge' foretells numbers; for classes, 'logistic'"
        ) from None
    if not np.isfinite(found).all():
        raise ValueError("some labels are NaN or infinite: expected numbers; None leaves a token out")
    return found


def _asked(i: int, length: int, labels: Any, per_token: bool) -> dict[int, Any]:
    """position → label of a text."""
    if not per_token:
        return {length - 1: labels}
    if len(labels) != length:
        raise ValueError(f"labels[{i}] has {len(labels)} labels for {length} tokens: expected one a token, or None")
    return {pos: label for pos, label in enumerate(labels) if label is not None}


def _splits(examples: _Examples, kind: Kind, folds: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    from sklearn import model_selection as selection  # half a second that nothing else here needs

    n_groups = len(np.unique(examples.group))
    if n_groups < folds:
        raise ValueError(f"folds={folds} of {n_groups} groups of texts: give more texts, or fewer folds")
    if kind == "logistic":
        few = [str(c) for c in np.unique(examples.labels) if len(np.unique(examples.group[examples.labels == c])) < 2]
        if few or len(np.unique(examples.labels)) < 2:
            raise ValueError(f"each class needs at least two groups of texts, and there must be two classes: {few}")
        cut = selection.StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    else:
        cut = selection.GroupKFold(folds, shuffle=True, random_state=seed)
    yield from cut.split(examples.labels, examples.labels, examples.group)


def _shuffled(examples: _Examples, generator: np.random.Generator) -> np.ndarray:
    """Labels dealt out anew: over whole groups where none has two labels, so that copies of a text keep to one."""
    _, first, group = np.unique(examples.group, return_index=True, return_inverse=True)
    of_group, group = examples.labels[first], group.reshape(-1)
    if examples.per_token or (of_group[group] != examples.labels).any():
        return generator.permutation(examples.labels)
    return generator.permutation(of_group)[group]


def _probe(kind: Kind, strength: float) -> Any:
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if kind == "ridge":
        head = Ridge(alpha=strength)
    else:
        head = LogisticRegression(C=1 / strength, class_weight="balanced", max_iter=2000)
    return make_pipeline(StandardScaler(), head)


def _scored(
    values: np.ndarray, labels: np.ndarray, split: tuple[np.ndarray, np.ndarray], kind: Kind, strength: float
) -> tuple[float, float]:
    """Held-out and training score; NaN where the training side has a single class."""
    train, test = split
    if kind == "logistic" and len(np.unique(labels[train])) < 2:
        return float("nan"), float("nan")
    fitted = _probe(kind, strength).fit(values[train], labels[train])
    held_out, own = (_score(labels[side], fitted.predict(values[side]), kind) for side in (test, train))
    return held_out, own


def _score(truth: np.ndarray, said: np.ndarray, kind: Kind) -> float:
    if kind == "logistic":
        return float(np.mean([(said[truth == c] == c).mean() for c in np.unique(truth)]))
    spread = ((truth - truth.mean()) ** 2).sum()
    return float(1 - ((truth - said) ** 2).sum() / spread) if spread else float("nan")


def _direction(
    values: np.ndarray, labels: np.ndarray, kind: Kind, strength: float
) -> Float[np.ndarray, "output d_model"]:
    scaler, head = (part for _, part in _probe(kind, strength).fit(values, labels).steps)
    return np.atleast_2d(head.coef_) / scaler.scale_
