"""Grids: which cells there are, in what order, and what they cost to hold."""

import itertools
from dataclasses import dataclass

import pytest

from workbench.sweeps import Grid, batched


@dataclass(frozen=True)
class Spec:
    layer: int


def test_cells_are_the_product_of_the_axes_with_the_last_one_fastest():
    grid = Grid(prompt=["a", "b"], layer=range(3))
    assert [tuple(cell.as_dict().values()) for cell in grid] == list(itertools.product(["a", "b"], range(3)))
    assert len(grid) == 6 and grid.shape == (2, 3)


def test_a_filter_leaves_the_cells_that_it_keeps_and_their_places():
    grid = Grid(layer=range(4), head=range(4)).where(lambda cell: cell["layer"] < cell["head"])
    narrower = grid.where(lambda cell: cell["head"] == 3)
    assert [cell.index for cell in grid] == [(i, j) for i in range(4) for j in range(4) if i < j]
    assert len(grid) == 6 and len(narrower) == 3
    assert grid.cell(layer=0, head=1) in grid and grid.cell(layer=1, head=0) not in grid


def test_a_grid_of_a_million_million_cells_is_made_lazily():
    grid = Grid(a=range(10**6), b=range(10**6))
    assert len(grid) == 10**12
    assert next(iter(grid)).as_dict() == {"a": 0, "b": 0}


def test_anything_can_be_an_axis_and_is_labelled_by_its_text():
    grid = Grid(spec=[Spec(0), Spec(1)], tokens=[(1, 2), (3,)])
    assert grid.cell(spec=Spec(1), tokens="(3,)").index == (1, 1)
    assert list(grid.labels["spec"]) == ["Spec(layer=0)", "Spec(layer=1)"]


@pytest.mark.parametrize(
    ("axes", "complaint"),
    [({}, "at least one axis"), ({"layer": []}, "'layer' is empty"), ({"layer": [1, 2, 1]}, "has 1 twice")],
)
def test_axes_that_make_no_grid_are_refused(axes, complaint):
    with pytest.raises(ValueError, match=complaint):
        Grid(axes)


def test_an_axis_or_value_that_is_not_there_is_refused_with_the_nearest_one():
    grid = Grid(layer=range(4))
    with pytest.raises(KeyError, match="closest is 'layer'"):
        next(iter(grid))["layers"]
    with pytest.raises(KeyError, match="no value given for axis 'layer'"):
        grid.cell()
    with pytest.raises(KeyError, match="has no 4; it has 4 values, 0 to 3"):
        grid.cell(layer=4)


def test_batches_respect_their_size_their_cost_and_what_belongs_together():
    grid = Grid(prompt=["a", "b"], layer=range(5))
    made = [
        [cell.index for cell in batch]
        for batch in batched(
            grid, batch=3, cost=lambda cell: cell["layer"], most=5, together=lambda cell: cell["prompt"]
        )
    ]
    # 0+1+2 fits and is three; 3 and 4 together would cost 7; the prompts never mix.
    assert made == [[(p, layer) for layer in layers] for p in (0, 1) for layers in ([0, 1, 2], [3], [4])]


def test_a_cell_that_costs_more_than_a_batch_may_goes_alone():
    made = [len(batch) for batch in batched(Grid(x=[1, 9, 2, 3]), 4, lambda c: c["x"], 5)]
    assert made == [1, 1, 2]
