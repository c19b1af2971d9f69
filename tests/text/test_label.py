"""Labels of tokens: right where harmony is well-formed, and an answer for every other sequence of ids too."""

from __future__ import annotations

from itertools import groupby
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.text.conversations import Step, build, conversations
from workbench.text import Chat, Developer, Message, System, Tokenizer, label, render, visible

ROLES = {"system", "developer", "user", "assistant", "tool", None}
CHANNELS = {"analysis", "commentary", "final", None}


def words(text: str, tokenizer: Tokenizer) -> list[tuple[str, int, str, str]]:
    """Label a text with spelled-out markers; its runs of equal labels as (text, message, name, part)."""
    ids = tokenizer.encode(text)
    labels = label(ids, tokenizer)
    runs = groupby(zip(ids, labels, strict=True), key=lambda pair: (pair[1].message, pair[1].name, pair[1].part))
    return [(tokenizer.decode(i for i, _ in run), *key) for key, run in runs]


@given(steps=conversations)
def test_each_body_is_the_messages_text_and_has_its_role_and_channel(nano: Tokenizer, steps: list[Step]):
    chat = build(steps)
    ids = render(chat, nano, add_generation_prompt=False)
    labels = label(ids, nano)
    for number, message in enumerate(visible(chat, False).all_messages):
        mine = [(i, each) for i, each in zip(ids, labels, strict=True) if each.message == number]
        assert {each.role for _, each in mine} == {message.role}
        if isinstance(message, Message):
            assert {(each.channel, each.recipient) for _, each in mine} == {(message.channel, message.recipient)}
            assert nano.decode(i for i, each in mine if each.part == "body") == message.text
        else:
            assert isinstance(message, System | Developer)
    assert set(labels.message) == set(range(len(visible(chat, False).all_messages)))


def test_the_labels_of_a_turn_read_as_one_expects(nano: Tokenizer):
    text = (
        "<|start|>user<|message|>Hi<|end|><|start|>assistant<|channel|>analysis<|message|>hm<|end|>"
        "<|start|>assistant<|channel|>final<|message|>Yes<|return|>"
    )
    assert words(text, nano) == [
        ("<|start|>", 0, "user", "marker"),
        ("user", 0, "user", "header"),
        ("<|message|>", 0, "user", "marker"),
        ("Hi", 0, "user", "body"),
        ("<|end|>", 0, "user", "marker"),
        ("<|start|>", 1, "assistant/analysis", "marker"),
        ("assistant", 1, "assistant/analysis", "header"),
        ("<|channel|>", 1, "assistant/analysis", "marker"),
        ("analysis", 1, "assistant/analysis", "header"),
        ("<|message|>", 1, "assistant/analysis", "marker"),
        ("hm", 1, "assistant/analysis", "body"),
        ("<|end|>", 1, "assistant/analysis", "marker"),
        ("<|start|>", 2, "assistant/final", "marker"),
        ("assistant", 2, "assistant/final", "header"),
        ("<|channel|>", 2, "assistant/final", "marker"),
        ("final", 2, "assistant/final", "header"),
        ("<|message|>", 2, "assistant/final", "marker"),
        ("Yes", 2, "assistant/final", "body"),
        ("<|return|>", 2, "assistant/final", "marker"),
    ]


CALLS = [
    "<|start|>assistant<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{}<|call|>",
    "<|start|>assistant to=functions.get_weather<|channel|>commentary <|constrain|>json<|message|>{}<|call|>",
    "<|start|>assistant to=functions.get_weather<|channel|>commentary json<|message|>{}<|call|>",
]


@pytest.mark.parametrize("text", CALLS)
def test_a_call_names_its_recipient_wherever_the_model_puts_it(tokenizer: Tokenizer, text: str):
    for each in label(tokenizer.encode(text), tokenizer):
        assert (each.role, each.channel, each.recipient) == ("assistant", "commentary", "functions.get_weather")


def test_a_tools_result_is_the_tools(tokenizer: Tokenizer):
    text = "<|start|>functions.get_weather to=assistant<|channel|>commentary<|message|>{}<|end|>"
    for each in label(tokenizer.encode(text), tokenizer):
        assert (each.role, each.channel, each.recipient) == ("tool", "commentary", "assistant")


# What the model just wrote, cut off, or malformed; and its runs of words: (words, number of the message, name, part).
USER = [("user", 0, "user", "header"), ("Hi", 0, "user", "body")]
ODD: dict[str, tuple[str, list[tuple[str, int, str, str]]]] = {
    "plain text": ("Mia is here.", [("Mia is here.", -1, "", "body")]),
    "a completion alone": (
        "<|channel|>final<|message|>Yes",
        [("final", 0, "assistant/final", "header"), ("Yes", 0, "assistant/final", "body")],
    ),
    "cut off in the header": (
        "<|start|>assistant<|channel|>ana",
        [("assistant", 0, "assistant", "header"), ("ana", 0, "assistant", "header")],
    ),
    "a generation prompt": ("<|start|>assistant", [("assistant", 0, "assistant", "header")]),
    "only a start": ("<|start|>", []),
    "the start is missing": ("user<|message|>Hi<|end|>", USER),
    "the beginning of a body is missing": (
        "and so on<|end|><|start|>user",
        [("and so on", 0, "", "body"), ("user", 1, "user", "header")],
    ),
    "the beginning of an answer is missing": ("and so on<|return|>", [("and so on", 0, "assistant", "body")]),
    "the beginning of a call is missing": ('"x"}<|call|>', [('"x"}', 0, "assistant", "body")]),
    "a marker twice in a header": (
        "<|start|>assistant<|channel|>final<|channel|>final<|message|>Hi<|end|>",
        [(word, 0, "assistant/final", "header") for word in ("assistant", "final", "final")]
        + [("Hi", 0, "assistant/final", "body")],
    ),
    "no closing token": (
        "<|start|>user<|message|>Hi<|start|>assistant",
        [*USER, ("assistant", 1, "assistant", "header")],
    ),
    "text between messages": (
        "<|start|>user<|message|>Hi<|end|> so<|start|>user",
        [*USER, (" so", -1, "", "body"), ("user", 1, "user", "header")],
    ),
    "the model forgets the start": (
        "<|start|>user<|message|>Hi<|end|><|channel|>final<|message|>Yes",
        [*USER, ("final", 1, "assistant/final", "header"), ("Yes", 1, "assistant/final", "body")],
    ),
    "a tool of another name": (
        "<|start|>wiki.search to=assistant<|message|>Hi<|end|>",
        [("wiki.search to=assistant", 0, "tool", "header"), ("Hi", 0, "tool", "body")],
    ),
    "an unknown role": ("<|start|>nobody<|message|>Hi<|end|>", [("nobody", 0, "", "header"), ("Hi", 0, "", "body")]),
    "an unknown channel": (
        "<|start|>assistant<|channel|>dreams<|message|>Hi<|end|>",
        [(word, 0, "assistant", "header") for word in ("assistant", "dreams")] + [("Hi", 0, "assistant", "body")],
    ),
    "a marker in a body": (
        "<|start|>user<|message|>Hi<|channel|>final<|message|>b<|end|>",
        [*USER, ("final", 0, "user", "body"), ("b", 0, "user", "body")],
    ),
    "messages of nothing": (
        "<|start|>user<|end|><|start|>user<|message|><|end|>",
        [("user", 0, "user", "header"), ("user", 1, "user", "header")],
    ),
    "padding on both sides": ("<|endoftext|><|endoftext|><|start|>user<|message|>Hi<|end|><|endoftext|>", USER),
    "text that goes on after the end": (
        "<|start|>user<|message|>Hi<|endoftext|>Mia",
        [*USER, ("Mia", -1, "", "body")],
    ),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_sequences_get_the_labels_that_can_be_known(tokenizer: Tokenizer, name: str):
    text, expected = ODD[name]
    assert [run for run in words(text, tokenizer) if run[3] != "marker"] == expected


def test_padding_belongs_to_no_message(nano: Tokenizer):
    ids = nano.encode("<|endoftext|><|endoftext|><|start|>user<|message|>Hi<|end|><|endoftext|>")
    labels = label(ids, nano)
    assert [labels.message[i] for i in (0, 1, -1)] == [-1, -1, -1]


@st.composite
def any_ids(draw: st.DrawFn) -> list[int]:
    """Any integers, many of them harmony's markers, and words that headers are made of."""
    tokens = st.one_of(st.integers(0, 1023), st.integers(0, 8), st.integers(-3, 300_000), st.sampled_from(HEADER_WORDS))
    return draw(st.lists(tokens, max_size=40))


HEADER_WORDS = list(range(9, 1024, 13))


@given(ids=any_ids())
def test_any_ids_whatever_get_labels_that_hold_together(nano: Tokenizer, ids: list[int]):
    labels = label(ids, nano)
    special = set(nano.special.values())
    assert len(labels) == len(ids)
    assert set(labels.part) <= {"marker", "header", "body"}
    assert set(labels.role) <= ROLES and set(labels.channel) <= CHANNELS
    for token, each in zip(ids, labels, strict=True):
        assert (token in special) == (each.part == "marker")
        if each.message < 0:
            assert (each.role, each.channel, each.recipient) == (None, None, None)
    numbers = [number for number in labels.message if number >= 0]
    assert numbers == sorted(numbers) and set(numbers) == set(range(len(set(numbers))))
    for number in set(numbers):
        assert len({(each.role, each.channel, each.recipient) for each in labels if each.message == number}) == 1


@given(ids=any_ids())
def test_every_start_begins_a_message(nano: Tokenizer, ids: list[int]):
    labels = label(ids, nano)
    at = [i for i, token in enumerate(ids) if token == nano.special["<|start|>"]]
    assert all(labels.message[i] > max(labels.message[:i], default=-1) for i in at)


def test_columns_items_and_slices_agree(nano: Tokenizer):
    ids = render(Chat().user("Where is Mia?"), nano)
    labels = label(ids, nano)
    assert labels[3].role == labels.role[3] == "system"
    assert labels[2:5].part == labels.part[2:5]
    assert [each.name for each in labels] == list(labels.name)


def test_a_row_of_a_tensor_can_be_labelled(nano: Tokenizer):
    import numpy as np

    ids = render(Chat().user("a"), nano)
    rows: Any = np.array(ids)
    assert label(rows, nano) == label(ids, nano)
