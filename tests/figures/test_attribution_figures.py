"""The figures of direct attribution, of patching guessed from gradients, and of edges: numbers, words and sizes."""

import numpy as np
import pytest

from tests.figures.data import words
from tests.figures.studies import attribution, direct, edges
from workbench.figures.direct import direct_logit_attribution
from workbench.figures.edges import top_edges
from workbench.figures.gradients import attribution_grid


def test_the_cells_of_direct_attribution_are_its_shares_and_unrouted_experts_are_empty():
    data = direct(words(3))
    heads, bias, experts = direct_logit_attribution(data).data
    assert np.allclose(np.array(heads.z, dtype=float), data.heads, atol=1e-6)
    assert np.allclose(np.array(bias.z, dtype=float)[:, 0], data.attn_bias, atol=1e-6)
    drawn = np.array(experts.z, dtype=float)
    routed = np.isfinite(drawn)
    assert [np.flatnonzero(row).tolist() for row in routed] == np.sort(data.chosen.values, axis=1).tolist()
    assert np.allclose(drawn[routed], data.experts.values[routed], atol=1e-6)
    places = [x for trace in (heads, bias, experts) for x in trace.x]
    assert len(set(places)) == len(places)


@pytest.mark.parametrize("scale", ["recovered", "effect"])
def test_a_grid_has_a_row_a_token_and_a_column_a_layer(scale: str):
    data = attribution(words(12))
    figure = attribution_grid(data, "attn_out", scale)
    expected = data[scale].sel(site="attn_out").transpose("pos", "layer")
    assert np.allclose(np.array(figure.data[0].z, dtype=float), expected, atol=1e-6)
    assert figure.layout.coloraxis.cmax == pytest.approx(float(np.abs(expected).max()))
    assert figure.layout.coloraxis.cmin == -figure.layout.coloraxis.cmax


def test_heads_are_drawn_summed_over_positions():
    data = attribution(words(12))
    drawn = np.array(attribution_grid(data, "head").data[0].z, dtype=float)
    assert np.allclose(drawn, data.head_recovered.sum("pos"), atol=1e-5)


def test_dots_stand_where_routes_differ_or_are_near_to():
    data = attribution(words(12))
    for near, marked in ((None, data.routes_differ), (0.3, data.routes_differ | (data.router_margin < 0.3))):
        dots = attribution_grid(data, near=near).data[1]
        assert set(zip(dots.x, dots.y, strict=True)) == {tuple(map(int, at)) for at in np.argwhere(marked.values)}


def test_bars_are_the_largest_edges_of_either_sign_the_largest_first():
    data = edges([f"L0E{i}" for i in range(9)])
    bars = top_edges(data, 12).data[0]
    flat = data.score.values[np.isfinite(data.score.values)]
    assert np.abs(bars.x).tolist() == pytest.approx(sorted(np.abs(flat).tolist(), reverse=True)[:12], abs=1e-6)
    assert len(set(bars.marker.color)) == 2
    assert top_edges(data, 10**4).data[0].y == tuple(range(len(flat)))


def test_paths_are_drawn_as_edges():
    data = edges(["embed", "L0H1"]).rename(score="effect", share="recovered", upstream="sender", downstream="receiver")
    assert len(top_edges(data, 5).data[0].x) == 5


@pytest.mark.parametrize(
    ("draw", "told"),
    [
        (lambda: direct_logit_attribution(edges(["a"])), r"experiments\.direct_logit_attribution returns"),
        (lambda: attribution_grid(edges(["a"])), r"experiments\.attribution_patching returns"),
        (lambda: top_edges(attribution(words(3))), r"experiments\.edge_attribution returns"),
        (lambda: attribution_grid(attribution(words(3)), "expert"), r"kind='expert': this dataset has \['resid_pre'"),
        (lambda: attribution_grid(attribution(words(3)), scale="x"), "scale='x': expected one of"),
        (lambda: top_edges(edges(["a"]), 0), "n=0: expected at least 1 edge"),
        (lambda: top_edges(edges(["a"]) * np.nan), "every score is NaN"),
    ],
)
def test_other_data_is_refused(draw, told):
    with pytest.raises(ValueError, match=told):
        draw()
