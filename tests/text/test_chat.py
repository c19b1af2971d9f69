"""The builder's refusals: one message that names the known values and the nearest."""

from __future__ import annotations

from datetime import date

import pytest

from workbench.text import Chat, HarmonyError, Message, System


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (
            lambda: System(reasoning="hihg"),
            r"reasoning 'hihg' is unknown; closest is 'high'; known are low, medium, high",
        ),
        (lambda: System(channels=("finale",)), "channel 'finale' is unknown; closest is 'final'"),
        (lambda: System(tools=("pyhton",)), "built-in tool 'pyhton' is unknown; closest is 'python'"),
        (lambda: System(date="yesterday"), "date 'yesterday' is not a date"),
        (lambda: Message("asistant", "x"), "role 'asistant' is unknown; closest is 'assistant'"),
        (lambda: Message("assistant", "x", "analyse"), "channel 'analyse' is unknown; closest is 'analysis'"),
        (lambda: Chat().assistant("x", recipient="functions.f"), "a final message is for the user"),
    ],
)
def test_an_unknown_value_is_refused_with_the_nearest_known_one(make, says: str):
    with pytest.raises(ValueError, match=says):
        make()


def test_a_date_is_a_date_or_its_iso_text():
    assert Chat().system(date=date(2025, 6, 28)) == Chat().system(date="2025-06-28")


def test_a_second_system_call_replaces_the_first():
    assert Chat().system(reasoning="low").user("a").system(reasoning="high") == Chat().system(reasoning="high").user(
        "a"
    )


def test_all_messages_begin_with_the_system_message_that_is_always_there():
    chat = Chat().user("a")
    assert chat.all_messages == (System(), *chat.messages)
    assert Chat(None, chat.messages).all_messages == chat.messages


def test_harmony_errors_are_value_errors():
    assert issubclass(HarmonyError, ValueError)
