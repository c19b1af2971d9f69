"""The cells of a patching grid and how they are run: few passes for many patches.

A patch at a layer and a position changes the stream from there on, and nothing else. So every patch is a stream that
enters some layer, changed at one position; patches at neighbouring positions run as one batch, which each joins at the
layer that its stream enters.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.model import HookedGptOss, Recording

# What a position writes into its own stream alone: everything but what attention moves between positions.
SITES = ("resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post")
# A pass through a layer costs about what this many tokens cost, beside its tokens: the weights are read once.
PASS = 64
# Most tokens that are computed at once, where one patch does not need more.
MOST = 4096
# The same where someone watches, and may cancel: about one forward pass.
WATCHED = 256


@dataclass(frozen=True, eq=False)
class Cell:
    """One patch: its index in the table, and the value that it leaves in the stream that enters a layer."""

    index: tuple[int, int, int]
    layer: int
    column: int
    value: Float[Tensor, " d_model"]


def all_cells(
    model: HookedGptOss,
    recording: Recording,
    values: Mapping[tuple[str, int], Float[Tensor, "pos d_model"]],
    columns: Mapping[int, int],
) -> list[Cell]:
    """Every patch, as the stream that it leaves at its position: of resid_pre in its own layer, else in the next.

    Args:
        recording: of the corrupted text.
        values: (site, layer) → the clean activations.
        columns: index of a position in the table → its column in the recording.
    """
    sites, layers = list(dict.fromkeys(site for site, _ in values)), dict.fromkeys(layer for _, layer in values)
    made = []
    for j, layer in enumerate(layers):
        inner = [site for site in sites if site not in ("resid_pre", "resid_post")]
        left = _left_by(model, recording, layer, [(site, values[site, layer]) for site in inner]) if inner else []
        streams = {site: values[site, layer] for site in sites} | dict(zip(inner, left, strict=True))
        for i, site in enumerate(sites):
            enters = layer if site == "resid_pre" else layer + 1
            made += [Cell((i, j, k), enters, column, streams[site][column]) for k, column in columns.items()]
    return made


def _left_by(
    model: HookedGptOss, recording: Recording, layer: int, patches: list[tuple[str, Float[Tensor, "pos d_model"]]]
) -> Float[Tensor, "patch pos d_model"]:
    """The stream that the layer leaves with each site patched, a row a site.

    After its attention a layer does the same to every position apart, so one row with a site patched at all of them
    says what it leaves at each of them patched alone.
    """

    def put(row: int, value: Tensor) -> Callable:
        def hook(x: Float[Tensor, "batch pos d_model"], hook: object) -> Tensor:
            return torch.cat((x[:row], value[None].to(x), x[row + 1 :]))

        return hook

    hooks = [(f"blocks.{layer}.hook_{site}", put(row, value)) for row, (site, value) in enumerate(patches)]
    return model.resume(recording, layer, rows=len(patches), fwd_hooks=hooks, stop_at_layer=layer + 1)


def head_cells(
    model: HookedGptOss,
    recording: Recording,
    layers: Sequence[int],
    values: Mapping[tuple[int, str], Tensor],
    columns: Mapping[int, int],
) -> list[Cell]:
    """A cell for each head and position: the stream that the layer leaves there with the head's clean z.

    Args:
        values: (layer, "z") → clean z [pos head d_head].
    """
    made, n_heads = [], model.config.n_heads
    for i, layer in enumerate(layers):
        clean = values[layer, "z"]

        def put(z: Float[Tensor, "head pos head d_head"], hook: object, clean: Tensor = clean) -> Tensor:
            own = torch.eye(n_heads, dtype=torch.bool, device=z.device)[:, None, :, None]
            return torch.where(own, clean[None].to(z), z)

        hooks = [(f"blocks.{layer}.attn.hook_z", put)]
        left = model.resume(recording, layer, rows=n_heads, fwd_hooks=hooks, stop_at_layer=layer + 1)
        made += [
            Cell((i, head, k), layer + 1, column, left[head, column])
            for head in range(n_heads)
            for k, column in columns.items()
        ]
    return made


def expert_cells(
    model: HookedGptOss,
    recording: Recording,
    layers: Sequence[int],
    values: Mapping[tuple[int, str], Tensor],
    columns: Mapping[int, int],
) -> list[Cell]:
    """A cell for each position and each expert that either run chose there: the stream that the layer leaves with what
    the expert wrote in the clean run in the place of what it writes.

    Args:
        values: (layer, "expert_indices" | "expert_weights" | "expert_out") → the clean [pos slot …].
    """
    made = []
    for i, layer in enumerate(layers):
        clean = [values[layer, kind] for kind in ("expert_indices", "expert_weights", "expert_out")]
        here, left = experts_of(model, recording, layer)
        for k, column in columns.items():
            wrote = [_by_expert(*(part[column] for part in run)) for run in (clean, here)]
            for expert in sorted(wrote[0].keys() | wrote[1].keys()):
                now, then = (each.get(expert, torch.zeros_like(left[column])) for each in wrote)
                made.append(Cell((i, expert, k), layer + 1, column, left[column] + (now.to(left) - then.to(left))))
    return made


def experts_of(model: HookedGptOss, recording: Recording, layer: int) -> tuple[list[Tensor], Tensor]:
    """(indices, weights, outputs) [pos slot …] of one layer as recorded, and the stream [pos d_model] after it."""
    seen: list[Tensor] = []
    hooks = [
        (f"blocks.{layer}.mlp.hook_expert_{kind}", lambda x, hook: seen.append(x[0].clone()))
        for kind in ("indices", "weights", "out")
    ]
    left = model.resume(recording, layer, fwd_hooks=hooks, stop_at_layer=layer + 1)
    return seen, left[0]


def _by_expert(
    indices: Int[Tensor, " slot"], weights: Float[Tensor, " slot"], out: Float[Tensor, "slot d_model"]
) -> dict[int, Float[Tensor, " d_model"]]:
    return dict(zip(indices.tolist(), weights[:, None] * out, strict=True))


def passes(cells: Iterable[Cell], length: int, n_layers: int, tokens: int | None = None) -> Iterator[list[Cell]]:
    """Cells that are run together, in the order of the layers that they enter; at most so many tokens at once (None:
    MOST), where one patch does not need more."""
    at = defaultdict(list)
    for cell in cells:
        at[cell.column].append(cell)
    columns = sorted(at)
    # The last layer is computed at the last position alone, so it hardly counts.
    weights = tuple(sum(max(0, n_layers - 1 - cell.layer) for cell in at[column]) for column in columns)
    for start, end in _spans(tuple(columns), weights, length, n_layers):
        together = sorted((c for column in columns[start:end] for c in at[column]), key=lambda cell: cell.layer)
        most = max(1, (tokens or MOST) // (length - columns[start]))
        yield from (together[i : i + most] for i in range(0, len(together), most))


@lru_cache(256)
def _spans(columns: tuple[int, ...], weights: tuple[int, ...], length: int, n_layers: int) -> list[tuple[int, int]]:
    """Neighbouring columns to run together, as (start, end) among the columns, at the least cost.

    All rows that run together start at the first one's column: long spans compute more tokens in vain, short ones read
    the weights more often. ``weights`` counts the layers that a column's cells go through.
    """
    best = [(0.0, 0)]  # for the first n columns: the cost, and where the last span starts
    for end in range(1, len(columns) + 1):
        costs, layers = [], 0
        for start in range(end - 1, -1, -1):
            layers += weights[start]
            tokens = layers * (length - columns[start])
            costs.append((best[start][0] + PASS * n_layers + tokens, start))
            if tokens > MOST * n_layers:  # a longer span would be cut up again
                break
        best.append(min(costs))
    spans, end = [], len(columns)
    while end:
        spans.append((best[end][1], end))
        end = best[end][1]
    return spans[::-1]


def patched_logits(model: HookedGptOss, recording: Recording, cells: list[Cell]) -> Float[Tensor, "cell d_vocab"]:
    """The last position's logits of each patched run. Runs join the batch at the layer that their patch enters."""
    first, n_layers = min(cell.column for cell in cells), model.config.n_layers
    start = min(cells[0].layer, n_layers - 1)
    stream = _entering(recording, cells, start, first)
    for layer in range(start, n_layers - 1):
        stream = model.resume(recording, layer, first, stream=stream, stop_at_layer=layer + 1)
        stream = torch.cat((stream, _entering(recording, cells, layer + 1, first)))
    ends = [(n_layers - 1, stream), (n_layers, _entering(recording, cells, n_layers, first))]
    logits = [
        model.resume(recording, layer, first, stream=rows, logits_at="last")[:, 0] for layer, rows in ends if len(rows)
    ]
    return torch.cat(logits)


def _entering(recording: Recording, cells: list[Cell], layer: int, first: int) -> Float[Tensor, "cell pos d_model"]:
    """The streams, from a column on, of the cells that enter at a layer."""
    joining = [cell for cell in cells if cell.layer == layer]
    rows = recording.streams[layer][:, first:].repeat(len(joining), 1, 1)
    for row, cell in zip(rows, joining, strict=True):
        row[cell.column - first] = cell.value
    return rows
