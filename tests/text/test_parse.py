"""Tokens back to messages: the model's own forms, and OpenAI's parser as the truth."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.text.samples import WEATHER
from workbench.text import Chat, Developer, HarmonyError, Message, System, Tokenizer, parse, render

TURN = (
    "<|channel|>analysis<|message|>I must look.<|end|>"
    "<|start|>assistant<|channel|>commentary<|message|>One moment.<|end|>"
    '<|start|>assistant<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{"city":"x"}<|call|>'
)
COMPLETIONS = {
    "an answer": "<|channel|>final<|message|>Yes.<|return|>",
    "thinking and an answer": (
        "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>Yes.<|return|>"
    ),
    "thinking, a preamble and a call": TURN,
    "python": "<|channel|>analysis to=python code<|message|>1 + 1<|call|>",
}


@pytest.mark.parametrize("name", COMPLETIONS)
def test_a_completion_is_parsed_as_by_the_harmony_library(
    gpt_oss: Tokenizer, harmony_library: ModuleType, harmony_encoding: Any, name: str
):
    ids = gpt_oss.encode(COMPLETIONS[name])
    theirs = harmony_encoding.parse_messages_from_completion_tokens(ids, harmony_library.Role.ASSISTANT)
    ours = parse(ids, gpt_oss)
    assert ours.system_message is None
    assert len(ours.messages) == len(theirs)
    for mine, other in zip(ours.messages, theirs, strict=True):
        assert isinstance(mine, Message)
        assert (mine.role, mine.text, mine.channel) == (other.author.role.value, other.content[0].text, other.channel)
        assert mine.recipient == (None if other.recipient in (None, "all") else other.recipient)
        assert mine.content_type == (other.content_type or "").removeprefix("<|constrain|>") or not other.content_type


def test_a_chat_and_what_the_model_wrote_are_one_chat(tokenizer: Tokenizer):
    asked = Chat().developer("Be brief.", [WEATHER]).user("How is it in Zürich?")
    ids = render(asked, tokenizer) + tokenizer.encode(TURN)
    assert parse(ids, tokenizer).messages[:2] == parse(render(asked, tokenizer), tokenizer).messages
    assert parse(ids, tokenizer).messages[2:] == (
        Message("assistant", "I must look.", "analysis"),
        Message("assistant", "One moment.", "commentary"),
        Message("assistant", '{"city":"x"}', "commentary", "functions.get_weather", None, "json"),
    )


def test_a_message_that_is_being_written_is_open(nano: Tokenizer):
    prompt = render(Chat().user("Where is Mia?"), nano)
    so_far = parse(prompt + nano.encode("<|channel|>final<|message|>In the"), nano)
    assert so_far == Chat().user("Where is Mia?").assistant("In the", complete=False)


@pytest.mark.parametrize("rest", ["", "<|channel|>", "<|channel|>final"])
def test_a_header_whose_body_has_not_begun_is_no_message(nano: Tokenizer, rest: str):
    chat = Chat().user("Where is Mia?")
    assert parse(render(chat, nano) + nano.encode(rest), nano) == chat


def test_what_the_checkpoint_says_by_default_is_none_and_other_words_are_kept(nano: Tokenizer):
    system = parse(render(Chat().system("You are Bob.", date="2025-06-28").user("a"), nano), nano).system_message
    assert system == System(identity="You are Bob.", date="2025-06-28")


def test_unusual_system_and_developer_texts_are_kept_as_they_stand(tokenizer: Tokenizer):
    texts = ["Speak like a pirate.", "Reasoning: extreme\n\n# Valid channels: all.", "Knowledge cutoff: x", ""]
    for text in texts:
        ids = tokenizer.encode(f"<|start|>system<|message|>{text}<|end|><|start|>developer<|message|>{text}!<|end|>")
        chat = parse(ids, tokenizer)
        assert chat == Chat(Message("system", text), (Message("developer", text + "!"),))
        assert render(chat, tokenizer, add_generation_prompt=False) == ids


def test_a_tool_is_read_back_with_its_name_and_text(tokenizer: Tokenizer):
    chat = Chat().developer("Be brief.", [WEATHER]).user("a")
    (developer, _) = parse(render(chat, tokenizer), tokenizer).messages
    assert isinstance(developer, Developer)
    assert (developer.instructions, [tool.name for tool in developer.tools]) == ("Be brief.", ["get_weather"])
    assert developer.tools[0].typescript.startswith("// Tells the weather.\ntype get_weather = (_: {")


MALFORMED = {
    "Mia": r"token 0 \('M.*'\) stands outside of any message",
    "<|start|>user<|message|>a<|end|>b": r"token \d+ \('b'\) stands outside",
    "<|start|>nobody<|message|>a<|end|>": r"begins at token 0 has a header with the word 'nobody'",
    "<|start|>assistant<|channel|>dreams<|message|>a<|end|>": "the word 'dreams', which is no role or channel",
    "<|start|><|message|>a<|end|>": "does not say whose it is",
    "<|start|>user<|message|>a<|channel|>b<|end|>": r"has a <\|channel\|> where none belongs",
    "<|start|>assistant<|channel|>final<|channel|>final<|message|>a<|end|>": r"has a <\|channel\|> where none belongs",
    "<|start|>user<|end|>": r"has no <\|message\|>",
    "<|start|>user<|message|>a<|start|>user<|message|>b<|end|>": "has no closing token",
}


@pytest.mark.parametrize("text", MALFORMED)
def test_malformed_tokens_are_refused_with_the_place(tokenizer: Tokenizer, text: str):
    with pytest.raises(HarmonyError, match=MALFORMED[text]):
        parse(tokenizer.encode(text), tokenizer)


def test_what_can_be_understood_of_malformed_tokens_is_given_when_asked(nano: Tokenizer):
    text = "x<|start|>user<|message|>a<|start|>nobody<|message|>b<|end|><|start|>user<|message|>c<|end|>"
    assert parse(nano.encode(text), nano, strict=False).messages == (
        Message("user", "a", complete=False),
        Message("user", "c"),
    )


@given(ids=st.lists(st.one_of(st.integers(0, 8), st.integers(0, 1023), st.integers(-2, 4000)), max_size=30))
def test_any_ids_are_parsed_or_refused_with_one_error(nano: Tokenizer, ids: list[int]):
    assert isinstance(parse(ids, nano, strict=False), Chat)
    try:
        parse(ids, nano)
    except HarmonyError as error:
        assert len(str(error).splitlines()) == 1
