"""How a corpus is spread over the experts: loads, specialisation with intervals, who works with whom."""

from __future__ import annotations

from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float

from workbench.atlases.database import Database
from workbench.atlases.errors import AtlasError

if TYPE_CHECKING:
    from workbench.atlases.queries import Atlas

OF_DOCUMENTS = ("domain", "language", "document")
BY = (*OF_DOCUMENTS[:2], "role", "channel", "document")
LAYER_EXPERT = ("layer", "expert")


def quantity(meaning: str, units: str = "1") -> dict[str, str]:
    """The attributes of a variable."""
    return {"long_name": meaning, "units": units}


def load(atlas: Atlas) -> xr.Dataset:
    """See ``Atlas.load``."""
    found = atlas.database.ask(
        "select layer, expert, count(*) as n, sum(weight::double) as weight from routing group by layer, expert"
    )
    counts, given = (_filled(atlas, found, name) for name in ("n", "weight"))
    n_tokens, n_slots = max(atlas.n_tokens, 1), atlas.n_slots
    share = counts / (n_tokens * n_slots)
    logs = np.log(np.where(share > 0, share, 1))
    entropy = -(share * logs).sum(-1) / np.log(max(atlas.n_experts, 2))
    mean = np.divide(given, counts, out=np.full(counts.shape, np.nan), where=counts > 0)
    variables = {
        "count": (LAYER_EXPERT, counts.astype(np.int64), quantity("tokens that go to the expert", "tokens")),
        "load": (LAYER_EXPERT, counts / n_tokens, quantity("share of tokens that go to the expert")),
        "route_share": (LAYER_EXPERT, share, quantity("share of the layer's routes")),
        "mean_weight": (LAYER_EXPERT, mean, quantity("mean weight over the tokens that go to the expert")),
        "weight_share": (LAYER_EXPERT, given / n_tokens, quantity("mean weight over all tokens, 0 where not routed")),
        "entropy": ("layer", entropy, quantity("−Σ p log p / log E, p the expert's share of the layer's routes")),
    }
    return xr.Dataset(variables, _coords(atlas), atlas.provenance("load") | {"even_load": n_slots / atlas.n_experts})


def _coords(atlas: Atlas) -> dict[str, Any]:
    return {"layer": np.array(atlas.layers), "expert": np.arange(atlas.n_experts)}


def _filled(
    atlas: Atlas, found: pd.DataFrame, name: str, groups: dict[str, int] | None = None
) -> Float[np.ndarray, "layer expert ..."]:
    """A column as an array over layer and expert (and group), 0 where the answer has no row."""
    shape = (len(atlas.layers), atlas.n_experts, *([] if groups is None else [len(groups)]))
    made = np.zeros(shape)
    place = [found["layer"].to_numpy(np.int64), found["expert"].to_numpy(np.int64)]
    if groups is not None:
        place.append(np.array([groups[name] for name in found["name"]], dtype=np.int64))
    made[tuple(place)] = found[name].to_numpy(np.float64)
    return made


# ---------------------------------------------------------------- specialisation
def specialisation(atlas: Atlas, by: str, level: float = 0.95) -> xr.Dataset:
    """See ``Atlas.specialisation``."""
    if by not in BY:
        raise AtlasError(f"by={by!r}: expected one of {BY}")
    if not 0 < level < 1:
        raise AtlasError(f"level={level}: expected between 0 and 1, such as 0.95")
    tokens, sums = _sums(atlas.database, by)
    if by in ("domain", "language") and tokens["name"].tolist() in ([], [""]):
        raise AtlasError(f"no document of this atlas has a {by}: build it with {by}=, or name it in the corpus")
    groups = {name: i for i, name in enumerate(tokens["name"])}
    column = {name: tokens[name].to_numpy(np.float64) for name in tokens.columns if name != "name"}
    cell = {name: _filled(atlas, sums, name, groups) for name in sums.columns if name not in (*LAYER_EXPERT, "name")}
    total, all_tokens = cell["c"].sum(-1, keepdims=True), column["t"].sum()
    share = cell["c"] / column["t"]
    composition = np.divide(cell["c"], total, out=np.full(share.shape, np.nan), where=total > 0)
    lift = composition / (column["t"] / all_tokens)
    low, high = _wilson(share, _effective(share, cell, column), level)
    load_ = total / all_tokens
    edges = [np.divide(edge, load_, out=np.full(share.shape, np.nan), where=load_ > 0) for edge in (low, high)]
    axes = (*LAYER_EXPERT, by)
    group = f"tokens of the {by}"
    variables = {
        "count": (axes, cell["c"].astype(np.int64), quantity(f"{group} that go to the expert", "tokens")),
        "tokens": (by, column["t"].astype(np.int64), quantity(group, "tokens")),
        "documents": (by, column["d"].astype(np.int64), quantity("documents with such tokens", "documents")),
        "share": (axes, share, quantity(f"share of the {group} that goes to the expert")),
        "share_low": (axes, low, quantity(f"lower end of the {level:.0%} interval of share")),
        "share_high": (axes, high, quantity(f"upper end of the {level:.0%} interval of share")),
        "composition": (axes, composition, quantity(f"P({by} | expert): share of the expert's tokens")),
        "lift": (axes, lift, quantity(f"P({by} | expert) / P({by})")),
        "lift_low": (axes, edges[0], quantity(f"lower end of the {level:.0%} interval, the load taken as known")),
        "lift_high": (axes, edges[1], quantity(f"upper end of the {level:.0%} interval, the load taken as known")),
    }
    names = np.array(list(groups), dtype=str) if by != "document" else np.array([int(name) for name in groups])
    coords = _coords(atlas) | {by: names}
    about = {"level": level, "intervals": "Wilson's, of as many tokens as whole documents are worth"}
    return xr.Dataset(variables, coords, atlas.provenance("specialisation") | about)


def _sums(database: Database, by: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Of each group its tokens t and documents d, and of each group, layer and expert its routes c; with the sums over
    documents of the squares and products that say how far documents differ."""
    name = f"coalesce({by}::varchar, '')"
    if by in OF_DOCUMENTS:  # then a document has one name, and words need not be counted with
        of_documents = f"select {name} as name, document, n_tokens as t from documents where n_tokens > 0"
        of_cells = "select layer, expert, document, count(*) as c from routing group by all"
        key = "document"
    else:
        of_documents = f"select {name} as name, document, count(*) as t from routes where layer = 0 group by all"
        of_cells = f"select layer, expert, {name} as name, document, count(*) as c from routing group by all"
        key = "name, document"
    tokens = database.ask(
        f"select name, sum(t) as t, count(*) as d, sum(t * t) as tt from ({of_documents}) group by name order by "
        + ("name::integer" if by == "document" else "name")
    )
    sums = database.ask(
        f"with tokens as ({of_documents}), cells as ({of_cells}) select layer, expert, name, sum(c) as c, "
        f"sum(c * c) as cc, sum(c * t) as ct from cells join tokens using ({key}) group by all"
    )
    return tokens, sums


def _effective(
    share: np.ndarray, cell: dict[str, np.ndarray], column: dict[str, np.ndarray]
) -> Float[np.ndarray, "layer expert by"]:
    """How many independent tokens a group is worth. Tokens of one document are alike, so documents are the sample: the
    variance of the share as a ratio of sums over whole documents (Korn and Graubard 1998); NaN for a single document.
    """
    documents = column["d"]
    squares = np.maximum(cell["cc"] - 2 * share * cell["ct"] + share**2 * column["tt"], 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        variance = squares / column["t"] ** 2 * documents / (documents - 1)
        worth = share * (1 - share) / variance
    # No variance can be seen where all or none go there: then each document counts once.
    worth = np.where(variance > 0, worth, documents)
    return np.where(documents > 1, np.minimum(worth, column["t"]), np.nan)


def _wilson(share: np.ndarray, n: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
    z = NormalDist().inv_cdf((1 + level) / 2)
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return np.clip(centre - half, 0, 1), np.clip(centre + half, 0, 1)


# ---------------------------------------------------------------- together
def coactivation(atlas: Atlas, layer: int) -> xr.Dataset:
    """See ``Atlas.coactivation``."""
    atlas.check(layer=layer)
    n_experts, slots = atlas.n_experts, atlas.database.slots
    pairs = [f"select expert_{a} as a, expert_{b} as b from routes where layer = {layer}" for a in slots for b in slots]
    found = atlas.database.ask(f"select a, b, count(*) as n from ({' union all '.join(pairs)}) group by all")
    count = np.zeros((n_experts, n_experts))
    count[found["a"].to_numpy(np.int64), found["b"].to_numpy(np.int64)] = found["n"].to_numpy(np.float64)
    single, n_tokens = np.diag(count), max(atlas.n_tokens, 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = count / single[:, None]
        lift = count * n_tokens / np.outer(single, single)
        pmi = np.log2(lift)
    for values in (share, lift, pmi):
        np.fill_diagonal(values, np.nan)
    axes = ("expert", "other")
    variables = {
        "count": (axes, count.astype(np.int64), quantity("tokens that go to both; on the diagonal, to it", "tokens")),
        "share": (axes, share, quantity("share of the expert's tokens that also go to the other")),
        "lift": (axes, lift, quantity("tokens of both, over what independent experts of their loads would have")),
        "pmi": (axes, pmi, quantity("pointwise mutual information, log2 of lift", "bits")),
    }
    coords = {"expert": np.arange(n_experts), "other": np.arange(n_experts), "layer": layer}
    return xr.Dataset(variables, coords, atlas.provenance("coactivation"))


def neighbours(atlas: Atlas, layer: int, expert: int, n: int) -> pd.DataFrame:
    """See ``Atlas.neighbours``."""
    atlas.check(layer=layer, expert=expert)
    found = coactivation(atlas, layer).sel(expert=expert).drop_sel(other=expert)
    table: Any = found.to_dataframe()[["count", "share", "lift", "pmi"]].reset_index()
    table = table[table["count"] > 0].sort_values(["lift", "count", "other"], ascending=[False, False, True])
    return table.rename(columns={"other": "expert"}).head(n).reset_index(drop=True)
