"""Results as a zarr folder: the dataset that memory need not hold."""

from __future__ import annotations

import os
import shutil
import uuid
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from workbench.sweeps.forms import Form

if TYPE_CHECKING:
    from workbench.sweeps.results import Results, Value

Index = tuple[int, ...]
FORMAT = 2  # format 3 has no settled way yet to keep text of a fixed length, which labels are
CHUNK = 16 * 2**20  # bytes; a chunk is one file, and what is held while it is filled


def write(results: Results, path: Path, overwrite: bool) -> xr.Dataset:
    """See ``Results.to_zarr``. Written aside and then renamed: what is at the path is whole, or what was there."""
    try:
        import zarr
    except ImportError as error:
        raise ImportError("zarr is not installed; pip install 'gpt-oss-workbench[scale]'") from error
    if os.path.lexists(path) and not overwrite:  # a link that leads nowhere is something too
        raise FileExistsError(f"{path} is there already; give another path, or overwrite=True")
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        results._frame().to_zarr(aside, mode="w-", consolidated=False, zarr_format=FORMAT)
        _Folder(zarr.open_group(aside, mode="r+"), results).fill()
        _put(aside, path)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return xr.open_zarr(path, consolidated=False, chunks=None)


def _put(aside: Path, path: Path) -> None:
    """In the place of whatever is there: a folder, a file or a link, of which only the link itself is taken away."""
    if not os.path.lexists(path):
        os.replace(aside, path)
        return
    old = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.old")
    os.replace(path, old)
    os.replace(aside, path)
    if old.is_dir() and not old.is_symlink():
        shutil.rmtree(old)
    else:
        old.unlink()


class _Folder:
    """A group that is being filled."""

    def __init__(self, group: Any, results: Results) -> None:
        self.group, self.results = group, results
        self.dims, self.shape = tuple(results.grid.axes), results.grid.shape
        self.arrays: dict[str, Any] = {}
        self.forms: dict[str, Form] = {}

    def fill(self) -> None:
        """Every finished cell, a block of neighbours at a time; then what the cells' own axes are called."""
        indices = sorted(self.results._values)
        if not indices:
            return
        block = self._block(self.results._value(indices[0]))
        blocks: defaultdict[Index, list[Index]] = defaultdict(list)
        for index in indices:
            blocks[tuple(i // size for i, size in zip(index, block, strict=True))].append(index)
        for place, members in blocks.items():
            self._fill_block(place, block, members)
        self._describe()

    def _block(self, value: Value) -> Index:
        """How many cells of each axis stand in one chunk: as many of the last axes as it takes."""
        each = max(np.asarray(part).nbytes for part in value.values())
        room, block = max(1, CHUNK // max(1, each)), []
        for size in reversed(self.shape):
            block.append(min(size, room))
            room = max(1, room // size)
        return tuple(reversed(block))

    def _fill_block(self, place: Index, block: Index, members: list[Index]) -> None:
        start = tuple(i * size for i, size in zip(place, block, strict=True))
        size = tuple(min(b, n - s) for b, n, s in zip(block, self.shape, start, strict=True))
        region = tuple(slice(s, s + n) for s, n in zip(start, size, strict=True))
        held: dict[str, np.ndarray] = {}
        for index in members:
            for name, part in self.results._value(index).items():
                form = self._form(name, part, block)
                if name not in held:
                    held[name] = np.full((*size, *form.shape), form.missing, form.dtype)
                held[name][tuple(i - s for i, s in zip(index, start, strict=True))] = form.fitting(part)
        for name, values in held.items():
            self.arrays[name][region] = values.astype(str) if self.forms[name].is_text else values

    def _form(self, name: str, part: Any, block: Index) -> Form:
        """The form of a quantity; its array is made when it is first met."""
        if name not in self.forms:
            self.forms[name] = form = Form(name, part)
            self.arrays[name] = self.group.create_array(
                name,
                shape=(*self.shape, *form.shape),
                chunks=(*block, *_own_chunks(form)),
                dtype=str if form.is_text else form.dtype,
                fill_value=None if form.is_text else form.missing,  # a "" of text would be read as missing
                attributes={"_ARRAY_DIMENSIONS": [*self.dims, *form.dims]},
            )
        return self.forms[name]

    def _describe(self) -> None:
        """Attributes and coordinates: only now is it known which coordinates all cells have in common."""
        coords: dict[Any, xr.Variable] = {}
        for name, form in self.forms.items():
            for key, coord in form.coords.items():
                coords.setdefault(key, coord)
            named = " ".join(str(key) for key in form.coords if key not in form.dims)
            self.arrays[name].attrs.update(form.about() | ({"coordinates": named} if named else {}))
        if coords:
            made = xr.Dataset(coords=coords).drop_encoding()
            made.to_zarr(self.group.store_path.store.root, mode="a", consolidated=False, zarr_format=FORMAT)


def _own_chunks(form: Form) -> Iterator[int]:
    """A quantity's own axes, whole; the first ones cut where a single cell is larger than a chunk."""
    room = max(1, CHUNK // form.dtype.itemsize)
    sizes = []
    for size in reversed(form.shape):
        sizes.append(max(1, min(size, room)))
        room = max(1, room // max(1, size))
    return iter(reversed(sizes))
