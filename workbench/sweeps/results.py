"""What a sweep has found so far, cell by cell, and as a labelled dataset."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from workbench.sweeps.grid import Cell, Grid

Value = dict[str, Any]  # name → a number, or a DataArray for what has axes of its own
MEASURED = "measured"


@dataclass(frozen=True)
class Failure:
    """A cell that was measured alone and raised."""

    cell: Cell
    error: Exception

    def __str__(self) -> str:
        return f"{self.cell}: {type(self.error).__name__}: {self.error}"


class Interrupted(KeyboardInterrupt):
    """A sweep stopped by Ctrl-C or the notebook's stop button; ``results`` has every batch that was finished."""

    def __init__(self, results: Results) -> None:
        self.results = results
        super().__init__(
            f"{results.done} of {len(results.grid)} cells are done and kept in this error's .results (in a notebook, "
            "sys.last_value.results); give them to sweep(…, results=…) to go on"
        )


class Results:
    """The finished cells of a grid. A sweep fills it as it goes, so it can be read while one runs.

    Attributes:
        failures: place in the grid → the cell that raised, and its error. A later sweep tries it again.
        cancelled: whether the last sweep was cancelled before its end.
    """

    def __init__(self, grid: Grid) -> None:
        self.grid = grid
        self.failures: dict[tuple[int, ...], Failure] = {}
        self.cancelled = False
        self._values: dict[tuple[int, ...], Value] = {}

    @property
    def done(self) -> int:
        """How many cells of the grid have a value."""
        return sum(Cell(self.grid.axes, index) in self.grid for index in list(self._values))

    @property
    def left(self) -> int:
        """How many have none yet; failed ones are among them."""
        return len(self.grid) - self.done

    def __contains__(self, cell: object) -> bool:
        return isinstance(cell, Cell) and cell.index in self._values

    def __getitem__(self, cell: Cell) -> Any:
        """A cell's value, as it was measured.

        Raises:
            KeyError: if it is not done; with its error, if it failed.
        """
        if cell.index in self._values:
            return _plain(self._values[cell.index])
        if cell.index in self.failures:
            raise KeyError(f"{self.failures[cell.index]}") from self.failures[cell.index].error
        raise KeyError(f"{cell} is not measured yet: {self.left} of {len(self.grid)} cells are left")

    def __iter__(self) -> Iterator[tuple[Cell, Any]]:
        """(cell, value) of the finished ones, in the order of the grid."""
        axes = self.grid.axes
        return ((Cell(axes, index), _plain(self._values[index])) for index in sorted(self._values))

    def unfinished(self) -> Iterator[Cell]:
        """The cells that have no value yet, in the order of the grid."""
        return (cell for cell in self.grid if cell.index not in self._values)

    def record(self, cells: Sequence[Cell], values: Any) -> None:
        """Keep what a measure gave for a batch: all of it or, if it does not fit, none.

        Raises:
            ValueError: for another number of values than cells, or values that are no numbers.
        """
        values = values.tolist() if hasattr(values, "tolist") else list(values)
        if len(values) != len(cells):
            raise ValueError(f"the measure gave {len(values)} values for {len(cells)} cells: expected one for each")
        checked = [_checked(cell, value) for cell, value in zip(cells, values, strict=True)]
        for cell, value in zip(cells, checked, strict=True):
            self._values[cell.index] = value
            self.failures.pop(cell.index, None)

    def value(self, cell: Cell) -> Value:
        """A finished cell's quantities by name."""
        return self._values[cell.index]

    def restore(self, cell: Cell, value: Value) -> None:
        """Put back what ``value`` gave in an earlier sweep."""
        self._values[cell.index] = value

    def fail(self, cell: Cell, error: Exception) -> None:
        """Keep the error of a cell that was measured alone."""
        self.failures[cell.index] = Failure(cell, error)

    def to_xarray(self) -> xr.Dataset:
        """A variable for each quantity, over the grid's axes (and then its own); NaN where a cell is not done.

        ``value`` is the one of a measure that gives plain numbers. ``measured`` is true for finished cells.
        """
        dims, shape = tuple(self.grid.axes), self.grid.shape
        found: dict[str, xr.DataArray] = {}
        measured = np.zeros(shape, dtype=bool)
        for index, value in list(self._values.items()):  # a sweep in another thread may add to them
            measured[index] = True
            for name, part in value.items():
                if name not in found:
                    found[name] = _room(part, dims, shape)
                found[name].values[index] = _fitting(name, part, found[name], len(dims))
        coords = dict(self.grid.labels)
        attrs = {"cells": len(self.grid), "done": self.done, "failures": "; ".join(map(str, self.failures.values()))}
        made = xr.Dataset({MEASURED: (dims, measured)}, coords, attrs)
        return made.assign({name: array.assign_coords(coords) for name, array in found.items()})

    def __repr__(self) -> str:
        failed = f", {len(self.failures)} failed" if self.failures else ""
        return f"Results({self.grid!r}: {self.done} done, {self.left} left{failed})"


def _plain(value: Value) -> Any:
    return value["value"] if set(value) == {"value"} else value


def _checked(cell: Cell, value: Any) -> Value:
    parts = dict(value) if isinstance(value, Mapping) else {"value": value}
    if not parts or MEASURED in parts:
        raise ValueError(
            f"the measure gave quantities {list(parts)} for {cell}: expected at least one, none {MEASURED!r}"
        )
    return {str(name): _number(cell, name, part) for name, part in parts.items()}


def _number(cell: Cell, name: Any, part: Any) -> Any:
    if isinstance(part, xr.DataArray):
        clash = set(part.dims) & set(cell.axes)
        if clash:
            raise ValueError(f"{name!r} of {cell} has the grid's own axis {sorted(map(str, clash))}: rename it")
        return part
    part = part.item() if hasattr(part, "item") and getattr(part, "ndim", 0) == 0 else part
    if isinstance(part, bool | int | float):
        return part
    shape = f" of shape {tuple(part.shape)}" if hasattr(part, "shape") else ""
    raise ValueError(
        f"the measure gave a {type(part).__name__}{shape} as {name!r} of {cell}: expected a number, a DataArray for "
        "what has axes, or a dict of these"
    )


def _room(part: Any, dims: tuple[str, ...], shape: tuple[int, ...]) -> xr.DataArray:
    """NaN for every cell, in the axes of the grid and of the first value that was found."""
    if not isinstance(part, xr.DataArray):
        return xr.DataArray(np.full(shape, np.nan), dims=dims)
    values = np.full((*shape, *part.shape), np.nan)
    return xr.DataArray(values, dims=(*dims, *part.dims), coords=dict(part.coords), attrs=part.attrs)


def _fitting(name: str, part: Any, room: xr.DataArray, n_axes: int) -> Any:
    own = room.dims[n_axes:]
    if not isinstance(part, xr.DataArray):
        part = xr.DataArray(part)
    if part.dims != own or part.shape != room.shape[n_axes:]:
        expected = dict(zip(own, room.shape[n_axes:], strict=True))
        raise ValueError(
            f"{name!r} has axes {dict(part.sizes)} in one cell and {expected} in another: expected the same"
        )
    return part.values
