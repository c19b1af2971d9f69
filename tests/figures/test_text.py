"""Token text shows all that is in it, and is never markup."""

import html
import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.figures.data import HOSTILE
from workbench.figures.text import columns_of, escape, label, position_labels, visible


@pytest.mark.parametrize(
    ("token", "shown"),
    [
        (" park", "␣park"),
        ("a b", "a b"),
        ("a  b", "a␣␣b"),
        ("end ", "end␣"),
        ("\n\n", "¶¶"),
        ("\r\n\t", "␍¶⇥"),
        ("\u00a0", "⍽"),
        ("", "∅"),
        ("\u200b", "\\u200b"),
        ("\u202ex", "\\u202ex"),
        ("\u0301", "◌\u0301"),
        ("\ud800", "\\ud800"),
        ("\\xe2", "\\xe2"),
        ("東", "東"),
    ],
)
def test_what_cannot_be_seen_is_made_visible(token: str, shown: str):
    assert visible(token) == shown


@given(st.text())
def test_a_shown_token_has_no_character_that_is_invisible_or_breaks_the_line(token: str):
    assert not [char for char in visible(token) if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp")]


@given(st.text(), st.integers(1, 30))
def test_a_limit_is_kept_and_a_cut_is_marked(token: str, limit: int):
    shown = visible(token, limit)
    assert len(shown) <= limit
    assert shown == visible(token) or shown.endswith("…")


def test_ten_thousand_characters_are_cut():
    assert visible("x" * 10_000, 24) == "x" * 23 + "…"


@given(st.text())
def test_escaped_text_is_read_back_as_itself_and_holds_no_markup(text: str):
    escaped = escape(text)
    assert not re.search(r'[<>$"]', escaped)
    # Plotly knows numeric entities, as HTML does; html.unescape would also mend invalid ones, so compare only ours.
    assert re.sub(r"&#(\d+);", lambda m: chr(int(m[1])), escaped) == text


@pytest.mark.parametrize("token", HOSTILE)
def test_a_label_is_the_token_in_plain_text(token: str):
    plain = html.unescape(label(token, None)).strip("\u2068\u2069")
    assert plain == visible(token)
    assert "<" not in label(token, None)


def test_a_right_to_left_token_does_not_turn_its_neighbours_round():
    assert label("مرحبا") == "\u2068مرحبا\u2069"


def test_quiet_marks_are_grey_and_nothing_else_is():
    assert re.sub(r"<span[^>]*>(.)</span>", r"\1", label(" <b>", quiet_marks=True)) == "␣&#60;b&#62;"


def test_an_axis_label_says_where_the_token_is():
    first, second = position_labels(["same", "same"], [3, 4])
    assert first != second
    assert first.startswith("same ")
    assert ">3<" in first


def test_wide_characters_take_two_columns_and_accents_none():
    assert [columns_of(text) for text in ("ab", "東京", "e\u0301", "🚀")] == [2, 4, 1, 2]
