"""The drawing of an attribution graph: where nodes and edges stand, what is said, and sizes."""

import numpy as np
import pytest
import xarray as xr

from tests.figures.data import words
from tests.figures.studies import FIRST, graph
from workbench.figures.graph import ADDS, TAKES, attribution_graph


def test_nodes_stand_at_their_token_and_above_what_they_read():
    figure = attribution_graph(graph(words(6)))
    traces = {trace.name: trace for trace in figure.data if trace.mode == "markers"}
    assert list(traces["embed"].x) == list(range(6)) and all(abs(y) < 0.5 for y in traces["embed"].y)
    assert list(traces["head"].x) == [0, 1, 2, 3, 4, 5] * 3
    assert [round(y) for y in traces["head"].y] == [1] * 6 + [3] * 6 + [5] * 6
    assert list(traces["expert"].x) == [5] * 6 and [round(y) for y in traces["expert"].y] == [2, 2, 4, 4, 6, 6]
    assert len(set(traces["expert"].y)) == 6, "two experts of one token do not hide each other"
    assert (list(traces["logits"].x), list(traces["logits"].y)) == ([5], [7])


def test_larger_influence_is_larger_and_the_sign_is_the_colour():
    data = graph(words(6))
    trace = next(trace for trace in attribution_graph(data).data if trace.name == "head")
    here = data.isel(source=data.source_kind.values == "head")
    assert np.array_equal(np.argsort(trace.marker.size, kind="stable")[[0, -1]], np.argsort(here.influence)[[0, -1]])
    assert list(trace.marker.color) == [ADDS if value > 0 else TAKES for value in here.activation.values]


def test_only_the_strongest_edges_are_drawn_each_between_its_ends():
    data = graph(words(5))
    figure = attribution_graph(data, n_edges=7)
    drawn = [trace for trace in figure.data if trace.mode == "lines"]
    assert sum(x is None for trace in drawn for x in trace.x) == 7
    row, column = np.unravel_index(data.edge_influence.values.argmax(), data.edge_influence.shape)
    ends = int(data.source_pos[column]) - FIRST, int(data.target_pos[row]) - FIRST
    widest = max(drawn, key=lambda trace: trace.line.width)
    assert ends in [(widest.x[i], widest.x[i + 1]) for i in range(0, len(widest.x), 3)]


def test_a_graph_can_be_thinned_to_its_strongest_nodes():
    figure = attribution_graph(graph(words(9)), n_nodes=5, n_edges=10_000)
    assert sum(len(trace.x) for trace in figure.data if trace.mode == "markers") == 6, "and the logits"


def test_what_it_cannot_draw_is_refused():
    with pytest.raises(ValueError, match=r"experiments\.attribution_graph returns"):
        attribution_graph(xr.Dataset({"score": ("pos", [1.0])}))
    with pytest.raises(ValueError, match="n_edges=0: expected at least 1"):
        attribution_graph(graph(words(3)), n_edges=0)
