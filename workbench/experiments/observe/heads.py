"""Scores that say what each head does, on text where only one thing can be right: random tokens, said twice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float, Int
from torch import Tensor

from workbench.activations import Run, run
from workbench.experiments.rows import check_index, check_whole, numpy, provenance, quantity, real_columns
from workbench.model import HookedGptOss
from workbench.model.memory import NotEnoughMemory, check_memory, readable

KINDS = ("previous_token", "duplicate_token", "induction")


def head_scores(model: HookedGptOss, length: int = 32, n_rows: int = 4, seed: int = 0) -> xr.Dataset:
    """How much each head attends as a previous-token, duplicate-token or induction head does, and how much not at all.

    The text is ``length`` random tokens said twice. A score is the mean attention A[t, t − offset]: offset 1 over all
    tokens (previous token); over the second half ``length`` (the same token before) and ``length`` − 1 (the token after
    the same token before, which is the one to predict: induction, arXiv 2209.11895).

    Returns:
        score (kind, layer, head), of all attention; score_without_sink, of what the sink leaves; both NaN where the
        layer's window does not reach that far. sink (layer, head), the mean attention left on the sink.

    Raises:
        ValueError: for a length below 2, or no rows.
        NotEnoughMemory: where the patterns would not fit.

    >>> scores = experiments.head_scores(model).score
    >>> dict(scores.sizes)
    {'kind': 3, 'layer': 4, 'head': 8}
    """
    check_whole(2, length=length)
    check_whole(1, n_rows=n_rows)
    kept = model.sites.select(lambda name: name.endswith(("hook_pattern", "hook_sink")))
    _check_fits(model, length, n_rows, kept)
    done = run(model, _said_twice(model, length, n_rows, seed), sites=kept)
    by_layer = [_scores(done, layer, length) for layer in range(model.config.n_layers)]
    score, without_sink, sink = (
        np.stack([numpy(part) for part in parts], axis=-2) for parts in zip(*by_layer, strict=True)
    )
    dims = ("kind", "layer", "head")
    variables = {
        "score": (dims, score, quantity("mean attention at the kind's offset")),
        "score_without_sink": (dims, without_sink, quantity("the same, of what the sink leaves")),
        "sink": (dims[1:], sink, quantity("mean attention left on the sink")),
    }
    coords = {"kind": list(KINDS), "layer": np.arange(score.shape[1]), "head": np.arange(score.shape[2])}
    about = {"length": length, "n_rows": n_rows, "seed": seed}
    return xr.Dataset(variables, coords, provenance(done, "head_scores", **about))


def _check_fits(model: HookedGptOss, length: int, n_rows: int, kept: list[str]) -> None:
    """Before the tokens are drawn: of a text that is far too long, they alone would not fit."""
    try:
        check_memory(model, (n_rows, 2 * length), kept)
    except NotEnoughMemory as error:
        error.args = (
            f"length={length}, n_rows={n_rows}: the patterns of {n_rows:,} × {2 * length:,} tokens need "
            f"{readable(error.needed)}, and {readable(error.free)} are free; give a shorter length or fewer rows",
        )
        raise


def _said_twice(model: HookedGptOss, length: int, n_rows: int, seed: int) -> Int[Tensor, "batch pos"]:
    special = set() if model.tokenizer is None else set(model.tokenizer.special.values())
    last = model.config.d_vocab if model.tokenizer is None else model.tokenizer.vocab_size
    ordinary = torch.tensor([i for i in range(last) if i not in special])
    generator = torch.Generator().manual_seed(seed)
    once = ordinary[torch.randint(len(ordinary), (n_rows, length), generator=generator)]
    return torch.cat((once, once), dim=1)


def _scores(
    done, layer: int, length: int
) -> tuple[Float[Tensor, "kind head"], Float[Tensor, "kind head"], Float[Tensor, " head"]]:
    pattern = done[f"blocks.{layer}.attn.hook_pattern"].float()
    sink = done[f"blocks.{layer}.attn.hook_sink"].float().transpose(1, 2)
    left = 1 - sink[..., None]
    # Where the sink has everything there is no attention to share out: that query says nothing, so it is left out.
    shared = (pattern / left).masked_fill(left < 1e-6, float("nan"))
    window = done.model.config.window(layer)
    offsets = [(1, 1), (length, length), (length - 1, length)]  # how far back, from which query on
    score = torch.stack([_at_offset(pattern, *offset, window) for offset in offsets])
    without_sink = torch.stack([_at_offset(shared, *offset, window) for offset in offsets])
    return score, without_sink, sink.mean((0, 2))


def _at_offset(
    pattern: Float[Tensor, "batch head query_pos key_pos"], offset: int, first_query: int, window: int | None
) -> Float[Tensor, " head"]:
    if window is not None and offset >= window:
        return torch.full(pattern.shape[1:2], float("nan"), device=pattern.device)
    diagonal = pattern.diagonal(-offset, dim1=-2, dim2=-1)  # element i is the query i + offset
    return diagonal[..., first_query - offset :].nanmean((0, 2))


def head_matches(run: Run, row: int = 0, layers: Sequence[int] | None = None) -> xr.Dataset:
    """What share of each head's attention lies where a head of each kind would put it, on any text.

    For a text of its own, where :func:`head_scores` has random tokens said twice: a previous-token head looks at the
    token before, a duplicate-token head at earlier copies of the same token, an induction head at what followed them.

    Args:
        layers: only these, of which alone the run need have kept the patterns and the sinks.

    Returns:
        share (kind, layer, head), of all attention that goes to keys, over all queries: TransformerLens' head_detector
        with its "mul" measure. mean (kind, layer, head), the attention that a query with such a place gives to it, the
        sink's part counted as lost, averaged over those queries, and mean_without_sink, of what the sink leaves; NaN
        where no query has one in its window. sink (layer, head), the mean attention left on the sink. queries (kind,
        layer), how many queries have such a place.

    Raises:
        ValueError: for a row or a layer that is not there.
        KeyError: if the run did not keep the patterns and the sinks.

    >>> experiments.head_matches(run)["kind"].values.tolist()
    ['previous_token', 'duplicate_token', 'induction']
    """
    columns, config = real_columns(run, row), run.model.config
    places = torch.stack(list(_places(run.tokens[row, columns])))
    wanted = list(range(config.n_layers) if layers is None else layers)
    if not wanted:
        raise ValueError("layers=[]: expected at least one layer, or None for all")
    for layer in wanted:
        check_index("layer", layer, config.n_layers)
    rows = [_matches(run, row, columns, layer, places) for layer in wanted]
    share, mean, without_sink, sink, queries = (
        np.stack([numpy(part) for part in parts], axis=axis)
        for parts, axis in zip(zip(*rows, strict=True), _AXES, strict=True)
    )
    dims = ("kind", "layer", "head")
    variables = {
        "share": (dims, share, quantity("share of the attention to keys that lies there")),
        "mean": (dims, mean, quantity("mean attention of a query to its places")),
        "mean_without_sink": (dims, without_sink, quantity("the same, of what the sink leaves")),
        "sink": (dims[1:], sink, quantity("mean attention left on the sink")),
        "queries": (dims[:2], queries, quantity("queries that have such a place", "queries")),
    }
    coords = {"kind": list(KINDS), "layer": wanted, "head": np.arange(config.n_heads)}
    return xr.Dataset(variables, coords, provenance(run, "head_matches", row))


_AXES = (1, 1, 1, 0, 1)


def _places(tokens: Int[Tensor, " pos"]) -> Iterator[Bool[Tensor, "query_pos key_pos"]]:
    """For each kind, where its heads look."""
    n = len(tokens)
    back = torch.arange(n, device=tokens.device)[:, None] - torch.arange(n, device=tokens.device)
    same = (tokens[:, None] == tokens) & (back > 0)
    after = torch.zeros_like(same)
    after[:, 1:] = same[:, :-1]
    yield from (back == 1, same, after)


def _matches(
    run: Run, row: int, columns: Int[Tensor, " pos"], layer: int, places: Bool[Tensor, "kind query_pos key_pos"]
) -> tuple[Tensor, ...]:
    pattern = run[f"blocks.{layer}.attn.hook_pattern"][row]
    if len(columns) < pattern.shape[-1]:
        pattern = pattern[:, columns][:, :, columns]
    pattern = pattern.float()
    sink = run[f"blocks.{layer}.attn.hook_sink"][row, columns].float().T
    window, n = run.model.config.window(layer), len(columns)
    back = torch.arange(n, device=pattern.device)[:, None] - torch.arange(n, device=pattern.device)
    places = places & (back < (window or n))
    there = torch.stack([_within(pattern, place) for place in places])  # kind head query_pos
    left = 1 - sink
    has = places.any(-1)[:, None].expand_as(there)
    shared = (there / left).masked_fill((left < 1e-6) | ~has, float("nan"))
    mean = there.masked_fill(~has, float("nan")).nanmean(-1)
    share = there.sum(-1) / pattern.sum((-2, -1))
    return share, mean, shared.nanmean(-1), sink.mean(-1), places.any(-1).sum(-1)


def _within(
    pattern: Float[Tensor, "head query_pos key_pos"], place: Bool[Tensor, "query_pos key_pos"]
) -> Float[Tensor, "head query_pos"]:
    """What of each query's attention lies there. One head at a time: of a long text the product of all is large."""
    weight = place.to(pattern.dtype)
    return torch.stack([(head * weight).sum(-1) for head in pattern])
