"""Where an expert fires hardest, and the text round it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from workbench.atlases.errors import AtlasError

if TYPE_CHECKING:
    from workbench.atlases.queries import Atlas

ORDERS = ("weight", "random")


@dataclass(frozen=True)
class Context:
    """A piece of a document round a token that goes to an expert.

    Attributes:
        document: its number in the corpus; ``id`` is its name there.
        position: of the token in the document.
        centre: its index in the lists below.
        weight, slot: what the expert had there.
        tokens, ids: the piece, as printable strings and as token ids.
        weights: the expert's weight at each of them, 0 where they do not go to it.
        seen: the index of the first of them that was in the token's window: the model had none of those before it.
        domain, language, role, channel: of the token; None where nothing says.
    """

    layer: int
    expert: int
    document: int
    id: str
    position: int
    centre: int
    weight: float
    slot: int
    tokens: tuple[str, ...]
    ids: tuple[int, ...]
    weights: tuple[float, ...]
    seen: int
    domain: str | None
    language: str | None
    role: str | None
    channel: str | None

    @property
    def text(self) -> str:
        """The piece, its tokens joined."""
        return "".join(self.tokens)


def top(atlas: Atlas, layer: int, expert: int, n: int, by: str, per_document: int | None, seed: int) -> pd.DataFrame:
    """See ``Atlas.top``."""
    atlas.check(layer=layer, expert=expert)
    if by not in ORDERS:
        raise AtlasError(f"by={by!r}: expected one of {ORDERS}")
    if n < 1 or (per_document is not None and per_document < 1):
        raise AtlasError(f"n={n}, per_document={per_document}: expected at least 1")
    # Ties by place, so that the same question has the same answer, however many threads read.
    order = "weight desc" if by == "weight" else f"hash(document, position, {int(seed)})"
    order += ", document, position"
    few = (
        f"qualify row_number() over (partition by document order by {order}) <= {per_document}" if per_document else ""
    )
    return atlas.database.ask(
        f"with best as (select document, position, token, weight, slot, role, channel, domain, language from routing "
        f"where layer = {layer} and expert = {expert} {few} order by {order} limit {n}) "
        "select best.document, documents.id, position, best.token, text, weight, slot, role, channel, best.domain, "
        "best.language from best join documents using (document) left join vocabulary using (token) "
        f"order by {order.replace('document', 'best.document')}"
    )


def contexts(atlas: Atlas, found: pd.DataFrame, layer: int, expert: int, before: int, after: int) -> list[Context]:
    """The text round each row of ``top``."""
    if before < 0 or after < 0:
        raise AtlasError(f"before={before}, after={after}: expected at least 0")
    if not len(found):
        return []
    places = zip(found["document"].tolist(), found["position"].tolist(), strict=True)
    values = ", ".join(f"({i}, {document}, {position})" for i, (document, position) in enumerate(places))
    documents = ", ".join(str(number) for number in sorted(set(found["document"].tolist())))
    cases = " ".join(f"when expert_{slot} = {expert} then weight_{slot}" for slot in atlas.database.slots)
    around = atlas.database.ask(
        f"with centres(n, document, centre) as (values {values}) "
        f"select n, position, token, text, case {cases} else 0 end as weight from routes "
        f"join centres using (document) left join vocabulary using (token) where layer = {layer} "
        f"and document in ({documents}) and position between centre - {before} and centre + {after} "
        "order by n, position"
    )
    pieces: dict[Any, Any] = dict(tuple(around.groupby("n")))
    return [_context(atlas, row, pieces[i], layer, expert) for i, row in enumerate(found.to_dict("records"))]


def _context(atlas: Atlas, said: dict[Any, Any], piece: Any, layer: int, expert: int) -> Context:
    first, position = int(piece["position"].iloc[0]), int(said["position"])
    ids = [int(token) for token in piece["token"]]
    window = position - position % atlas.max_length
    return Context(
        layer=layer,
        expert=expert,
        document=int(said["document"]),
        id=said["id"],
        position=position,
        centre=position - first,
        weight=float(said["weight"]),
        slot=int(said["slot"]),
        tokens=tuple(str(i) if pd.isna(text) else str(text) for i, text in zip(ids, piece["text"], strict=True)),
        ids=tuple(ids),
        weights=tuple(float(weight) for weight in piece["weight"]),
        seen=max(0, window - first),
        **{name: None if pd.isna(said[name]) else said[name] for name in ("domain", "language", "role", "channel")},
    )
