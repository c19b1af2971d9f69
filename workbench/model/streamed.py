"""Attention over tiles of queries, with memory linear in the length.

Every number is made tile by tile, by the functions here, whoever listens. Listening to scores or pattern only changes
what is kept (``attention.py`` then shows the tiles as one tensor), so that reading a site changes no bit.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.model.tiles import Tile, Tiling

Queries = Float[Tensor, "batch query_pos head d_head"]
HeadsFirst = Float[Tensor, "rows key_pos d_head"]  # rows: batch · kv_head
Sinks = Float[Tensor, "batch query_pos head"]


class Room:
    """Memory that every tile writes over again. Fresh memory for each would cost more time than what is put there,
    and of ever new sizes an allocator wastes much."""

    def __init__(self, n: int, dtype: torch.dtype, device: torch.device) -> None:
        self.places = [torch.empty(n, dtype=dtype, device=device) for _ in range(3)]

    @classmethod
    def over(cls, tiling: Tiling, q: Tensor) -> Room:
        """As much as the largest tile needs."""
        pairs = max((tile.stop - tile.start) * (tile.last - tile.first + 1) for tile in tiling.tiles)
        return cls(q.shape[0] * q.shape[2] * pairs, q.dtype, q.device)

    def of(self, place: int, shape: tuple[int, ...]) -> Tensor:
        """One of the three places, in this shape."""
        return self.places[place][: math.prod(shape)].view(shape)


def heads_first(x: Float[Tensor, "batch key_pos kv_head d_head"]) -> HeadsFirst:
    """Keys or values as one matrix per row and key-value head, contiguous, so that a tile's columns are a view."""
    return x.transpose(1, 2).reshape(-1, x.shape[1], x.shape[3]).contiguous()


def scores_of(
    q: Queries,
    keys: HeadsFirst,
    bias: Float[Tensor, "#batch 1 query_pos masked"] | None,
    room: Room | None = None,
) -> Float[Tensor, "batch head query_pos key_pos"]:
    """q·k/√d_head, with the bias on the last columns. Query heads are grouped under their key-value head."""
    batch, n, heads, d_head = q.shape
    scale = d_head**-0.5
    # Where the scale is a power of two it is exact on either side; elsewhere it must follow the rounded product.
    exact = math.frexp(scale)[0] == 0.5
    grouped = (q * scale if exact else q).transpose(1, 2).reshape(keys.shape[0], -1, d_head)
    out = None if room is None else room.of(0, (*grouped.shape[:2], keys.shape[1]))
    scores = torch.bmm(grouped, keys.mT, out=out)
    if not exact:
        scores.mul_(scale)
    scores = scores.view(batch, heads, n, -1)
    if bias is not None:
        scores[..., scores.shape[-1] - bias.shape[-1] :].add_(bias)
    return scores


def softmax_with_sink(
    scores: Float[Tensor, "batch head query_pos key_pos"],
    sink_logit: Float[Tensor, "batch query_pos head"],
    room: Room | None = None,
) -> tuple[Float[Tensor, "batch head query_pos key_pos"], Float[Tensor, "batch query_pos head"]]:
    """Softmax over the keys and the sink's extra column → (pattern, mass of the sink); together each row is 1.

    A query that sees no key (padding) gives everything to its sink, and no NaN; without a sink either (an edit to −inf)
    it gives nothing.
    """
    # The lowest number there is instead of −inf: beside any key exactly as nothing, and a row is never all −inf.
    column = sink_logit.clamp(min=torch.finfo(sink_logit.dtype).min).transpose(1, 2)[..., None]
    wide = (*scores.shape[:3], scores.shape[3] + 1)
    logits = torch.cat((scores, column), dim=-1, out=None if room is None else room.of(1, wide))
    probabilities = torch.softmax(logits, dim=-1, out=None if room is None else room.of(2, wide))
    sink = probabilities[..., -1].transpose(1, 2).masked_fill(torch.isneginf(sink_logit), 0.0)
    # A copy: the product with the values must find the same layout whether or not a hook has been shown this.
    pattern = probabilities[..., :-1]
    return pattern.contiguous() if room is None else room.of(0, pattern.shape).copy_(pattern), sink


def with_sink_moved(
    pattern: Float[Tensor, "batch head query_pos key_pos"],
    scores: Float[Tensor, "batch head query_pos key_pos"],
    moved: Float[Tensor, "batch query_pos head"],
) -> Float[Tensor, "batch head query_pos key_pos"]:
    """The pattern after the sink's mass went from s to s′, moved = s − s′: each row times (1 − s′)/(1 − s).

    Written as pattern + (s − s′)·softmax(scores): the same where 1 − s > 0, exactly the pattern where nothing
    was edited, and right where the sink had everything and the quotient is 0/0.
    """
    keys_only, _ = softmax_with_sink(scores, torch.full_like(moved, float("-inf")))
    return pattern + moved.transpose(1, 2)[..., None] * keys_only


def mix(pattern: Float[Tensor, "batch head query_pos key_pos"], values: HeadsFirst) -> Queries:
    """Pattern-weighted values of each head."""
    batch, heads, n, columns = pattern.shape
    z = torch.bmm(pattern.reshape(values.shape[0], -1, columns), values)
    return z.view(batch, heads, n, -1).transpose(1, 2)


def attend(
    bias: Tensor | None,
    room: Room | None,
    q: Queries,
    keys: HeadsFirst,
    values: HeadsFirst,
    sink_logit: Sinks,
    moved: Sinks | None,
) -> tuple[Queries, Sinks]:
    """One tile: (z, mass of the sink before it was moved)."""
    scores = scores_of(q, keys, bias, room)
    # Where the scores are needed once more, they cannot leave their place to the pattern.
    pattern, sink = softmax_with_sink(scores, sink_logit, room if moved is None else None)
    if moved is not None:
        pattern = with_sink_moved(pattern, scores, moved)
    return mix(pattern, values), sink


def streamed(
    tiling: Tiling, q: Queries, keys: HeadsFirst, values: HeadsFirst, sink_logit: Sinks, moved: Sinks | None = None
) -> tuple[Queries, Sinks]:
    """(z, mass of the sink before it was moved), all tiles. Backward computes each tile again instead of keeping it."""
    return _Streamed.apply(tiling, q, keys, values, sink_logit, moved)  # pyright: ignore[reportReturnType]


def _tile_by_tile(tiling: Tiling, *inputs: Tensor | None) -> tuple[Tensor, Tensor]:
    """As autograd can follow it."""
    done = [attend(_bias(tiling, tile, inputs), None, *_cut(tile, inputs)) for tile in tiling.tiles]
    z, sink = zip(*done, strict=True)
    return torch.cat(z, 1), torch.cat(sink, 1)


def _written_in_place(tiling: Tiling, *inputs: Tensor | None) -> tuple[Tensor, Tensor]:
    """The same, to the bit."""
    q = _queries(inputs)
    # Made first: small results that stay, between large ones that go, would leave the memory in shreds.
    z, sink, room = torch.empty_like(q), q.new_empty(q.shape[:3]), Room.over(tiling, q)
    for tile in reversed(tiling.tiles):  # the largest first: what it used and gave back then fits the others
        rows = slice(tile.start, tile.stop)
        z[:, rows], sink[:, rows] = attend(_bias(tiling, tile, inputs), room, *_cut(tile, inputs))
    return z, sink


def _queries(inputs: tuple[Tensor | None, ...]) -> Tensor:
    assert inputs[0] is not None
    return inputs[0]


def _bias(tiling: Tiling, tile: Tile, inputs: tuple[Tensor | None, ...]) -> Tensor | None:
    return tiling.bias(tile, _queries(inputs).dtype)


def _axes(tile: Tile) -> tuple[slice, ...]:
    """Where a tile lies in q, keys, values, sink_logit and moved, each along its axis 1."""
    rows, columns = slice(tile.start, tile.stop), slice(tile.first, tile.last)
    return rows, columns, columns, rows, rows


def _cut(tile: Tile, inputs: tuple[Tensor | None, ...]) -> list[Any]:
    return [None if x is None else x[:, axis] for x, axis in zip(inputs, _axes(tile), strict=True)]


class _Streamed(torch.autograd.Function):
    """Keeps queries, keys and values only; there is no hook inside, so computing again fires none twice."""

    @staticmethod
    def forward(ctx: Any, tiling: Tiling, *inputs: Tensor | None) -> tuple[Tensor, Tensor]:
        ctx.tiling = tiling
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs)
        return _written_in_place(tiling, *inputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        inputs, wanted = ctx.saved_tensors, ctx.needs_input_grad[1:]
        if torch.is_grad_enabled():  # create_graph: this backward will be differentiated itself
            again = _tile_by_tile(ctx.tiling, *inputs)
            return (None, *_gradients(again, gradients, inputs, wanted, create_graph=True))
        # Keys and values get a part from every tile that sees them: summed in float32, rounded once.
        sums = [
            _zeros(x, wide=i in (1, 2)) if want else None
            for i, (x, want) in enumerate(zip(inputs, wanted, strict=True))
        ]
        for tile in reversed(ctx.tiling.tiles):
            leaves: list[Any] = [
                x if x is None else x.detach().requires_grad_(want)
                for x, want in zip(_cut(tile, inputs), wanted, strict=True)
            ]
            with torch.enable_grad():
                again = attend(_bias(ctx.tiling, tile, inputs), None, *leaves)
            at = _axes(tile)
            parts = [None if g is None else g[:, at[0]] for g in gradients]
            for total, axis, part in zip(sums, at, _gradients(again, parts, leaves, wanted), strict=True):
                if total is not None and part is not None:
                    total[:, axis] += part
        return (None, *(None if s is None else s.to(x.dtype) for s, x in zip(sums, inputs, strict=True)))


def _zeros(x: Tensor, wide: bool) -> Tensor:
    dtype = torch.promote_types(x.dtype, torch.float32) if wide else x.dtype
    return torch.zeros(x.shape, dtype=dtype, device=x.device)


def _gradients(outputs: Any, gradients: Any, inputs: Any, wanted: Any, create_graph: bool = False) -> list[Any]:
    """Of the inputs that want one; None for the others."""
    pairs = [pair for pair in zip(outputs, gradients, strict=True) if pair[1] is not None and pair[0].requires_grad]
    chosen = [x for x, want in zip(inputs, wanted, strict=True) if want]
    if not pairs:
        return [None] * len(wanted)
    known, theirs = zip(*pairs, strict=True)
    found = iter(torch.autograd.grad(known, chosen, theirs, create_graph=create_graph, allow_unused=True))
    return [next(found) if want else None for want in wanted]
