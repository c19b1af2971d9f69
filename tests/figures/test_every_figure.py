"""What holds of every figure: hostile tokens are only text, sizes are sensible, nothing outside is touched."""

import json

import plotly.io as pio
import pytest

from tests.figures.data import HOSTILE, OURS, TAG, attention, comparison, lens, routing, strings, text, words
from tests.figures.drawn import DRAWN
from workbench import figures

every_figure = pytest.mark.parametrize("name", DRAWN)


@every_figure
@pytest.mark.parametrize("n", [1, 20, 300])
def test_a_figure_of_hostile_tokens_holds_no_markup_but_our_own(name: str, n: int):
    for string in strings(DRAWN[name](words(n)).to_plotly_json()):
        for closing, tag, rest in TAG.findall(string):
            assert (tag, "") in OURS, string
            assert not rest.strip() or (tag == "span" and rest.startswith(' style="color:#') and not closing), string
        assert "$" not in string
        assert "\n" not in string
        assert "\u202e" not in string
        assert len(string) < 2_000


@every_figure
@pytest.mark.parametrize("n", [1, 20, 300])
def test_a_figure_is_neither_tiny_nor_huge(name: str, n: int):
    layout = DRAWN[name](words(n)).layout
    assert 400 <= layout.width <= 900
    assert 100 <= layout.height <= (3_400 if n == 300 else 1_000)


@every_figure
def test_a_figure_is_strict_json_without_packed_arrays(name: str):
    sent = DRAWN[name](words(30)).to_json()
    json.loads(sent, parse_constant=lambda constant: pytest.fail(f"{constant} is no JSON"))
    assert "bdata" not in sent


@every_figure
def test_tokens_that_are_equal_keep_places_of_their_own(name: str):
    figure = DRAWN[name](["same"] * 12)
    for axis in (*figure.select_xaxes(), *figure.select_yaxes()):
        places = list(axis.tickvals or ())
        assert len(set(places)) == len(places)
        assert all(isinstance(place, int | float) for place in places)


@every_figure
def test_a_template_does_not_interpret_a_token(name: str):
    for trace in DRAWN[name](words(len(HOSTILE))).data:
        for template in (getattr(trace, "hovertemplate", None), getattr(trace, "texttemplate", None)):
            assert "customdata[0]" not in (template or "")


@every_figure
def test_drawing_changes_no_global_default(name: str):
    before = pio.templates.default, sorted(pio.templates), pio.renderers.default
    DRAWN[name](words(5))
    assert (pio.templates.default, sorted(pio.templates), pio.renderers.default) == before


def test_every_figure_that_there_is_is_drawn_here():
    assert {name.split(",")[0] for name in DRAWN} == set(figures.__all__)


def test_drawing_leaves_the_data_as_it_was():
    for draw, data in [
        (figures.tokens, text(words(9))),
        (figures.logit_lens_heatmap, lens(words(9))),
        (figures.attention_pattern, attention(words(9))),
        (figures.routing_ribbon, routing(words(9))),
        (lambda made: figures.next_token_bars(made, 7), comparison(words(9))),
    ]:
        untouched = data.copy(deep=True)
        draw(data)
        assert data.identical(untouched)


@pytest.mark.parametrize(
    ("draw", "maker"),
    [
        (figures.logit_lens_heatmap, "logit_lens"),
        (figures.attention_pattern, "attention"),
        (figures.routing_ribbon, "routing"),
        (figures.expert_load, "expert_load"),
        (figures.head_scores, "head_scores"),
        (lambda data: figures.next_token_bars(data, 7), "compare"),
    ],
)
def test_data_of_another_experiment_is_refused_with_the_name_of_the_right_one(draw, maker):
    with pytest.raises(ValueError, match=rf"experiments\.{maker} returns"):
        draw(text(words(5)))


def test_a_dataset_without_tokens_is_refused():
    with pytest.raises(ValueError, match="needs tokens along 'pos'"):
        figures.tokens(attention(words(5)))
    with pytest.raises(ValueError, match="nothing to draw"):
        figures.tokens(text(words(5)).isel(pos=slice(0, 0)))


def test_a_figure_says_which_model_it_shows():
    data = text(words(4)).assign_attrs(model="nano", fingerprint="f00d", experiment="tokens", time="now")
    assert figures.tokens(data).layout.meta == {"model": "nano", "fingerprint": "f00d", "experiment": "tokens"}
