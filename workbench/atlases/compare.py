"""Two atlases of the same documents: what another model, or an intervention, does to the routing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float

from workbench.atlases.errors import AtlasError
from workbench.atlases.spread import LAYER_EXPERT, quantity

if TYPE_CHECKING:
    from workbench.atlases.queries import Atlas

SEEN = 5  # times at least, for a token id to have a share
ROWS = 8_000_000  # of layers and tokens that are compared at once


def compare(a: Atlas, b: Atlas, n: int = 50) -> xr.Dataset:
    """See ``wb.atlas.compare``."""
    if n < 1:
        raise AtlasError(f"n={n}: expected at least 1")
    _check(a, b)
    shape = (len(a.layers), a.n_experts)
    sums, kept = {name: np.zeros(shape[0]) for name in ("tokens", "same", "sets", "first")}, np.zeros(shape)
    changed: list[Any] = []
    types: list[Any] = []
    with _Joined(a, b) as joined:
        for first, last in _stretches(a):
            joined.read(first, last)
            by_layer = joined.by_layer()
            for name, total in sums.items():
                total[by_layer["layer"]] += by_layer[name].to_numpy(np.float64)
            for found in joined.kept():
                np.add.at(kept, (found["layer"], found["expert"]), found["kept"].to_numpy(np.float64))
            changed = [_most(pd.concat([*changed, joined.changed(n)]), n)]
            types = [pd.concat([*types, joined.types()]).groupby("token", as_index=False).sum()]
    return _dataset(a, b, sums, kept, changed[0], types[0], n)


def _most(table: Any, n: int) -> Any:
    return table.sort_values(["changed", "document", "position"], ascending=[False, True, True]).head(n)


def _check(a: Atlas, b: Atlas) -> None:
    """Refuse atlases whose tokens are not the same."""
    for what, of in (
        ("tokenizers", lambda atlas: atlas.about["identity"]["tokenizer"]),
        ("numbers of layers", lambda atlas: len(atlas.layers)),
        ("numbers of experts", lambda atlas: atlas.n_experts),
        ("numbers of slots", lambda atlas: atlas.n_slots),
    ):
        if of(a) != of(b):
            raise AtlasError(f"{a!r} and {b!r} have different {what}, {of(a)} and {of(b)}: expected the same")
    ask = "select document, id, digest from documents order by document"
    left, right = a.database.ask(ask), b.database.ask(ask)
    if len(left) != len(right):
        raise AtlasError(
            f"the atlases are of {len(left):,} and {len(right):,} documents: expected the same corpus, whole in both"
        )
    other = np.flatnonzero((left["digest"] != right["digest"]) | (left["document"] != right["document"]))
    if len(other):
        i = other[0]
        raise AtlasError(
            f"{len(other):,} of {len(left):,} documents have other tokens, the first is {left['document'][i]} "
            f"({left['id'][i]!r} and {right['id'][i]!r}): expected the same corpus"
        )


def _stretches(a: Atlas) -> list[tuple[int, int]]:
    """First and last documents of stretches that fit in memory, however long the corpus is."""
    made: list[tuple[int, int]] = []
    begin, rows = None, 0
    for part in a.parts:
        begin = part.first_document if begin is None else begin
        rows += part.n_tokens * len(a.layers)
        if rows >= ROWS or part is a.parts[-1]:
            made.append((begin, part.first_document + part.n_documents - 1))
            begin, rows = None, 0
    return made


class _Joined:
    """The two atlases in one connection; ``read`` puts a stretch of them side by side, a row a token and layer."""

    def __init__(self, a: Atlas, b: Atlas) -> None:
        self.a, self.b, self.slots = a, b, a.database.slots

    def __enter__(self) -> _Joined:
        import duckdb

        self._connection = duckdb.connect(":memory:")
        for name, atlas in (("a", self.a), ("b", self.b)):
            self._connection.execute(f"create view {name} as {atlas.database.reads('routing')}")
        return self

    def __exit__(self, *problem: object) -> None:
        self._connection.close()

    def read(self, first: int, last: int) -> None:
        still = [" or ".join(f"a.expert_{i} = b.expert_{j}" for j in self.slots) for i in self.slots]
        kept = ", ".join(f"a.expert_{i} as expert_{i}, ({found})::integer as kept_{i}" for i, found in enumerate(still))
        self._connection.execute(
            f"create or replace temp table pairs as select a.layer, a.document, a.position, a.token, {kept}, "
            "(a.expert_0 = b.expert_0)::integer as first from a join b using (layer, document, position) "
            f"where a.document between {first} and {last} and b.document between {first} and {last}"
        )

    @property
    def _same(self) -> str:
        return " + ".join(f"kept_{i}" for i in self.slots)

    def _ask(self, question: str) -> pd.DataFrame:
        return self._connection.execute(question).df()

    def by_layer(self) -> pd.DataFrame:
        """Sums over the tokens of a layer."""
        return self._ask(
            f"select layer, count(*) as tokens, sum({self._same}) as same, "
            f"count(*) filter ({self._same} = {len(self.slots)}) as sets, sum(first) as first from pairs group by layer"
        )

    def kept(self) -> list[pd.DataFrame]:
        """Of each slot, how many of an expert's tokens stayed with it."""
        return [
            self._ask(f"select layer, expert_{i} as expert, sum(kept_{i}) as kept from pairs group by all")
            for i in self.slots
        ]

    def changed(self, n: int) -> pd.DataFrame:
        """The tokens most of whose routes went elsewhere, over all layers."""
        return self._ask(
            f"select document, position, token, sum({len(self.slots)} - ({self._same})) as changed from pairs "
            f"group by all having changed > 0 order by changed desc, document, position limit {n}"
        )

    def types(self) -> pd.DataFrame:
        """Of each token id, its occurrences and the routes of theirs that went elsewhere."""
        return self._ask(
            f"select token, count(*) / {len(self.a.layers)} as n, sum({len(self.slots)} - ({self._same})) as changed "
            "from pairs group by token"
        )


def _dataset(
    a: Atlas,
    b: Atlas,
    sums: dict[str, np.ndarray],
    kept: np.ndarray,
    changed: Any,
    types: Any,
    n: int,
) -> xr.Dataset:
    loads = [atlas.load() for atlas in (a, b)]
    count = loads[0]["count"].values
    tokens = np.maximum(sums["tokens"], 1)
    stayed = np.divide(kept, count, out=np.full(kept.shape, np.nan), where=count > 0)
    per_token = len(a.layers) * a.n_slots
    types = _types(types, per_token, n)
    variables: dict[str, Any] = {
        "set_agreement": ("layer", sums["sets"] / tokens, quantity("share of tokens with the same set of experts")),
        "first_agreement": (
            "layer",
            sums["first"] / tokens,
            quantity("share of tokens with the same strongest expert"),
        ),
        "overlap": ("layer", sums["same"] / tokens / a.n_slots, quantity("share of routes that both have")),
        "jensen_shannon": (
            "layer",
            jensen_shannon(loads[0]["route_share"].values, loads[1]["route_share"].values),
            quantity("Jensen–Shannon divergence of the experts' shares of routes", "bits"),
        ),
        "load_a": (
            LAYER_EXPERT,
            loads[0]["load"].values,
            quantity("share of tokens that go to the expert, first atlas"),
        ),
        "load_b": (LAYER_EXPERT, loads[1]["load"].values, quantity("the same, second atlas")),
        "load_change": (LAYER_EXPERT, (loads[1]["load"] - loads[0]["load"]).values, quantity("load_b − load_a")),
        "kept": (LAYER_EXPERT, stayed, quantity("of the expert's tokens in the first atlas, those it has in both")),
        "changed_routes": ("changed", changed["changed"].to_numpy(np.int64), quantity("routes that went elsewhere")),
        "type_share": (
            "type",
            types["share"].to_numpy(float),
            quantity("share of the token's routes that went elsewhere"),
        ),
        "type_count": ("type", types["n"].to_numpy(np.int64), quantity("occurrences")),
    }
    coords = {"layer": np.array(a.layers), "expert": np.arange(a.n_experts)}
    for axis, table, columns in (("changed", changed, ("document", "position", "token")), ("type", types, ("token",))):
        texts = a.texts(table["token"].to_numpy(np.int64))
        coords |= {f"{axis}_{c}" if axis == "type" else c: (axis, table[c].to_numpy(np.int64)) for c in columns}
        coords[f"{axis}_text" if axis == "type" else "text"] = (axis, np.array(texts, dtype=str))
    about = a.provenance("compare") | {"routes_per_token": per_token}
    for name in ("fingerprint", "interventions"):
        about |= {f"{name}_a": a.provenance("")[name], f"{name}_b": b.provenance("")[name]}
    return xr.Dataset(variables, coords, about)


def _types(found: Any, per_token: int, n: int) -> Any:
    """The token ids of which the largest share of routes changed, of those that are seen often enough to say."""
    often = found[found["n"] >= min(SEEN, found["n"].max())]
    often = often.assign(share=often["changed"] / (often["n"] * per_token))
    return often.sort_values(["share", "n", "token"], ascending=[False, False, True]).head(n)


def jensen_shannon(
    p: Float[np.ndarray, "layer expert"], q: Float[np.ndarray, "layer expert"]
) -> Float[np.ndarray, " layer"]:
    """Of two distributions a layer, in bits: 0 where they are the same, 1 where they share nothing."""
    middle = (p + q) / 2

    def divergence(x: np.ndarray) -> np.ndarray:
        ratio = np.divide(x, middle, out=np.ones_like(x), where=x > 0)
        return (x * np.log2(ratio)).sum(-1)

    return np.maximum((divergence(p) + divergence(q)) / 2, 0)
