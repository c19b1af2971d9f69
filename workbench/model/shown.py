"""Tiles of scores and patterns as the one tensor that a listener sees, and back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from transformer_lens.hook_points import HookPoint

from workbench.model.streamed import mix
from workbench.model.tiles import Tiling


def edited_scores(
    point: HookPoint, over: Tiling, scores: Iterable[Tensor], columns: list[tuple[int, int]]
) -> tuple[list[Float[Tensor, "batch head query_pos tile_keys"]], list[tuple[int, int]]]:
    """The tiles' scores after every edit, and the columns that each tile now has."""
    edited: list[Tensor] = []
    now: list[tuple[int, int]] = []
    for rows, (first, last) in zip(_shown(point, over, scores, columns, float("-inf")), columns, strict=True):
        outside = (rows[..., :first], rows[..., last:])
        # An edit may show a query keys that it would not see: then its tile takes in all of them.
        widened = any(part.shape[-1] and bool((part != float("-inf")).any()) for part in outside)
        now.append((0, over.n_keys) if widened else (first, last))
        edited.append(rows[..., slice(*now[-1])])
    return edited, now


def mixed_as_edited(
    point: HookPoint,
    over: Tiling,
    patterns: Iterable[Tensor],
    columns: list[tuple[int, int]],
    values: Float[Tensor, "rows key_pos d_head"],
) -> Iterator[Float[Tensor, "batch query_pos head d_head"]]:
    """z of each tile, after every edit of the pattern."""
    for rows, (first, last) in zip(_shown(point, over, patterns, columns, 0.0), columns, strict=True):
        z = mix(rows[..., first:last].contiguous(), values[:, first:last])
        # Outside the tile's columns is nothing but what an edit put there. It is always mixed in, so that the gradient
        # says what an edit would do; and apart, so that z keeps its bits where there is none.
        for outside in (slice(0, first), slice(last, over.n_keys)):
            if outside.start < outside.stop:
                z = z + mix(rows[..., outside], values[:, outside])
        yield z


def _shown(
    point: HookPoint, over: Tiling, parts: Iterable[Tensor], columns: list[tuple[int, int]], fill: float
) -> tuple[Float[Tensor, "batch head query_pos key_pos"], ...]:
    """Run a site on the tiles' parts as one tensor over all columns; gives the tiles' rows of all keys given.

    The site sees the columns before the first key given too. A sliding layer's cache has dropped those, and an edit
    there is refused.
    """
    dropped = over.dropped
    shown = point(_whole(over, parts, columns, fill))
    if dropped and bool((shown[..., :dropped] != fill).any()):
        raise ValueError(
            f"{point.name}: the edit gives attention to key positions before {dropped}, which have left this sliding "
            "layer's cache; edit only visible keys, or run the whole sequence without a cache"
        )
    return over.split(shown[..., dropped:], 2)


def _whole(
    over: Tiling, parts: Iterable[Tensor], columns: list[tuple[int, int]], fill: float
) -> Float[Tensor, "batch head query_pos key_pos"]:
    dropped, width = over.dropped, over.dropped + over.n_keys
    if len(over.tiles) == 1 and not dropped:
        return next(iter(parts))
    spans = [(dropped + first, dropped + last) for first, last in columns]
    if torch.is_grad_enabled():
        rows = zip(parts, spans, strict=True)
        return torch.cat([F.pad(part, (first, width - last), value=fill) for part, (first, last) in rows], 2)
    # Written as they come, so that the parts are never there beside the whole.
    whole: Tensor | None = None
    for tile, part, (first, last) in zip(over.tiles, parts, spans, strict=True):
        whole = part.new_empty(*part.shape[:2], over.n_queries, width) if whole is None else whole
        rows = whole[:, :, tile.start : tile.stop]
        rows[..., :first], rows[..., first:last], rows[..., last:] = fill, part, fill
    assert whole is not None
    return whole
