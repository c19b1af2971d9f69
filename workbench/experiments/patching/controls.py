"""The noise floor of a patching grid: what patches do that move the stream as far, and mean nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from workbench.activations import Run
from workbench.experiments.metrics import Metric
from workbench.experiments.patching.cells import SITES, WATCHED, Cell, all_cells, passes, patched_logits
from workbench.experiments.patching.grid import component_cells, component_sites
from workbench.experiments.patching.joint import Left
from workbench.experiments.patching.setting import Setting, chosen_layers, set_up
from workbench.experiments.rows import is_whole, numpy, provenance, quantity
from workbench.experiments.watch import Cancel, asked_to_stop
from workbench.model import HookedGptOss
from workbench.model.interrupts import without_gradients

SHARE = 0.95  # of the controls are at most the floor
PARTS = (*SITES, "head", "expert")
Item = TypeVar("Item")


@without_gradients
def patching_controls(
    model: HookedGptOss,
    clean: Run | Any,
    corrupted: Run | Any,
    metric: Metric,
    part: str = "resid_pre",
    layers: Sequence[int] | None = None,
    positions: Sequence[int] | None = None,
    *,
    together: bool = False,
    n: int = 40,
    seed: int = 0,
    row: int = 0,
    logits_at: int | None = None,
    cancel: Cancel = None,
) -> xr.Dataset:
    """Random controls of a patching grid, and the noise floor that they make.

    Each control takes one cell of the grid, drawn at random from those that move the stream at all. Where its patch
    changes the stream that leaves the site's layer by a vector, the control adds a random one of the same length, at
    the same position (or positions).

    Args:
        clean, corrupted, metric, layers, positions, row, logits_at: as in ``patching_grid``.
        part: one of ``patching_grid``'s sites, or "head" or "expert".
        together: of heads and experts: at all positions together, as in ``joint_patching``.
        n: how many controls; of the 40, two are larger than the floor.
        seed: of the draw.
        cancel: an Event, or a function that gives true, to stop before the next pass; the rest are left out.

    Returns:
        metric (control); recovered (control), (metric − corrupted) / (clean − corrupted); floor, the 0.95 quantile of
        |recovered|: an effect that is no larger says nothing of what was patched; clean, corrupted; layer (control).
        Without any cell that moves the stream there are no controls, and the floor is 0.

    Raises:
        ValueError, KeyError: as ``patching_grid``.
    """
    if part not in PARTS or (together and part in SITES) or not is_whole(n) or n < 1:
        raise ValueError(f"part={part!r}, together={together}, n={n}: expected one of {PARTS}, together only of the "
                         "last two, and at least 1 control")  # fmt: skip
    layers, draw = chosen_layers(model, layers), np.random.default_rng(seed)
    setting = set_up(
        model, clean, corrupted, metric, _sites(part, layers), layers, positions, "denoising", row, logits_at
    )
    make = _joint if together else _single
    found = list(make(setting, part, layers, n, draw, cancel)) if setting.columns else []
    return _dataset(setting, part, found, seed)


def _sites(part: str, layers: Sequence[int]) -> list[str]:
    if part == "head" or part == "expert":
        return component_sites(part, layers)
    return [f"blocks.{layer}.hook_{part}" for layer in layers]


def _single(
    setting: Setting, part: str, layers: list[int], n: int, draw: np.random.Generator, cancel: Cancel
) -> Iterator[tuple[int, float]]:
    """(layer, metric) of each control at one position."""
    cells, recording, made = _cells(setting, part, layers), setting.recording, []
    for cell in _moving(cells, setting, n, draw):
        plain = recording.streams[cell.layer][0, cell.column]
        made.append(Cell(cell.index, cell.layer, cell.column, plain + random_like(cell.value - plain, draw)))
    length = setting.text.tokens.shape[1]
    for some in _until(cancel, passes(made, length, setting.model.config.n_layers, max(WATCHED, length))):
        values = numpy(setting.measure(patched_logits(setting.model, recording, some)))
        at = 1 if part in SITES else 0  # of the layer in a cell's index
        yield from zip((layers[cell.index[at]] for cell in some), values.tolist(), strict=True)


def _moving(cells: list[Cell], setting: Setting, n: int, draw: np.random.Generator) -> list[Cell]:
    """n cells that move the stream; some several times where there are fewer."""
    found: list[Cell] = []
    for i in draw.permutation(len(cells)):
        if not torch.equal(cells[i].value, setting.recording.streams[cells[i].layer][0, cells[i].column]):
            found.append(cells[i])
        if len(found) == n:
            return found
    return [found[i % len(found)] for i in range(n)] if found else []


def _until(cancel: Cancel, items: Iterable[Item]) -> Iterator[Item]:
    """Items until someone cancels."""
    for item in items:
        if asked_to_stop(cancel):
            return
        yield item


def _cells(setting: Setting, part: str, layers: list[int]) -> list[Cell]:
    if part == "head" or part == "expert":
        return component_cells(setting, part, layers)
    values = {(part, layer): setting.clean_values(f"blocks.{layer}.hook_{part}") for layer in layers}
    return all_cells(setting.model, setting.recording, values, setting.columns)


def _joint(
    setting: Setting, part: Any, layers: list[int], n: int, draw: np.random.Generator, cancel: Cancel
) -> Iterator[tuple[int, float]]:
    """(layer, metric) of each control at all positions."""
    left = Left(setting, part)
    cells = [(layer, each) for layer in layers for each in sorted(left.able(layer))]
    chosen = sorted(map(int, draw.choice(len(cells), n, replace=n > len(cells)))) if cells else []
    for i in _until(cancel, chosen):
        layer, each = cells[i]
        plain, moved = left.plain(layer), left.streams(layer, [each])[0]
        yield layer, float(left.score(layer, (plain + random_like(moved - plain, draw))[None])[0])


def random_like(change: Float[Tensor, "*pos d_model"], draw: np.random.Generator) -> Float[Tensor, "*pos d_model"]:
    """A vector of each one's length, in a random direction."""
    direction = torch.from_numpy(draw.normal(size=tuple(change.shape))).to(change.device)
    lengths = change.double().norm(dim=-1, keepdim=True)
    return (lengths * direction / direction.norm(dim=-1, keepdim=True)).to(change)


def _dataset(setting: Setting, part: str, found: list[tuple[int, float]], seed: int) -> xr.Dataset:
    clean, corrupted = setting.ends
    metric = np.array([value for _, value in found], dtype=float)
    recovered = (metric - corrupted) / (clean - corrupted or float("nan"))
    floor = float(np.quantile(np.abs(recovered), SHARE)) if len(found) else 0.0
    variables = {
        "metric": ("control", metric, quantity(setting.said)),
        "recovered": ("control", recovered, quantity("share of the clean metric that a random patch brings back")),
        "floor": ((), floor, quantity(f"the {SHARE} quantile of |recovered|")),
        "clean": ((), clean, quantity(f"{setting.said}, clean run")),
        "corrupted": ((), corrupted, quantity(f"{setting.said}, corrupted run")),
    }
    coords = {
        "control": np.arange(len(found)),
        "layer": ("control", np.array([layer for layer, _ in found], dtype=int)),
    }
    attrs = provenance(setting.good, "patching_controls", setting.row, part=part, metric=setting.said, seed=seed)
    return xr.Dataset(variables, coords, attrs)
