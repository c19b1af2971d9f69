"""Grids: every combination of some named axes, made one at a time."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import numpy as np


@dataclass(frozen=True, eq=False)
class Cell:
    """One combination: ``cell["layer"]`` is its value on an axis. Equal if they stand in one place of one grid.

    Attributes:
        index: its place on each axis, in the order of the axes.
    """

    axes: Mapping[str, Sequence[Any]]
    index: tuple[int, ...]

    def __getitem__(self, axis: str) -> Any:
        if axis not in self.axes:
            raise KeyError(_no_axis(axis, self.axes))
        return self.axes[axis][self.index[list(self.axes).index(axis)]]

    def as_dict(self) -> dict[str, Any]:
        """Axis → value."""
        return {axis: values[i] for (axis, values), i in zip(self.axes.items(), self.index, strict=True)}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Cell) and self.index == other.index and list(self.axes) == list(other.axes)

    def __hash__(self) -> int:
        return hash(self.index)

    def __repr__(self) -> str:
        return f"Cell({', '.join(f'{axis}={_short(value)}' for axis, value in self.as_dict().items())})"


class Grid:
    """The product of named axes, the last one running fastest; of a filter's cells alone, if there is one.

    ``Grid(layer=range(4), head=range(8)).where(lambda cell: cell["layer"] != 2)``

    Cells are made while they are asked for: a grid of a million takes the memory of its axes. An axis holds anything
    (numbers, text, tokens, interventions); what is no number is labelled by its text.

    Raises:
        ValueError: for no axis, an empty one, or one that lists a number or text twice.

    >>> len(wb.Grid(layer=range(4), head=range(8)))
    32
    """

    def __init__(self, axes: Mapping[str, Sequence[Any]] | None = None, /, **more: Sequence[Any]) -> None:
        self.axes: dict[str, Sequence[Any]] = {
            name: values if isinstance(values, range) else tuple(values)
            for name, values in {**(axes or {}), **more}.items()
        }
        if not self.axes:
            raise ValueError("a grid needs at least one axis: Grid(layer=range(4), head=range(8))")
        for name, values in self.axes.items():
            if not len(values):
                raise ValueError(f"axis {name!r} is empty: expected at least one value")
        self.labels = {name: _labels(name, values) for name, values in self.axes.items()}
        self._filters: tuple[Callable[[Cell], bool], ...] = ()
        self._size: int | None = None

    def where(self, keep: Callable[[Cell], bool]) -> Grid:
        """The cells of this grid for which ``keep`` is true."""
        narrower = Grid(self.axes)
        narrower._filters = (*self._filters, keep)
        return narrower

    @property
    def shape(self) -> tuple[int, ...]:
        """The lengths of the axes, filter or not."""
        return tuple(len(values) for values in self.axes.values())

    def __iter__(self) -> Iterator[Cell]:
        for index in itertools.product(*map(range, self.shape)):
            cell = Cell(self.axes, index)
            if all(keep(cell) for keep in self._filters):
                yield cell

    def __len__(self) -> int:
        """How many cells; with a filter they are counted once, by asking it of each."""
        if self._size is None:
            self._size = sum(1 for _ in self) if self._filters else int(np.prod(self.shape, dtype=object))
        return self._size

    def __contains__(self, cell: object) -> bool:
        if not isinstance(cell, Cell) or list(cell.axes) != list(self.axes):
            return False
        inside = all(0 <= i < size for i, size in zip(cell.index, self.shape, strict=True))
        return inside and all(keep(cell) for keep in self._filters)

    def cell(self, **labels: Any) -> Cell:
        """The cell with these values, one for each axis (or their labels).

        Raises:
            KeyError: for an axis or a value that the grid does not have.
        """
        for axis in (*labels, *self.axes):
            if axis not in self.axes:
                raise KeyError(_no_axis(axis, self.axes))
            if axis not in labels:
                raise KeyError(f"no value given for axis {axis!r}; a cell has one on each of {list(self.axes)}")
        return Cell(self.axes, tuple(self._place(axis, labels[axis]) for axis in self.axes))

    def _place(self, axis: str, value: Any) -> int:
        for values in (self.axes[axis], self.labels[axis].tolist()):
            if value in values:
                return values.index(value)
        first, last = _short(self.axes[axis][0]), _short(self.axes[axis][-1])
        raise KeyError(f"axis {axis!r} has no {_short(value)}; it has {len(self.axes[axis])} values, {first} to {last}")

    def same_axes(self, other: Grid) -> bool:
        """Whether both have the same axes with the same labels, so that a cell of one means a cell of the other."""
        if list(self.axes) != list(other.axes):
            return False
        return all(np.array_equal(self.labels[name], other.labels[name]) for name in self.axes)

    def __repr__(self) -> str:
        axes = ", ".join(f"{name}: {len(values)}" for name, values in self.axes.items())
        return f"Grid({axes}{', filtered' if self._filters else ''})"


def _labels(name: str, values: Sequence[Any]) -> np.ndarray:
    """Coordinates that can be stored: numbers as they are, everything else as text."""
    if all(isinstance(value, int | float | np.number) for value in values):
        labels = np.asarray(values)
    else:
        labels = np.array([value if isinstance(value, str) else str(value) for value in values], dtype=str)
    if not isinstance(values, range) and len(np.unique(labels)) < len(labels):
        twice = next(label for i, label in enumerate(labels.tolist()) if label in labels[:i].tolist())
        raise ValueError(f"axis {name!r} has {_short(twice)} twice: expected each value once, told apart by its text")
    return labels


def _no_axis(axis: str, axes: Mapping[str, Any]) -> str:
    close = get_close_matches(axis, list(axes), n=1)
    nearest = f"; closest is {close[0]!r}" if close else ""
    return f"no axis {axis!r}{nearest}; this grid has {list(axes)}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "…"
