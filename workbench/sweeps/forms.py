"""What every cell's value of one quantity has in common: its own axes, and the coordinates along them."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import numpy as np
import xarray as xr


class Form:
    """The axes and coordinates of a quantity, as its first value has them.

    Coordinates of an axis (its index) must be the same in every cell. Others that differ (the tokens of each cell's own
    text) would be wrong for all cells but one, and are left out of the dataset.

    Attributes:
        coords: those that all cells so far have in common.
        left_out: names of those that they have not.
        dtype: that holds the values, and ``missing`` where there is none: floats as they are, integers as float64, text
            as Python's.
    """

    def __init__(self, name: str, first: Any) -> None:
        array = _array(first)
        self.name = name
        self.dims, self.shape = tuple(map(str, array.dims)), array.shape
        # Variables alone: a coordinate as an array would bring those along that are left out later.
        self.coords: dict[Hashable, xr.Variable] = {key: coord.variable.copy() for key, coord in array.coords.items()}
        self.attrs = {str(key): value if isinstance(value, str | int | float) else str(value)
                      for key, value in array.attrs.items()}  # fmt: skip
        self.is_text = array.dtype.kind in "UTO"
        kept = array.dtype.kind == "f"
        self.dtype = np.dtype(object) if self.is_text else array.dtype if kept else np.dtype(np.float64)
        self.missing: Any = "" if self.is_text else np.nan  # what says that a cell is not measured
        self.left_out: list[str] = []

    def fitting(self, part: Any) -> np.ndarray:
        """A cell's values, if they have this form.

        Raises:
            ValueError: for other axes, sizes, or labels along them.
        """
        array = _array(part)
        if array.dims != self.dims or array.shape != self.shape:
            expected = dict(zip(self.dims, self.shape, strict=True))
            raise ValueError(
                f"{self.name!r} has axes {dict(array.sizes)} in one cell and {expected} in another: expected the same. "
                "Results[cell] and iteration give each cell by itself"
            )
        for key in list(self.coords):
            self._compare(key, array)
        return array.values

    def _compare(self, key: Hashable, array: xr.DataArray) -> None:
        mine, its = self.coords[key], array.coords.get(key)
        if its is not None and (mine is its or np.array_equal(mine.values, its.values)):
            return
        if key in self.dims:
            raise ValueError(
                f"{self.name!r} has other labels along {key!r} in one cell than in another, and one table would mix "
                "them up: drop them in the measure, or read the cells one by one from the results"
            )
        del self.coords[key]
        self.left_out.append(str(key))

    def about(self) -> dict[str, Any]:
        """Attributes of the whole variable."""
        said = {"left_out": f"differs from cell to cell: {', '.join(self.left_out)}"} if self.left_out else {}
        return self.attrs | said


def _array(part: Any) -> xr.DataArray:
    return part if isinstance(part, xr.DataArray) else xr.DataArray(part)
