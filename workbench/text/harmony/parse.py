"""Tokens back to a conversation."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import SupportsIndex

from workbench.text.harmony.chat import Chat, Developer, HarmonyError, Message, System
from workbench.text.harmony.content import parse_developer, parse_system
from workbench.text.harmony.scan import MESSAGE, START, Draft, scan
from workbench.text.tokenizer import Tokenizer


def parse(tokens: Iterable[SupportsIndex], tokenizer: Tokenizer, strict: bool = True) -> Chat:
    """The conversation that tokens say: a prompt, a prompt with its completion, or a completion alone.

    A generation prompt at the end (`<|start|>assistant` whose body has not begun) is no message. A last message
    without a closing token has `complete=False`. System and developer messages become `System` and `Developer`, with
    None where they say what the checkpoint says by default, or a plain `Message` where their text is unusual.

    Args:
        tokens: token ids [pos].
        tokenizer: the model's.
        strict: False gives what can be understood instead of an error; `label` tells what each token was taken for.

    Raises:
        HarmonyError: strict, and the tokens are no well-formed harmony; the message says where.

    >>> tokens = model.to_tokens(wb.Chat().user("Where is Mia?"))[0].tolist()
    >>> [message.role for message in text.parse(tokens, model.tokenizer).messages]
    ['user']
    """
    ids = [operator.index(i) for i in tokens]
    found = scan(ids, tokenizer)
    if strict:
        _check_loose(ids, found.message, found.part, tokenizer)
    drafts = found.drafts
    if drafts and drafts[-1].body is None and drafts[-1].closing is None:
        drafts = drafts[:-1]  # a generation prompt
    messages = [_message(draft, tokenizer, strict, draft is found.drafts[-1]) for draft in drafts]
    return _chat([message for message in messages if message is not None], tokenizer)


def _check_loose(ids: list[int], message: list[int], part: list[str], tokenizer: Tokenizer) -> None:
    for i, (number, kind) in enumerate(zip(message, part, strict=True)):
        if number < 0 and kind == "body":
            text = tokenizer.str_tokens([ids[i]])[0] if 0 <= ids[i] < tokenizer.n_ids else ids[i]
            raise HarmonyError(f"token {i} ({text!r}) stands outside of any message; a message begins with {START}")


def _message(draft: Draft, tokenizer: Tokenizer, strict: bool, last: bool) -> Message | None:
    header = draft.header
    if strict:
        _check(draft, last)
    if header.role is None or draft.body is None:
        return None
    text = tokenizer.decode(i for i in draft.body if 0 <= i < tokenizer.n_ids)
    complete = draft.closing is not None
    return Message(header.role, text, header.channel, header.recipient, header.name, header.content_type, complete)


def _check(draft: Draft, last: bool) -> None:
    where = f"the message that begins at token {draft.first}"
    if draft.header.unread is not None:
        raise HarmonyError(f"{where} has a header with the word {draft.header.unread!r}, which is no role or channel")
    if draft.header.role is None:
        raise HarmonyError(f"{where} does not say whose it is")
    if draft.stray is not None:
        raise HarmonyError(f"{where} has a {draft.stray} where none belongs")
    if draft.body is None:
        raise HarmonyError(f"{where} has no {MESSAGE}")
    if draft.closing is None and not last:
        raise HarmonyError(f"{where} has no closing token before the next one begins")


def _chat(messages: list[Message], tokenizer: Tokenizer) -> Chat:
    read = [_developer(message) for message in messages]
    has_functions = any(isinstance(message, Developer) and message.tools for message in read)
    first = read[0] if read else None
    if not isinstance(first, Message) or first.role != "system":
        return Chat(None, tuple(read))
    system: System | Message = first
    if first == Message("system", first.text):
        system = parse_system(first.text, tokenizer, has_functions)
    return Chat(system, tuple(read[1:]))


def _developer(message: Message) -> Developer | Message:
    plain = message == Message("developer", message.text)
    return parse_developer(message.text) if plain else message
