"""Heads and experts patched at all positions together: one number for each of them, where a grid has one a position."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, get_args

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from workbench.activations import Run
from workbench.experiments.metrics import Metric
from workbench.experiments.patching.cells import MOST, WATCHED, experts_of
from workbench.experiments.patching.grid import Component, component_sites
from workbench.experiments.patching.setting import Setting, chosen_layers, set_up, sizes
from workbench.experiments.rows import numpy, provenance, quantity
from workbench.experiments.watch import Cancel, Watch
from workbench.model import HookedGptOss
from workbench.model.interrupts import without_gradients
from workbench.sweeps import Cell, Grid


@without_gradients
def joint_patching(
    model: HookedGptOss,
    clean: Run | Any,
    corrupted: Run | Any,
    metric: Metric,
    component: Component = "head",
    layers: Sequence[int] | None = None,
    positions: Sequence[int] | None = None,
    *,
    row: int = 0,
    logits_at: int | None = None,
    progress: bool = True,
    cancel: Cancel = None,
    on_result: Callable[[Cell, float], None] | None = None,
    resume: xr.Dataset | None = None,
    order: xr.DataArray | None = None,
) -> xr.Dataset:
    """Put what one head, or one expert, wrote in the clean run into the corrupted one, at all positions together.

    Arguments as in :func:`~workbench.experiments.patching.grid.component_patching`.

    Args:
        positions: those that are patched together; None for all.

    Returns:
        metric, of the patched runs; recovered, (metric − corrupted) / (clean − corrupted), both (layer, head or
        expert); clean and corrupted, the two runs' own.

    Raises:
        ValueError, KeyError: as :func:`~workbench.experiments.patching.grid.patching_grid`.
    """
    if component not in get_args(Component):
        raise ValueError(f"component={component!r}: expected one of {get_args(Component)}")
    layers = chosen_layers(model, layers)
    names = component_sites(component, layers)
    setting = set_up(model, clean, corrupted, metric, names, layers, positions, "denoising", row, logits_at)
    left = Left(setting, component)
    most = left.most if order is None else max(1, WATCHED // left.length)
    n = model.config.n_heads if component == "head" else model.config.n_experts
    axes = {"layer": layers, component: list(range(n))}
    able = {layer: left.able(layer) for layer in layers}
    grid = Grid(axes).where(lambda cell: cell[component] in able[cell["layer"]])
    table = np.full(grid.shape, setting.ends[1])
    for cell in grid:
        table[cell.index] = np.nan

    def measure(cells: list[Cell]) -> np.ndarray:
        layer = cells[0]["layer"]
        return left.score(layer, left.streams(layer, [cell[component] for cell in cells]))

    def batches(cells: Iterable[Cell]) -> Iterator[list[Cell]]:
        return of_one_layer(cells, sizes(order, grid), most)

    watch = Watch(progress, cancel, on_result, resume)
    for cell, value in watch.through(measure, grid, batches, setting.finished_before(resume, grid)):
        table[cell.index] = value
    return _dataset(setting, component, table, axes)


class Left:
    """The streams that a layer leaves with a head, or an expert, patched at all positions.

    Attributes:
        first: the first column at which a patch can do anything; what follows holds the columns from it on.
        most: how many streams are run together.
    """

    def __init__(self, setting: Setting, component: Component) -> None:
        self.setting, self.component, self.length = setting, component, setting.text.tokens.shape[1]
        self.columns = sorted(setting.columns.values())
        self.first = self.columns[0] if self.columns else self.length - 1
        self.most = max(1, MOST // (self.length - self.first))
        self._changes: tuple[int, Callable[[int], Tensor]] | None = None

    def able(self, layer: int) -> set[int]:
        """The heads, or experts, whose patch can do anything: of experts those that either run chose somewhere."""
        if not self.columns:
            return set()
        if self.component == "head":
            return set(range(self.setting.model.config.n_heads))
        clean = self.setting.clean_values(f"blocks.{layer}.mlp.hook_expert_indices")
        here, _ = experts_of(self.setting.model, self.setting.recording, layer)
        return {int(i) for chosen in (clean, here[0]) for i in chosen[self.columns].unique()}

    def streams(self, layer: int, which: Sequence[int]) -> Float[Tensor, "which rest d_model"]:
        """A stream for each of these heads or experts."""
        return self._with_heads(layer, which) if self.component == "head" else self._with_experts(layer, which)

    def plain(self, layer: int) -> Float[Tensor, "rest d_model"]:
        """The stream that the layer leaves unpatched."""
        return self.setting.recording.streams[layer + 1][0, self.first :]

    def score(self, layer: int, streams: Float[Tensor, "which rest d_model"]) -> np.ndarray:
        """The metric of the runs that go on from these streams."""
        model, recording = self.setting.model, self.setting.recording
        logits = model.resume(recording, layer + 1, self.first, stream=streams, logits_at="last")[:, 0]
        return numpy(self.setting.measure(logits))

    def _with_heads(self, layer: int, which: Sequence[int]) -> Tensor:
        clean = self.setting.clean_values(f"blocks.{layer}.attn.hook_z")[self.first :]
        own = torch.zeros(len(which), *clean.shape[:2], 1, dtype=torch.bool, device=clean.device)
        for i, head in enumerate(which):
            own[i, [column - self.first for column in self.columns], head] = True

        def put(z: Float[Tensor, "which rest head d_head"], hook: object) -> Tensor:
            return torch.where(own.to(z.device), clean[None].to(z), z)

        model, hooks = self.setting.model, [(f"blocks.{layer}.attn.hook_z", put)]
        return model.resume(
            self.setting.recording, layer, self.first, len(which), fwd_hooks=hooks, stop_at_layer=layer + 1
        )

    def _with_experts(self, layer: int, which: Sequence[int]) -> Tensor:
        if self._changes is None or self._changes[0] != layer:
            self._changes = (layer, self._expert_changes(layer))
        plain = self.plain(layer)
        changed = plain.repeat(len(which), 1, 1)
        at = [column - self.first for column in self.columns]
        for stream, expert in zip(changed, which, strict=True):
            stream[at] += self._changes[1](expert).to(plain)
        return changed

    def _expert_changes(self, layer: int) -> Callable[[int], Float[Tensor, "column d_model"]]:
        kinds = ("indices", "weights", "out")
        clean = [self.setting.clean_values(f"blocks.{layer}.mlp.hook_expert_{kind}")[self.columns] for kind in kinds]
        here = [part[self.columns] for part in experts_of(self.setting.model, self.setting.recording, layer)[0]]

        def wrote(parts: list[Tensor], expert: int) -> Tensor:
            indices, weights, out = parts
            return ((weights * (indices == expert))[..., None] * out).sum(1)

        return lambda expert: wrote(clean, expert).to(here[2]) - wrote(here, expert)


def of_one_layer(cells: Iterable[Cell], ranks: np.ndarray | None, most: int) -> Iterator[list[Cell]]:
    """Cells in the order of their ranks, as many of one layer together as go."""
    left = list(cells)
    if ranks is not None:
        left.sort(key=lambda cell: -ranks[cell.index])
    while left:
        together = [cell for cell in left if cell["layer"] == left[0]["layer"]][:most]
        yield together
        gone = {cell.index for cell in together}
        left = [cell for cell in left if cell.index not in gone]


def _dataset(setting: Setting, component: Component, table: np.ndarray, axes: dict[str, list]) -> xr.Dataset:
    dims, (clean, corrupted) = ("layer", component), setting.ends
    span = clean - corrupted or float("nan")
    meaning = "share of the clean metric that the patch at all positions brings back"
    variables = {
        "metric": (dims, table, quantity(setting.said)),
        "recovered": (dims, (table - corrupted) / span, quantity(meaning)),
        "clean": ((), clean, quantity(f"{setting.said}, clean run")),
        "corrupted": ((), corrupted, quantity(f"{setting.said}, corrupted run")),
    }
    about = {"metric": setting.said, "corrupted_run": setting.text.name, "cells_left": int(np.isnan(table).sum())}
    about["positions"] = setting.positions
    attrs = provenance(setting.good, "joint_patching", setting.row, direction="denoising", **about)
    return xr.Dataset(variables, axes, attrs)
