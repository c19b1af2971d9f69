"""What a patching grid stands on: two runs that belong together, checked, and how every cell is measured."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
import xarray as xr
from jaxtyping import Int
from torch import Tensor

from workbench import sweeps
from workbench.activations import Run, run
from workbench.experiments.metrics import Measure, Metric, as_metric
from workbench.experiments.patching.cells import WATCHED, Cell, passes, patched_logits
from workbench.experiments.rows import check_index, numpy, provenance, quantity, real_columns, token_coords
from workbench.experiments.watch import Watch
from workbench.model import HookedGptOss, Recording
from workbench.sweeps import Grid, Results

Direction = Literal["denoising", "noising"]
FIRST_GROUP, LARGEST_GROUP = 16, 256  # cells that are ordered among themselves as is cheapest


@dataclass(frozen=True, eq=False)
class Text:
    """The row that is patched (the corrupted one, but for noising) without its padding, up to the position whose logits
    are read, and where its tokens stand; the ``clean_`` ones are of the run that is taken from."""

    tokens: Int[Tensor, "1 pos"]
    clean_tokens: Int[Tensor, "1 pos"]
    columns: Int[Tensor, " pos"]
    clean_columns: Int[Tensor, " pos"]
    name: str


@dataclass(frozen=True, eq=False)
class Setting:
    """Two runs that belong together, of which one is patched from the other, and how both of them score.

    In the words here ``good`` is the one that is taken from: the clean one, but for noising.
    """

    model: HookedGptOss
    good: Run
    text: Text
    row: int
    measure: Measure
    said: str
    direction: Direction
    recording: Recording
    pos: list[int]
    ends: tuple[float, float]

    def clean_values(self, site: str) -> Tensor:
        """[pos …] of the run that is taken from."""
        return self.good[site][self.row, self.text.clean_columns]

    @property
    def columns(self) -> dict[int, int]:
        """Index of a position in the table → its column in the recording, where a patch can do anything."""
        # Before the first token that differs, one run is the other: what is put there is there already.
        first = _first_difference(self.model, self.good, self.text)
        return {k: column for k, column in enumerate(self.pos) if column >= first}

    @property
    def positions(self) -> str:
        """Those that are patched, in words."""
        return ", ".join(map(str, self.text.columns[self.pos].tolist()))

    def measured(
        self, axes: dict[str, list], cells: list[Cell], watch: Watch, order: xr.DataArray | None = None
    ) -> np.ndarray:
        """The metric of every cell: that of the run that is patched where no cell is, NaN where one was not reached.

        Args:
            order: on the same axes; cells of the largest |order| come first, and no more at once than about one forward
                pass of the text takes.
        """
        by_index: dict[tuple[int, ...], Cell] = {cell.index: cell for cell in cells}
        grid = Grid({**axes, "pos": self.text.columns[self.pos].tolist()}).where(lambda cell: cell.index in by_index)

        ranks = sizes(order, grid)

        def measure(some: list[sweeps.Cell]) -> np.ndarray:
            patches = [by_index[cell.index] for cell in some]
            return numpy(self.measure(patched_logits(self.model, self.recording, patches)))

        def batches(left: Iterable[sweeps.Cell]) -> Iterator[list[sweeps.Cell]]:
            length = self.text.tokens.shape[1]
            tokens = None if order is None else max(WATCHED, length)
            for group in groups(left, ranks):
                patches = [by_index[cell.index] for cell in group]
                for together in passes(patches, length, self.model.config.n_layers, tokens):
                    yield [sweeps.Cell(grid.axes, patch.index) for patch in together]

        table = np.full(grid.shape, self.ends[1])
        for index in by_index:
            table[index] = np.nan
        for cell, value in watch.through(measure, grid, batches, self.finished_before(watch.resume, grid)):
            table[cell.index] = value
        return table

    def finished_before(self, before: xr.Dataset | None, grid: Grid) -> Results:
        """The cells that an earlier grid of the same runs has."""
        results = Results(grid)
        if before is None:
            return results
        ours = {"metric": self.said, "direction": self.direction, "fingerprint": self.good.provenance["fingerprint"]}
        if "positions" in before.attrs:  # of a grid that has no axis for them
            ours["positions"] = self.positions
        other = {key: before.attrs.get(key) for key, value in ours.items() if before.attrs.get(key) != value}
        there = {str(name): before[name].values.tolist() for name in before.sizes}
        here = {name: list(labels) for name, labels in grid.axes.items()}
        ends = sorted(float(before[name]) for name in ("clean", "corrupted")) if "clean" in before else [np.nan, np.nan]
        if other or there != here or not np.allclose(ends, sorted(self.ends), rtol=1e-4, atol=1e-5):
            raise ValueError(
                f"resume= is the dataset of another grid (it has {other or there}, this one "
                f"{ {key: ours[key] for key in other} or here }, or the runs score otherwise): pass what this very "
                "call returned before, or leave it out"
            )
        metric = before.metric.transpose(*grid.axes).values
        done = [cell for cell in grid if np.isfinite(metric[cell.index])]
        results.record(done, [float(metric[cell.index]) for cell in done])
        return results

    def dataset(self, experiment: str, table: np.ndarray, axes: dict[str, list]) -> xr.Dataset:
        """The table with its names."""
        dims, (good, patched) = (*axes, "pos"), self.ends
        span = good - patched
        share = (table - patched) / span if span else np.full_like(table, np.nan)
        clean, corrupted = (good, patched) if self.direction == "denoising" else (patched, good)
        name, meaning = _SHARE[self.direction]
        variables = {
            "metric": (dims, table, quantity(self.said)),
            name: (dims, share, quantity(meaning)),
            "clean": ((), clean, quantity(f"{self.said}, clean run")),
            "corrupted": ((), corrupted, quantity(f"{self.said}, corrupted run")),
        }
        coords = _coords(self.good, self.text.tokens, self.text.columns, self.pos)
        theirs = _coords(self.good, self.text.clean_tokens, self.text.clean_columns, self.pos)
        other = "clean" if self.direction == "denoising" else "corrupted"
        coords |= {f"{other}_{name}": theirs[name] for name in ("token", "token_id")}
        runs = (self.good.name or "", self.text.name)
        clean_run, corrupted_run = runs if self.direction == "denoising" else runs[::-1]
        about: dict[str, Any] = {"metric": self.said, "corrupted_run": corrupted_run}
        about["logits_at"] = int(self.text.columns[-1])
        about["cells_left"] = int(np.isnan(table).sum())
        attrs = provenance(self.good, experiment, self.row, direction=self.direction, **about)
        return xr.Dataset(variables, coords | axes, attrs | {"run": clean_run})


def sizes(order: xr.DataArray | None, grid: Grid) -> np.ndarray | None:
    """|order| of each cell of a grid; 0 where it says nothing."""
    if order is None:
        return None
    if set(order.dims) != set(grid.axes):
        raise ValueError(f"order has axes {list(order.dims)}: expected those of the grid, {list(grid.axes)}")
    return np.nan_to_num(np.abs(order.reindex(grid.labels).transpose(*grid.axes).values))


def groups(cells: Iterable[sweeps.Cell], ranks: np.ndarray | None) -> Iterator[list[sweeps.Cell]]:
    """Cells in the order of their ranks, in groups that grow: the first must come soon, and many together cost less."""
    if ranks is None:
        yield list(cells)
        return
    left, size = sorted(cells, key=lambda cell: -ranks[cell.index]), FIRST_GROUP
    while left:
        yield left[:size]
        left, size = left[size:], min(2 * size, LARGEST_GROUP)


_SHARE = {
    "denoising": ("recovered", "share of the clean metric that the patch brings back"),
    "noising": ("lost", "share of the clean metric that the patch takes away"),
}


def set_up(
    model: HookedGptOss,
    clean: Run | Any,
    corrupted: Run | Any,
    metric: Metric,
    sites: list[str],
    layers: Sequence[int],
    positions: Sequence[int] | None,
    direction: Direction,
    row: int,
    logits_at: int | None,
) -> Setting:
    """Check everything, run what was not run yet, and record the run that is patched."""
    if direction not in get_args(Direction):
        raise ValueError(f"direction={direction!r}: expected one of {get_args(Direction)}")
    measure, said = as_metric(model, metric)
    taken, patched = (clean, corrupted) if direction == "denoising" else (corrupted, clean)
    names = ("clean", "corrupted") if direction == "denoising" else ("corrupted", "clean")
    good = _run_taken_from(model, taken, sites, names[0])
    text = _text(model, good, patched, row, logits_at, names)
    pos = _chosen_positions(text.columns, positions)
    # Without its padding and what comes after the logits that are read, the row is one whole text.
    recording = model.record(text.tokens, layers=range(min(layers), model.config.n_layers))
    last = model.resume(recording, model.config.n_layers, logits_at="last")[:, 0]
    ends = [good.logits[row, text.clean_columns[-1:]], last]
    before, after = (float(measure(logits)) for logits in ends)
    return Setting(model, good, text, row, measure, said, direction, recording, pos, (before, after))


def _run_taken_from(model: HookedGptOss, given: Run | Any, sites: list[str], name: str) -> Run:
    if not isinstance(given, Run):
        return run(model, given, sites=sites)
    if given.model is not model:
        raise ValueError(f"{name} is a run of another model, {given.model.config.name!r}; give its tokens to run here")
    return given


def _text(
    model: HookedGptOss, good: Run, patched: Run | Any, row: int, logits_at: int | None, names: tuple[str, str]
) -> Text:
    """``names``: what the caller calls the run that is taken from, and the one that is patched."""
    if isinstance(patched, Run):
        _check_unedited(model, patched, names[1])
        tokens, mask, name = patched.tokens, patched.attention_mask, patched.name or ""
    else:
        tokens, mask, name = *model.as_batch(patched), ""
    if not 0 <= row < len(tokens):
        raise ValueError(f"row={row}: {names[1]} has rows 0 to {len(tokens) - 1}")
    real = torch.ones_like(tokens[row]) if mask is None else mask[row]
    columns, clean_columns = real.nonzero()[:, 0], real_columns(good, row)
    if len(columns) != len(clean_columns):
        raise ValueError(
            f"{names[0]} has {len(clean_columns)} tokens and {names[1]} {len(columns)}: expected as many, so that each "
            "position has its counterpart"
        )
    if logits_at is not None:
        if logits_at not in columns.tolist():
            raise ValueError(f"logits_at={logits_at}: the {names[1]} row has positions {_span(columns)}")
        end = columns.tolist().index(logits_at) + 1
        columns, clean_columns = columns[:end], clean_columns[:end]
    return Text(tokens[row, columns][None], good.tokens[row, clean_columns][None], columns, clean_columns, name)


def _check_unedited(model: HookedGptOss, patched: Run, name: str) -> None:
    if patched.model is not model:
        raise ValueError(
            f"{name} is a run of another model, {patched.model.config.name!r}; give its tokens to run here"
        )
    if patched.interventions or patched.routing != "live":
        did = "; ".join(map(str, patched.interventions)) or f"routing={patched.routing!r}"
        raise ValueError(f"{name} was edited itself ({did}), and its cells would run without that; give it unedited")


def _first_difference(model: HookedGptOss, good: Run, text: Text) -> int:
    """The first position at which a patch can do anything."""
    if good.interventions or good.routing != "live" or model.list_hooks():
        return 0
    differs = (text.tokens[0] != text.clean_tokens[0]).nonzero()[:, 0]
    return int(differs[0]) if len(differs) else text.tokens.shape[1]


def chosen_layers(model: HookedGptOss, layers: Sequence[int] | None) -> list[int]:
    chosen = list(range(model.config.n_layers) if layers is None else layers)
    for layer in chosen:
        check_index("layer", layer, model.config.n_layers)
    return checked_list("layers", chosen)


def _chosen_positions(columns: Int[Tensor, " pos"], positions: Sequence[int] | None) -> list[int]:
    """Indices into columns."""
    there = columns.tolist()
    wrong = [position for position in positions or () if position not in there]
    if wrong:
        raise ValueError(f"positions={wrong}: expected some of {_span(columns)}")
    return checked_list("positions", [there.index(p) for p in (there if positions is None else positions)])


def checked_list(what: str, chosen: list) -> list:
    if not chosen or len(set(chosen)) < len(chosen):
        raise ValueError(f"{what}={chosen}: expected at least one, each once")
    return chosen


def _span(columns: Int[Tensor, " pos"]) -> str:
    return f"{int(columns[0])} to {int(columns[-1])}" if len(columns) else "none"


def _coords(good: Run, tokens: Int[Tensor, "1 pos"], columns: Int[Tensor, " pos"], pos: list[int]) -> dict:
    # Of the whole text first, because a token's role and channel come from those before it.
    coords = token_coords(tokens[0].tolist(), good.model.tokenizer, columns.tolist())
    return {name: ("pos", values[pos]) for name, (_, values) in coords.items()}
