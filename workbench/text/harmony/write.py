"""Messages to tokens by ourselves, in the form of OpenAI's harmony library."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from workbench.text.harmony.chat import Chat, Developer, Message, System
from workbench.text.harmony.content import developer_text, system_text
from workbench.text.harmony.scan import CALL, CHANNEL, CONSTRAIN, END, MESSAGE, RETURN, START
from workbench.text.tokenizer import Tokenizer


def message_writer(chat: Chat, tokenizer: Tokenizer, add_generation_prompt: bool) -> Callable[[int], list[int]]:
    """A function that gives the ids of the chat's message of a number, counted as `label` does."""
    everything = chat.all_messages
    has_functions = any(isinstance(message, Developer) and message.tools for message in everything)

    def write(number: int) -> list[int]:
        message = everything[number]
        if isinstance(message, System):
            message = Message("system", system_text(message, tokenizer, has_functions))
        elif isinstance(message, Developer):
            message = Message("developer", developer_text(message))
        ends_turn = number == len(everything) - 1 and not add_generation_prompt
        return list(_message_ids(message, tokenizer, ends_turn))

    return write


def _message_ids(message: Message, tokenizer: Tokenizer, ends_turn: bool) -> Iterator[int]:
    def plain(text: str) -> list[int]:
        return tokenizer.encode(text, allow_special=False)

    special = tokenizer.special
    to = f" to={message.recipient}" if message.recipient else ""
    yield special[START]
    yield from plain((message.name or message.role) + to)
    if message.channel:
        yield special[CHANNEL]
        yield from plain(message.channel)
    if message.content_type:
        yield from _content_type(message.content_type, tokenizer)
    yield special[MESSAGE]
    yield from plain(message.text)
    if message.complete:
        yield special[_closing(message, ends_turn)]


def _content_type(form: str, tokenizer: Tokenizer) -> list[int]:
    # JSON is a format that generation can be held to, and so marked; other forms ("code") are named only.
    if form == "json" and CONSTRAIN in tokenizer.special:
        return [*tokenizer.encode(" "), tokenizer.special[CONSTRAIN], *tokenizer.encode(form)]
    return tokenizer.encode(f" {form}", allow_special=False)


def _closing(message: Message, ends_turn: bool) -> str:
    if message.role == "assistant" and message.recipient is not None:
        return CALL
    return RETURN if ends_turn and message.role == "assistant" and message.channel == "final" else END
