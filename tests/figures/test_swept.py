"""A sweep's tables hold the means of its cells."""

import numpy as np
import pytest

from tests.figures.studies import grid_of
from workbench import figures

WORDS = ["a", "b", "c"]


def numbers(figure) -> list[np.ndarray]:
    heat = [trace for trace in figure.data if trace.type == "heatmap"]
    return [np.array([[np.nan if v is None else v for v in row] for row in trace.z], float) for trace in heat]


def test_axes_that_are_not_drawn_are_averaged_over_the_cells_that_were_measured():
    data = grid_of(WORDS)
    (table,) = numbers(figures.swept_heatmap(data, "layer", "word"))
    by_hand = np.arange(18.0).reshape(3, 3, 2).mean(2)
    by_hand[0, 0] = 1.0  # its other seed alone
    assert np.allclose(table, by_hand)


def test_a_third_axis_makes_a_table_for_each_of_its_values():
    data = grid_of(WORDS)
    found = numbers(figures.swept_heatmap(data, "layer", "seed", panels="word", minus=data.value.mean("layer")))
    expected = (data.value - data.value.mean("layer")).transpose("word", "layer", "seed").values
    assert np.allclose(found, expected, equal_nan=True)


def test_what_the_sweep_does_not_have_is_refused_by_name():
    with pytest.raises(ValueError, match=r"no variable 'loss'; it has \['value'\]"):
        figures.swept_heatmap(grid_of(WORDS), "layer", "word", "loss")
    with pytest.raises(ValueError, match="axis 'head'"):
        figures.swept_heatmap(grid_of(WORDS), "layer", "head")
    with pytest.raises(ValueError, match="at most 12"):
        figures.swept_heatmap(grid_of([str(i) for i in range(13)]), "layer", "seed", panels="word")
