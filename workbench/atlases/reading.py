"""From a place in an atlas back to what the model read there, for who wants to run it again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from workbench.atlases.errors import AtlasError

if TYPE_CHECKING:
    from workbench.atlases.contexts import Context
    from workbench.atlases.queries import Atlas


def up_to(atlas: Atlas, contexts: Sequence[Context]) -> tuple[list[list[int]], list[int | None]]:
    """What the model had read when it came to each context's token.

    Returns:
        Of each, the token ids from the start of its window to that token; and the id of the document's next token, None
        at its end.
    """
    if not contexts:
        return [], []
    places = [(each.document, each.position - each.position % atlas.max_length, each.position) for each in contexts]
    values = ", ".join(f"({i}, {document}, {first}, {last})" for i, (document, first, last) in enumerate(places))
    documents = ", ".join(str(number) for number in sorted({document for document, _, _ in places}))
    found = atlas.sql(
        f"with places(n, document, first, last) as (values {values}) select n, position, token from routes "
        f"join places using (document) where layer = 0 and document in ({documents}) "
        "and position between first and last + 1 order by n, position"
    )
    rows: list[list[int]] = [[] for _ in places]
    following: list[int | None] = [None] * len(places)
    columns = (found[name].tolist() for name in ("n", "position", "token"))
    for n, position, token in zip(*columns, strict=True):
        if position <= places[n][2]:
            rows[n].append(int(token))
        else:
            following[n] = int(token)
    return rows, following


def of_like_load(load: xr.Dataset, layer: int, expert: int) -> int:
    """The other expert of the layer whose load is closest; of two, the one with the smaller number.

    Args:
        load: from ``atlas.load()``.

    Raises:
        AtlasError: for a layer of one expert.
    """
    counts = load["count"].sel(layer=layer).values
    if len(counts) < 2:
        raise AtlasError(f"layer {layer} has one expert: there is none to compare it with")
    gaps = np.abs(counts - counts[expert]).astype(np.float64)
    gaps[expert] = np.inf
    return int(gaps.argmin())
