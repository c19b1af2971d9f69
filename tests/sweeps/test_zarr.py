"""Results on disk are the results in memory, and memory need not hold them."""

from __future__ import annotations

import itertools
import tracemalloc

import numpy as np
import pytest
import xarray as xr

from workbench.sweeps import Grid, sweep

GRID = Grid(layer=range(3), head=range(4), word=["a", "b", "<é>"])


def labelled(cells):
    """Numbers and arrays, of one form in every cell."""
    return [{"sum": cell["layer"] + 10.0 * cell["head"], "map": _map(cell)} for cell in cells]


def _map(cell):
    values = np.arange(6, dtype=np.float32).reshape(2, 3) + 100 * cell["layer"] + cell["head"]
    coords = {"pos": [4, 5, 6], "token": ("pos", ["x", "\n", "é"])}
    return xr.DataArray(values, coords, ("row", "pos"), attrs={"units": "nats"})


def test_the_folder_holds_what_the_dataset_holds(tmp_path):
    results = sweep(labelled, GRID, progress=False)
    written, held = results.to_zarr(tmp_path / "found.zarr"), results.to_xarray()
    xr.testing.assert_equal(written, held)
    assert written["map"].attrs["units"] == "nats" and written["map"].dtype == np.float32
    assert written["token"].values.tolist() == ["x", "\n", "é"]
    xr.testing.assert_equal(xr.open_zarr(tmp_path / "found.zarr", consolidated=False, chunks=None), held)


def test_what_was_not_measured_is_nan_in_both(tmp_path):
    few = GRID.where(lambda cell: (cell["layer"] + cell["head"]) % 2 == 0)
    results = sweep(labelled, few, progress=False)
    written, held = results.to_zarr(tmp_path / "found.zarr"), results.to_xarray()
    xr.testing.assert_equal(written, held)
    assert bool(np.isnan(written["sum"].values[0, 1]).all()) and not bool(written.measured[0, 1].any())


@pytest.mark.parametrize("chunk", (1, 100, 1000, 10**6))
def test_however_it_is_cut_into_chunks_the_numbers_are_the_same(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr("workbench.sweeps.zarr_folder.CHUNK", chunk)
    results = sweep(labelled, GRID, progress=False)
    xr.testing.assert_equal(results.to_zarr(tmp_path / "found.zarr"), results.to_xarray())


def test_there_is_nothing_half_done_and_nothing_overwritten_unasked(tmp_path):
    results = sweep(labelled, GRID, progress=False)
    results.to_zarr(tmp_path / "found.zarr")
    with pytest.raises(FileExistsError, match="overwrite=True"):
        results.to_zarr(tmp_path / "found.zarr")
    results.to_zarr(tmp_path / "found.zarr", overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["found.zarr"]

    def odd(cells):
        return [np_array(1 + cell["layer"]) for cell in cells]

    def np_array(n):
        return xr.DataArray(np.ones(n), dims="pos")

    with pytest.raises(ValueError, match="expected the same"):
        sweep(odd, GRID, progress=False).to_zarr(tmp_path / "odd.zarr")
    assert [path.name for path in tmp_path.iterdir()] == ["found.zarr"]


def test_memory_holds_neither_the_journals_arrays_nor_the_folders(tmp_path):
    def large(cells):
        return [xr.DataArray(np.full(250_000, cell["i"], np.float32), dims="pos") for cell in cells]  # 1 MB each

    grid = Grid(i=range(120))
    sweep(large, Grid(i=[0]), batch=2, journal=tmp_path / "warm", progress=False).to_zarr(tmp_path / "warm.zarr")
    tracemalloc.start()
    try:
        results = sweep(large, grid, batch=2, journal=tmp_path / "journal", progress=False)
        swept = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        written = results.to_zarr(tmp_path / "found.zarr")
        wrote = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        again = sweep(large, grid, batch=2, journal=tmp_path / "journal", progress=False)
        restored = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert again.done == 120
    assert max(swept, wrote, restored) < 100e6 / 2  # of 120 MB; a chunk is 16 MB
    assert written["value"].mean("pos").values.tolist() == list(range(120))


def test_what_does_not_fit_in_memory_is_refused_with_the_way_out(monkeypatch):
    results = sweep(labelled, GRID, progress=False)
    monkeypatch.setattr("psutil.virtual_memory", lambda: type("Memory", (), {"available": 100})())
    with pytest.raises(MemoryError, match="to_zarr"):
        results.to_xarray()


def test_names_that_differ_from_cell_to_cell_are_left_out_and_not_put_on_other_cells(tmp_path):
    words = {0: ["Mia", "went"], 1: ["Tom", "slept"]}

    def measure(cells):
        coords = {"pos": [0, 1], "role": ("pos", ["user", "user"])}
        named = [coords | {"token": ("pos", words[cell["i"]])} for cell in cells]
        return [xr.DataArray([1.0, 2.0], each, ("pos",)) for each in named]

    results = sweep(measure, Grid(i=[0, 1]), progress=False)
    for found in (results.to_xarray(), results.to_zarr(tmp_path / "found.zarr")):
        assert "token" not in found.coords and "token" in found["value"].attrs["left_out"]
        assert found.role.values.tolist() == ["user", "user"] and found.pos.values.tolist() == [0, 1]
    assert [value.token.values.tolist() for _, value in results] == list(words.values())


def test_an_axis_labelled_otherwise_in_another_cell_is_refused():
    def measure(cells):
        return [xr.DataArray([1.0, 2.0], {"pos": [cell["i"], 7]}, ("pos",)) for cell in cells]

    with pytest.raises(ValueError, match="other labels along 'pos'"):
        sweep(measure, Grid(i=[0, 1]), progress=False).to_xarray()


def test_results_read_from_a_journal_are_those_that_were_measured(tmp_path):
    first = sweep(labelled, GRID, journal=tmp_path, progress=False)
    again = sweep(labelled, GRID, journal=tmp_path, progress=False)
    for (cell, value), (same, back) in itertools.zip_longest(first, again):
        assert cell == same and value["sum"] == back["sum"]
        xr.testing.assert_identical(value["map"], back["map"])


def test_text_is_kept_as_text_in_both(tmp_path):
    def top_tokens(cells):
        words = {0: [" the", "<é>\n"], 1: ["a", " much longer token"], 2: ["", " x"]}
        return [{"token": xr.DataArray(words[cell["i"]], dims="rank"), "n": 3} for cell in cells]

    results = sweep(top_tokens, Grid(i=range(3)), journal=tmp_path / "journal", progress=False)
    held, written = results.to_xarray(), results.to_zarr(tmp_path / "found.zarr")
    assert held.token.values.tolist() == [[" the", "<é>\n"], ["a", " much longer token"], ["", " x"]]
    assert written.token.values.tolist() == held.token.values.tolist()
    assert written.n.values.tolist() == [3, 3, 3]
    few = sweep(top_tokens, Grid(i=range(3)).where(lambda cell: cell["i"] == 1), progress=False)
    assert few.to_zarr(tmp_path / "few.zarr").token.values.tolist() == few.to_xarray().token.values.tolist()
