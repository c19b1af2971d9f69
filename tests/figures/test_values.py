"""The numbers in a figure are the numbers in the data."""

from itertools import pairwise

import numpy as np
import pytest

from tests.figures.data import attention, comparison, head_scores, lens, loads, routing, text, values, words
from workbench import figures
from workbench.figures.axes import strided
from workbench.figures.routing import expert_colour
from workbench.figures.style import DIVERGING, SEQUENTIAL, UNSEEN, as_lists, colours, ink_on, luminance


def table(z) -> np.ndarray:
    return np.array([[np.nan if value is None else value for value in row] for row in z], dtype=np.float32)


def test_lists_hold_the_very_same_numbers_and_none_for_what_is_no_number():
    numbers = values(50, seed=3)
    assert np.array_equal(np.array(as_lists(numbers), dtype=np.float32), numbers)
    assert as_lists(np.array([[np.nan, 1.5], [np.inf, 0.0]])) == [[None, 1.5], [None, 0.0]]


def test_every_token_of_a_text_is_drawn_once_in_reading_order():
    data = text(words(60))
    bars = [
        (y, base, where)
        for t in figures.tokens(data).data
        for y, base, where in zip(t.y, t.base, t.customdata, strict=True)
    ]
    assert [where for *_, where in sorted(bars)] == list(range(60))


def test_a_text_wraps_and_no_token_leaves_the_page():
    figure = figures.tokens(text(words(120)))
    right = max(base + x for trace in figure.data for base, x in zip(trace.base, trace.x, strict=True))
    assert right <= figure.layout.width
    assert max(max(trace.y) for trace in figure.data) > 5


def test_each_message_begins_a_row_and_is_named_there():
    data = text([" a"] * 8)
    figure = figures.tokens(data)
    assert [note.text for note in figure.layout.annotations] == [
        "system",
        "user",
        "assistant · analysis",
        "assistant · final",
    ]
    assert [note.y for note in figure.layout.annotations] == [0, 1, 2, 3]


def test_shaded_tokens_carry_their_values_and_the_first_has_none():
    data = text(words(30))
    known, unknown, _ = figures.token_values(data.surprise).data
    assert np.array_equal(np.array(known.meta, dtype=np.float32), data.surprise.values[1:])
    assert list(unknown.customdata) == [0]


def test_values_below_zero_bring_a_scale_that_diverges_round_zero():
    data = text(words(12)).surprise.fillna(0) - 2
    scale = figures.token_values(data).data[-1].marker
    assert scale.cmin == -scale.cmax < 0
    middle = colours([0.0], DIVERGING, scale.cmin, scale.cmax)[0]
    assert luminance(middle) == pytest.approx(1, abs=0.01)


def test_values_along_two_axes_are_refused():
    with pytest.raises(ValueError, match=r"dims \('pos',\)"):
        figures.token_values(comparison(words(4)).kl)


def test_text_on_any_colour_has_the_contrast_that_reading_needs():
    for colour in (f"#{r:02x}{g:02x}{b:02x}" for r in (0, 128, 255) for g in (0, 128, 255) for b in (0, 128, 255)):
        light, dark = sorted((luminance(colour), luminance(ink_on(colour))), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 3.5


@pytest.mark.parametrize(
    ("shade", "variable"),
    [("probability", "top_probability"), ("target", "target_probability"), ("entropy", "entropy"), ("kl", "kl")],
)
def test_the_lens_shades_by_what_it_says(shade: str, variable: str):
    data = lens(words(25))
    expected = data[variable].isel(rank=0) if variable == "top_probability" else data[variable]
    assert np.array_equal(table(figures.logit_lens_heatmap(data, shade).data[0].z), expected.values)


def test_the_lens_shades_ranks_by_their_logarithm():
    data = lens(words(25))
    assert table(figures.logit_lens_heatmap(data, "rank").data[0].z) == pytest.approx(np.log10(data.target_rank.values))


def test_the_lens_writes_the_likeliest_word_bold_where_it_is_the_target():
    data = lens([" one", " two", " three"])
    data["target_rank"].values[:] = 2
    data["target_rank"].values[1, 2] = 1
    written = figures.logit_lens_heatmap(data).data[0].text
    assert f"><b>␣{data.top_token.values[1, 2, 0].strip()}</b><" in written[1][2]
    assert sum("<b>" in cell for row in written for cell in row) == 1


def test_an_unknown_shade_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match="probability"):
        figures.logit_lens_heatmap(lens(words(3)), "colour")


def test_many_layers_are_strided_and_the_last_is_kept():
    figure = figures.logit_lens_heatmap(lens(words(4), n_layers=36))
    shown = list(figure.layout.xaxis.ticktext)
    assert len(shown) <= 13
    assert (shown[0], shown[-1]) == ("embedding", "layer 35")
    assert all(strided(n, 13)[-1] == n - 1 for n in range(1, 60))


@pytest.mark.parametrize("window", [0, 5])
def test_the_attention_figure_shows_the_pattern_where_it_is_visible_and_nothing_elsewhere(window: int):
    data = attention(words(20), window)
    sink, pattern = figures.attention_pattern(data).data[:2]
    assert np.array_equal(
        table(pattern.z), np.where(data.visible, data.pattern, np.nan).astype(np.float32), equal_nan=True
    )
    assert np.array_equal(table(sink.z)[:, 0], data.sink.values)
    assert max(sink.x) < -0.5  # left of the first key


def test_the_edge_of_the_window_runs_between_the_last_key_seen_and_the_one_before_it():
    window, n = 5, 20
    edge = next(
        t for t in figures.attention_pattern(attention(words(n), window)).data if t.name == "edge of the window"
    )
    corners = set(zip(edge.x, edge.y, strict=True))
    for query in range(window, n):
        first_seen = query - window + 1
        assert (first_seen - 0.5, query - 0.5) in corners
        assert (first_seen - 0.5, query + 0.5) in corners


def test_full_attention_has_no_window_edge():
    assert not [t for t in figures.attention_pattern(attention(words(20))).data if t.name and "window" in t.name]


@pytest.mark.parametrize("window", [1, 4])
def test_hatching_covers_just_what_cannot_be_seen(window: int):
    n = 9
    data = attention(words(n), window)
    polygons = [t for t in figures.attention_pattern(data).data if t.type == "scatter" and t.fill == "toself"]
    hidden = np.array([[any(inside(t, x, y) for t in polygons) for x in range(n)] for y in range(n)])
    assert np.array_equal(hidden, ~data.visible.values)


def inside(polygon, x: float, y: float) -> bool:
    """Whether a point is in a polygon: an odd number of its edges cross the ray to the right."""
    corners = list(zip(polygon.x, polygon.y, strict=True))
    crossings = 0
    for (x0, y0), (x1, y1) in pairwise([*corners, corners[0]]):
        if (y0 > y) != (y1 > y):
            crossings += x0 + (y - y0) / (y1 - y0) * (x1 - x0) > x
    return crossings % 2 == 1


def test_the_ribbon_shows_each_expert_as_wide_as_its_weight_side_by_side():
    data = routing(words(15), n_slots=3)
    slots = figures.routing_ribbon(data).data
    for slot, bars in enumerate(slots):
        expected = data.isel(slot=slot)
        weights = np.array(bars.meta, dtype=np.float32)
        assert list(bars.customdata) == expected.chosen.values.reshape(-1).tolist()
        assert np.array_equal(weights, expected.weight.values.reshape(-1))
        assert np.array(bars.x) / weights == pytest.approx(bars.x[0] / weights[0])
    for first, then in pairwise(slots):
        assert np.array(first.base) + np.array(first.x) == pytest.approx(np.array(then.base))


def test_the_ribbon_draws_the_layers_that_are_asked_for():
    figure = figures.routing_ribbon(routing(words(5)), layers=[1, 3])
    assert list(figure.layout.xaxis.ticktext) == ["layer 1", "layer 3"]
    with pytest.raises(ValueError, match="layers 0 to 3"):
        figures.routing_ribbon(routing(words(5)), layers=[4])


def test_an_experts_number_is_written_wherever_there_is_room():
    for bars in figures.routing_ribbon(routing(words(15))).data:
        written = [(int(number), expert) for number, expert in zip(bars.text, bars.customdata, strict=True) if number]
        assert len(written) > len(bars.text) / 2
        assert all(number == expert for number, expert in written)


def test_an_expert_has_the_same_colour_wherever_it_is():
    for bars in figures.routing_ribbon(routing(words(15), n_experts=32, n_slots=4)).data:
        scale = bars.marker
        shown = [step(scale, value) for value in scale.color]
        assert shown == [expert_colour(expert) for expert in bars.customdata]


def step(scale, value: float) -> str:
    """The colour of a value on a scale of flat steps, as plotly looks it up."""
    share = (value - scale.cmin) / (scale.cmax - scale.cmin)
    return next(c for (low, c), (high, _) in pairwise(scale.colorscale) if low < share < high)


def test_the_overview_of_a_long_text_shares_out_each_cell_by_weight():
    data = routing(words(200), n_layers=2, n_slots=4, n_experts=32)
    (picture,) = figures.routing_ribbon(data).data
    cells = table(picture.z).reshape(200, 2, -1)
    assert np.isnan(cells[..., -1]).all()
    steps = cells[..., :-1]
    for slot in range(4):
        chosen, weight = data.chosen.values[..., slot], data.weight.values[..., slot]
        assert (steps == chosen[..., None]).mean(-1) == pytest.approx(weight, abs=1 / steps.shape[-1] + 1e-6)
    assert (np.diff(steps[0, 0]) != 0).sum() <= 3  # the slots side by side, strongest first
    assert steps[0, 0, 0] == data.chosen.values[0, 0, 0]


def test_load_bars_show_the_load():
    data = routing(words(40))
    for layer, bars in enumerate(figures.expert_load(data).data):
        assert list(bars.y) == pytest.approx(data["load"].sel(layer=layer).values)


def test_the_load_table_shows_the_load_of_one_layer():
    data = loads(["sums", "<b>"])
    assert np.array_equal(table(figures.load_table(data, 2).data[0].z), data["load"].sel(layer=2).values)


def test_head_scores_are_shown_and_a_head_that_cannot_reach_has_none():
    data = head_scores()
    for kind, cells in zip(data.kind.values, figures.head_scores(data).data, strict=True):
        assert np.array_equal(table(cells.z), data.score.sel(kind=kind).values, equal_nan=True)
    assert cells.text[0][0] == "·"


def test_bars_show_each_runs_probabilities_of_the_candidates_and_skip_fillers():
    data = comparison(words(6), ["before", "expert out", "control"])
    figure = figures.next_token_bars(data, pos=9)
    for i, bars in enumerate(figure.data):
        assert bars.name == data.run.values[i]
        assert np.array(bars.x, dtype=np.float32) == pytest.approx(data.probability.sel(pos=9).isel(run=i).values[:4])
    assert len({(bars.marker.color, bars.marker.pattern.shape) for bars in figure.data}) == 3


def test_a_position_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="positions 7 to 12"):
        figures.next_token_bars(comparison(words(6)), pos=0)


def test_a_cell_that_is_no_number_has_the_colour_of_what_is_not_seen():
    fills = colours([0.0, float("nan"), 1.0], SEQUENTIAL, 0.0, 1.0)
    assert fills[1] == UNSEEN and UNSEEN not in (fills[0], fills[2])
    data = lens(words(3))
    data["top_probability"].values[1] = np.nan
    z = figures.logit_lens_heatmap(data).data[0].z
    assert set(z[1]) == {None} and None not in z[0]
