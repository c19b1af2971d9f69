"""Sweeps against a serial loop: however they are batched, cancelled, resumed, disturbed, nothing is lost or twice."""

import threading
from collections import Counter

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.sweeps import Grid, Interrupted, Results, sweep, sweep_iter


def value_of(cell) -> float:
    return 100.0 * cell["a"] + cell["b"] ** 2


class Measure:
    """Counts how often each cell got a value; raises for any batch with a bad cell in it."""

    def __init__(self, bad=()):
        self.times, self.calls, self.bad = Counter(), [], set(bad)

    def __call__(self, cells):
        self.calls.append([cell.index for cell in cells])
        for cell in cells:
            if cell.index in self.bad:
                raise RuntimeError(f"no {cell.index}")
        self.times.update(cell.index for cell in cells)
        return [value_of(cell) for cell in cells]


grids = st.builds(
    lambda a, b, odd: Grid(a=range(a), b=range(b)).where(lambda cell: (cell["a"] + cell["b"]) % odd != 1),
    st.integers(1, 6),
    st.integers(1, 6),
    st.sampled_from([2, 3, 100]),
)


@settings(max_examples=50)
@given(grid=grids, data=st.data())
def test_any_batching_cancelling_failing_and_resuming_gives_what_a_serial_loop_gives(grid, data):
    serial = {cell.index: value_of(cell) for cell in grid}
    bad = data.draw(st.sets(st.sampled_from(sorted(serial)), max_size=4)) if serial else set()
    measure, results = Measure(bad), Results(grid)
    for _ in range(data.draw(st.integers(0, 4))):
        stop_after, asked = data.draw(st.integers(0, 5)), iter(range(10**6))
        together = data.draw(st.sampled_from([None, lambda cell: cell["a"]]))
        results = sweep(
            measure,
            grid,
            batch=data.draw(st.integers(1, 7)),
            cost=lambda cell: 1 + cell["b"],
            most=data.draw(st.integers(1, 12)),
            together=together,
            cancel=lambda asked=asked, stop_after=stop_after: next(asked) >= stop_after,
            results=results,
            progress=False,
        )
        assert {cell.index: value for cell, value in results}.items() <= serial.items()
    measure.bad = set(data.draw(st.sampled_from([(), tuple(bad)])))
    results = sweep(measure, grid, results=results, progress=False)
    expected = {index: value for index, value in serial.items() if index not in measure.bad}
    assert {cell.index: value for cell, value in results} == expected
    assert measure.times == Counter(expected.keys())  # each exactly once
    assert set(results.failures) == measure.bad
    assert results.done == len(expected) and results.left == len(serial) - len(expected)


def test_a_batch_that_fails_is_split_down_to_the_cells_that_fail():
    measure = Measure(bad=[(0, 5)])
    results = sweep(measure, Grid(a=[0], b=range(16)), batch=16, progress=False)
    assert results.done == 15 and results.left == 1
    assert list(map(len, measure.calls)) == [16, 8, 4, 4, 2, 1, 1, 2, 8]
    failure = results.failures[0, 5]
    assert isinstance(failure.error, RuntimeError) and failure.cell["b"] == 5
    assert "no (0, 5)" in results.to_xarray().attrs["failures"]
    with pytest.raises(KeyError, match="RuntimeError"):
        results[failure.cell]


def test_the_dataset_has_the_serial_loops_values_and_nan_where_nothing_is_done():
    grid = Grid(a=[3, 7], b=[1, 2, 4])
    asked = iter([False, False, True])
    made = sweep(Measure(), grid, batch=2, cancel=lambda: next(asked), progress=False).to_xarray()
    expected = np.array([[301.0, 304.0, 316.0], [701.0, np.nan, np.nan]])
    np.testing.assert_array_equal(made["value"], expected)
    np.testing.assert_array_equal(made["measured"], ~np.isnan(expected))
    assert made["value"].dims == ("a", "b") and float(made["value"].sel(a=3, b=4)) == 316.0
    assert made.attrs["done"] == 4


def test_a_dataset_of_labelled_axes_can_be_stored_and_read_back(tmp_path):
    grid = Grid(prompt=["Mia", "Tom"], spec=[("x", 1), ("y", 2)])
    made = sweep(lambda cells: [len(c["prompt"]) for c in cells], grid, progress=False).to_xarray()
    made.to_netcdf(tmp_path / "sweep.nc")
    with xr.open_dataset(tmp_path / "sweep.nc") as read:
        np.testing.assert_array_equal(read["value"], made["value"])
        assert list(read["spec"].values) == ["('x', 1)", "('y', 2)"]


def test_a_measure_may_give_several_quantities_and_quantities_with_axes():
    def measure(cells):
        by_layer = [xr.DataArray([c["a"], 2 * c["a"]], dims="layer", coords={"layer": [4, 5]}) for c in cells]
        return [{"kl": torch.tensor(c["a"] / 2), "flips": flips} for c, flips in zip(cells, by_layer, strict=True)]

    made = sweep(measure, Grid(a=range(3)), batch=2, progress=False).to_xarray()
    assert made["kl"].values.tolist() == [0.0, 0.5, 1.0]
    assert made["flips"].dims == ("a", "layer")
    assert made["flips"].sel(a=2, layer=5) == 4


def test_a_measure_may_give_one_tensor_for_its_batch():
    results = sweep(lambda cells: torch.tensor([cell["a"] for cell in cells]) * 2, Grid(a=range(5)), progress=False)
    assert [value for _, value in results] == [0, 2, 4, 6, 8]


@pytest.mark.parametrize(
    ("given_values", "complaint"),
    [
        (lambda cells: [1.0], "1 values for 2 cells"),
        (lambda cells: ["x" for _ in cells], "gave a str as 'value'"),
        (lambda cells: [np.zeros(3) for _ in cells], r"ndarray of shape \(3,\)"),
        (lambda cells: [{"measured": 1.0} for _ in cells], "none 'measured'"),
        (lambda cells: [xr.DataArray([1.0], dims="a") for _ in cells], "grid's own axis"),
    ],
)
def test_what_is_no_value_for_each_cell_is_refused_and_none_of_it_kept(given_values, complaint):
    results = Results(Grid(a=range(2)))
    with pytest.raises(ValueError, match=complaint):
        sweep(given_values, results.grid, results=results, progress=False)
    assert results.done == 0


def test_an_event_cancels_within_one_batch():
    stop, results = threading.Event(), Results(Grid(a=range(10), b=range(10)))

    def measure(cells):
        if cells[-1].index >= (3, 0):
            stop.set()
        return [value_of(cell) for cell in cells]

    sweep(measure, results.grid, batch=5, cancel=stop, results=results, progress=False)
    assert results.cancelled and results.done == 35
    stop.clear()
    sweep(measure, results.grid, results=results, progress=False)
    assert not results.cancelled and results.left == 0


def test_an_interrupt_carries_every_finished_batch():
    def measure(cells):
        if cells[0].index >= (0, 4):
            raise KeyboardInterrupt
        return [value_of(cell) for cell in cells]

    grid = Grid(a=[0], b=range(8))
    with pytest.raises(KeyboardInterrupt, match=r"4 of 8 cells are done") as stopped:
        sweep(measure, grid, batch=2, progress=False)
    assert isinstance(stopped.value, Interrupted)
    results = sweep(Measure(), grid, results=stopped.value.results, progress=False)
    assert results.left == 0


def test_results_stream_in_as_they_are_measured():
    measure, grid, seen = Measure(), Grid(a=range(2), b=range(3)), []
    stream = sweep_iter(measure, grid, batch=2)
    assert next(stream)[1] == 0.0 and len(measure.calls) == 1
    stream.close()
    assert len(measure.calls) == 1
    sweep(measure, grid, batch=2, on_result=lambda cell, value: seen.append((cell.index, value)), progress=False)
    assert seen == [(cell.index, value_of(cell)) for cell in grid]


def test_the_bar_counts_every_cell_and_starts_where_the_earlier_sweep_stopped(capsys):
    grid, asked = Grid(a=range(4), b=range(5)), iter([False, True])
    results = sweep(Measure(), grid, batch=5, cancel=lambda: next(asked))
    assert "5/20" in capsys.readouterr().err
    sweep(Measure(), grid, batch=5, results=results)
    assert "20/20" in capsys.readouterr().err


def test_results_of_another_grid_are_refused():
    results = sweep(Measure(), Grid(a=range(2), b=range(2)), progress=False)
    with pytest.raises(ValueError, match="other axes or labels"):
        sweep(Measure(), Grid(a=range(2), b=range(1, 3)), results=results, progress=False)


def test_results_of_a_whole_grid_serve_a_part_of_it():
    whole, measure = Grid(a=range(3), b=range(3)), Measure()
    part = whole.where(lambda cell: cell["a"] == 1)
    results = sweep(measure, part, progress=False)
    assert results.done == 3
    results = sweep(measure, whole, results=results, progress=False)
    assert results.done == 9 and set(measure.times.values()) == {1}
    assert sweep(measure, part, results=results, progress=False).left == 0


@pytest.mark.parametrize(
    ("options", "complaint"),
    [({"batch": 0}, "at least 1 cell"), ({"most": 3.0}, "cost and most belong together")],
)
def test_options_that_cannot_be_are_refused_before_anything_runs(options, complaint):
    measure = Measure()
    with pytest.raises(ValueError, match=complaint):
        sweep_iter(measure, Grid(a=[0], b=[0]), **options)
    assert not measure.calls


def test_cells_may_be_batched_in_any_other_way():
    def by_b(cells):
        """Those with the same b together, the largest first: not neighbours in the grid."""
        cells = list(cells)
        return ([cell for cell in cells if cell["b"] == b] for b in (2, 1, 0))

    measure, grid = Measure(bad=[(1, 2)]), Grid(a=range(3), b=range(3))
    results = sweep(measure, grid, batches=by_b, progress=False)
    assert measure.calls[0] == [(0, 2), (1, 2), (2, 2)] and measure.calls[-1] == [(0, 0), (1, 0), (2, 0)]
    assert results.done == 8 and set(measure.times.values()) == {1}


def test_a_runner_that_works_ahead_gives_the_same():
    """Two batches under way and answers in the wrong order: what an executor does."""

    def ahead(measure, batches):
        waiting = []
        for batch in batches:
            waiting.append(batch)
            if len(waiting) == 2:
                yield from (outcome(measure, cells) for cells in reversed(waiting))
                waiting = []
        yield from (outcome(measure, cells) for cells in waiting)

    def outcome(measure, cells):
        try:
            return cells, measure(cells)
        except Exception as error:
            return cells, error

    measure = Measure(bad=[(1, 4), (0, 0)])
    grid = Grid(a=range(2), b=range(5))
    results = sweep(measure, grid, batch=3, runner=ahead, progress=False)
    assert set(results.failures) == {(1, 4), (0, 0)}
    assert measure.times == Counter(cell.index for cell in grid if cell.index not in measure.bad)
