"""A prediction is made once, before the figure is seen, and is a value in Python."""

from __future__ import annotations

from types import SimpleNamespace

import plotly.graph_objects as go
import pytest

from workbench.lessons.prediction import Prediction, ask

FIGURE = go.Figure(go.Bar(y=[1, 2]))


def prediction(kept=None, reveal=lambda: FIGURE, because="", **options):
    defaults = {"choices": None, "number": None, "selection": None}
    question = ask("key", "How much?", **(defaults | options))
    keep = (lambda *what: kept.append(what)) if kept is not None else (lambda *what: None)
    return Prediction(question, reveal, because, keep)


@pytest.fixture
def display(monkeypatch):
    seen = []

    def show(*what, **options):
        seen.extend((each, options) for each in what)
        return SimpleNamespace(update=lambda html: seen.append((html, {})))

    monkeypatch.setattr("IPython.display.display", show)
    return seen


def test_a_choice_is_committed_once():
    kept = []
    made = prediction(kept, choices=["none", "half", "all"], answer="half")
    assert not made.committed and made.right is None
    made.commit("all")
    assert (made.value, made.right) == ("all", False)
    with pytest.raises(ValueError, match="committed 'all' already"):
        made.commit("half")
    made.commit("all")
    assert kept == [("key", "all", False)]


@pytest.mark.parametrize(
    ("options", "given", "says"),
    [
        ({"choices": ["none", "half"], "answer": "half"}, "haf", "nearest: 'half'"),
        ({"number": (0, 1), "answer": 0.5}, 1.5, "from 0 to 1, you gave 1.5"),
        ({"number": (0, 1), "answer": 0.5}, "half", "you gave 'half'"),
        ({"number": (0, 1), "answer": 0.5}, float("nan"), "from 0 to 1"),
        ({"choices": ["a", "b"], "answer": "a"}, None, "choose an answer first"),
    ],
)
def test_what_is_no_answer_is_refused_and_nothing_is_committed(options, given, says):
    made = prediction(**options)
    with pytest.raises(ValueError, match=says):
        made.commit(given)
    assert not made.committed


def test_a_number_is_close_within_a_tenth_of_the_range_or_as_asked():
    assert prediction(number=(0, 10), answer=5).question.right(5.9)
    assert not prediction(number=(0, 10), answer=5).question.right(6.1)
    assert not prediction(number=(0, 10), answer=5, tolerance=0.5).question.right(5.9)


def test_a_selection_made_in_a_view_is_the_answer():
    bench = SimpleNamespace(selection=SimpleNamespace(layer=1, head=None, expert=3))
    made = prediction(selection=(bench, ("layer", "head")), answer={"layer": 1, "head": 7})
    with pytest.raises(ValueError, match="select layer and head"):
        made.commit()
    bench.selection.head = 7
    made.commit()
    assert made.value == {"layer": 1, "head": 7} and made.right


def test_the_answer_is_not_computed_before_it_is_needed():
    asked = []
    made = prediction(number=(0, 1), answer=lambda: asked.append(1) or 0.25)
    assert not asked
    made.commit(0.2)
    assert asked and made.right


@pytest.mark.parametrize("options", [{}, {"choices": ["a"], "number": (0, 1)}])
def test_a_question_has_one_kind_of_answer(options):
    with pytest.raises(ValueError, match="one of choices"):
        prediction(answer="a", **options)


def test_an_answer_that_is_no_choice_is_our_mistake():
    with pytest.raises(ValueError, match="none of"):
        prediction(choices=["a", "b"], answer="c")


def test_in_a_notebook_the_figure_comes_after_the_click_and_not_before(display):
    revealed = []
    made = prediction(
        choices=["none", "half"], answer="half", reveal=lambda: revealed.append(1) or FIGURE, because="Sinks."
    )
    made.show()
    control, button, beside = made._control, made._button, made._beside
    button.click()
    assert not made.committed and "choose an answer first" in made._said.value
    assert not revealed and not beside.outputs
    assert "half" not in made._still_html().split("</ul>")[1]  # what is kept in the file does not tell it either
    control.value = "none"
    button.click()
    assert made.value == "none" and control.disabled and button.disabled
    assert revealed == [1] and made.figure is FIGURE
    assert "application/vnd.plotly.v1+json" in beside.outputs[0]["data"]
    assert beside.outputs[1]["data"]["text/markdown"] == "Sinks."
    assert "It is <b>half</b>" in made._said.value
    assert "none" in display[-1][0].data and "half" in display[-1][0].data  # the still form says both now


def test_one_committed_in_an_earlier_kernel_is_shown_answered_at_once(display):
    made = prediction(choices=["none", "half"], answer="half")
    made.restore("none")
    made.show()
    assert made._control.value == "none" and made._control.disabled and made._beside.outputs


def test_one_that_the_question_no_longer_allows_is_asked_anew(display):
    made = prediction(choices=["none", "half"], answer="half")
    made.restore("a third")
    made.show()
    assert not made.committed and not made._control.disabled


@pytest.mark.parametrize(("typed", "value"), [("0.25", 0.25), (" 0,25 ", 0.25), ("25 %", 25.0), ("1e-1", 0.1)])
def test_a_number_is_typed_as_people_do(display, typed, value):
    made = prediction(number=(0, 100), answer=0.25)
    made.show()
    made._button.click()
    assert not made.committed and "choose an answer first" in made._said.value
    made._control.value = "many"
    made._button.click()
    assert not made.committed and "expected a number from 0 to 100" in made._said.value
    made._control.value = typed
    made._button.click()
    assert made.value == value and made._control.disabled


def test_hostile_text_becomes_text(display):
    hostile = "<img src=x onerror=alert(1)>"
    made = prediction(choices=[hostile, "b"], answer="b", because=hostile, reveal=None)
    made.show()
    made.commit(hostile)
    for html in (made._said.value, display[-1][0].data):
        assert "<img" not in html and "&lt;img" in html


def test_without_a_reader_the_answer_is_under_a_line_to_open(display):
    made = prediction(choices=["none", "half"], answer="half", because="Sinks.")
    made.show_answered()
    figure, options = display[-1]
    assert "application/vnd.plotly.v1+json" in figure
    assert "half" in options["metadata"]["workbench_folded"]["after"]
    assert "half" not in display[0][0].data.split("</ul>")[1]
