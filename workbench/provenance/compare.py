"""Two records beside each other."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.provenance.record import Maker, Record
from workbench.provenance.table import shown

if TYPE_CHECKING:
    import pandas as pd

PLAIN = ("kind", "name", "model", "fingerprint", "routing", "sites", "seed", "session", "notebook", "text", "result")
NESTED = ("recipe", "versions", "machine", "sources", "summary", "about")


@dataclass(frozen=True, repr=False)
class Comparison:
    """What differs between two records.

    Attributes:
        a, b: their ids.
        table: a row for each difference, a column for each record; empty where there is none.
        kl: [batch pos] KL(a ‖ b) of the next-token distributions, in nats, of both made again; None if that was not
            asked for, or cannot be.
    """

    a: str
    b: str
    table: pd.DataFrame
    kl: np.ndarray | None = None

    def __repr__(self) -> str:
        if not len(self.table):
            return f"records {self.a} and {self.b} do not differ"
        return self._shown(60).to_string()

    def _repr_html_(self) -> str:
        # pandas escapes what stands in the cells.
        return self._shown(120).to_html()

    def _shown(self, most: int) -> pd.DataFrame:
        """Its cells and the names of its rows, which come from the file too, each on one line."""
        return self.table.map(lambda value: shown(value, most)).rename(index=lambda name: shown(name, most))


def compared(a: Record, b: Record, maker: Maker | None = None) -> Comparison:
    """The differences; with a maker, also of the runs made again."""
    import pandas as pd

    rows = differences(a, b)
    kl = None
    if maker is not None:
        kl, why = maker.divergence(a.reload(), b.reload())
        said = why if kl is None else f"{kl.mean():.6g} nats"
        rows["KL(a ‖ b), mean"] = ("", said)
        if kl is not None:
            row, position = np.unravel_index(int(kl.argmax()), kl.shape)
            rows["KL(a ‖ b), largest"] = ("", f"{kl.max():.6g} nats at row {row}, position {position}")
    table = pd.DataFrame(list(rows.values()), index=pd.Index(list(rows), name="what"), columns=[a.id, b.id])
    return Comparison(a.id, b.id, table, kl)


def differences(a: Record, b: Record) -> dict[str, tuple[Any, Any]]:
    """What differs, by name: the values of both."""
    rows: dict[str, tuple[Any, Any]] = {name: (getattr(a, name), getattr(b, name)) for name in PLAIN}
    for name in NESTED:
        rows |= beside(getattr(a, name) or {}, getattr(b, name) or {}, name)
    rows |= _tokens(a, b) | _specs(a, b)
    return {name: pair for name, pair in rows.items() if pair[0] != pair[1]}


def beside(one: Mapping[str, Any], other: Mapping[str, Any], name: str) -> dict[str, tuple[Any, Any]]:
    """Two tables' entries, paired; None for one that a table does not have."""
    return {f"{name}: {key}": (one.get(key), other.get(key)) for key in dict.fromkeys([*one, *other])}


def _tokens(a: Record, b: Record) -> dict[str, tuple[Any, Any]]:
    rows: dict[str, tuple[Any, Any]] = {"shape": (a.shape, b.shape), "attention mask": (a.mask_digest, b.mask_digest)}
    if a.tokens_digest == b.tokens_digest or a.shape is None or b.shape is None:
        return rows
    if a._tokens is None or b._tokens is None:
        return rows | {"tokens": (a.tokens_digest, b.tokens_digest)}
    one, other = a.tokens, b.tokens
    common = tuple(slice(min(sizes)) for sizes in zip(one.shape, other.shape, strict=True))
    differs = np.argwhere(one[common] != other[common])
    if len(differs):
        row, position = differs[0].tolist()
        rows["tokens that differ"] = (None, f"{len(differs)} of {one[common].size} that both have")
        rows[f"first of them, row {row} position {position}"] = (int(one[row, position]), int(other[row, position]))
    return rows


def _specs(a: Record, b: Record) -> dict[str, tuple[Any, Any]]:
    """Interventions that only one of them has; and the order, where that is all."""
    one, other = ([json.dumps(spec, sort_keys=True) for spec in record.specs] for record in (a, b))
    only = [[spec for spec in mine if spec not in theirs] for mine, theirs in ((one, other), (other, one))]
    if not only[0] and not only[1] and one != other:
        return {"interventions, in order": ("; ".join(one), "; ".join(other))}
    pairs = zip_longest(*only)
    return {f"intervention {i}": (one, other) for i, (one, other) in enumerate(pairs)}
