"""What a sweep has found so far, cell by cell, and as a labelled dataset."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import xarray as xr

from workbench.sweeps.forms import Form
from workbench.sweeps.grid import Cell, Grid
from workbench.sweeps.journal import Place

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
        # Of a sweep with a journal, arrays stay there and are read when they are asked for.
        self._values: dict[tuple[int, ...], Value | Place] = {}

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
            return _plain(self.value(cell))
        if cell.index in self.failures:
            raise KeyError(f"{self.failures[cell.index]}") from self.failures[cell.index].error
        raise KeyError(f"{cell} is not measured yet: {self.left} of {len(self.grid)} cells are left")

    def __iter__(self) -> Iterator[tuple[Cell, Any]]:
        """(cell, value) of the finished ones, in the order of the grid."""
        axes = self.grid.axes
        return ((Cell(axes, index), _plain(self._value(index))) for index in sorted(self._values))

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
        return self._value(cell.index)

    def _value(self, index: tuple[int, ...]) -> Value:
        found = self._values[index]
        return found.read() if isinstance(found, Place) else found

    def restore(self, cell: Cell, value: Value, place: Place | None = None) -> None:
        """Put back what ``value`` gave in an earlier sweep, or only where it can be read."""
        self._values[cell.index] = value if place is None else place

    def fail(self, cell: Cell, error: Exception) -> None:
        """Keep the error of a cell that was measured alone."""
        self.failures[cell.index] = Failure(cell, error)

    def to_xarray(self) -> xr.Dataset:
        """A variable for each quantity, over the grid's axes (and then its own); NaN (of text, "") where a cell is not
        done.

        ``value`` is the one of a measure that gives plain numbers. ``measured`` is true for finished cells.

        Raises:
            MemoryError: for what does not fit in the memory that is free; ``to_zarr`` writes it to disk instead.
            ValueError: for a quantity whose axes differ from cell to cell.
        """
        forms: dict[str, Form] = {}
        found: dict[str, np.ndarray] = {}
        for index in list(self._values):  # a sweep in another thread may add to them
            for name, part in self._value(index).items():
                if name not in forms:
                    forms[name] = Form(name, part)
                    found[name] = _room(forms[name], self.grid.shape)
                found[name][index] = forms[name].fitting(part)
        made = self._frame()
        dims, coords = tuple(self.grid.axes), dict(self.grid.labels)
        for name, form in forms.items():
            own = {**form.coords, **coords}
            values = found[name].astype(str) if form.is_text else found[name]
            made[name] = xr.DataArray(values, own, (*dims, *form.dims), attrs=form.about())
        return made

    def _frame(self) -> xr.Dataset:
        """The dataset without its quantities."""
        measured = np.zeros(self.grid.shape, dtype=bool)
        for index in list(self._values):
            measured[index] = True
        attrs = {"cells": len(self.grid), "done": self.done, "failures": "; ".join(map(str, self.failures.values()))}
        return xr.Dataset({MEASURED: (tuple(self.grid.axes), measured)}, dict(self.grid.labels), attrs)

    def to_zarr(self, path: str | Path, *, overwrite: bool = False) -> xr.Dataset:
        """The dataset of ``to_xarray`` in a zarr folder, written a part at a time, however large it is.

        Args:
            path: of the folder; with a suffix, ".zarr" by custom.
            overwrite: put it in the place of one that is there.

        Returns:
            The dataset, opened from the folder: its numbers are read when they are used.

        Raises:
            FileExistsError: there is something at the path.
            ImportError: zarr is not installed.
            ValueError: for a quantity whose axes differ from cell to cell.
        """
        from workbench.sweeps.zarr_folder import write

        return write(self, Path(path), overwrite)

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


def _room(form: Form, shape: tuple[int, ...]) -> np.ndarray:
    """NaN for every cell."""
    whole = (*shape, *form.shape)
    needed, free = 8 * int(np.prod(whole, dtype=object)), psutil.virtual_memory().available
    if needed > free:
        raise MemoryError(
            f"{form.name!r} takes {needed / 1e9:.1f} GB as one array and {free / 1e9:.1f} GB are free: "
            "results.to_zarr(path) writes it to disk and gives the same dataset without holding it"
        )
    return np.full(whole, form.missing, object if form.is_text else np.float64)
