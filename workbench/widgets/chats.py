"""Prompts as plain data and back: for the composer, and for files."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from workbench.prompts.pair import Prompt as Input
from workbench.text import Chat, Tool
from workbench.text.harmony.chat import Developer, HarmonyError, Message, System

DEEPEST_SCHEMA = 50
LONGEST_PROMPT = 4_000_000  # characters
_SYSTEM, _MESSAGE = ({part.name for part in dataclasses.fields(kind)} for kind in (System, Message))


def as_list(chat: Chat) -> list[dict[str, Any]]:
    """A chat's messages, the system message first: objects with a role."""
    return [_message(message) for message in chat.all_messages]


def _message(message: Any) -> dict[str, Any]:
    if isinstance(message, Developer):
        tools = [dataclasses.asdict(tool) for tool in message.tools]
        return {"role": "developer", "text": message.instructions, "tools": tools}
    return {"role": message.role, **dataclasses.asdict(message)}


def from_list(messages: Sequence[Mapping[str, Any]]) -> Chat:
    """What :func:`as_list` made.

    Raises:
        ValueError: for messages that are none, naming the one.
    """
    chat = Chat(system_message=None)
    for i, given in enumerate(messages):
        if not isinstance(given, Mapping) or not isinstance(given.get("role"), str):
            raise ValueError(f"message {i}: expected an object with a role, got {given!r:.80}")
        try:
            chat = _with(chat, given)
        except (HarmonyError, TypeError, KeyError) as error:
            raise ValueError(f"message {i}: {error}") from None
    return chat


def _with(chat: Chat, given: Mapping[str, Any]) -> Chat:
    if given["role"] == "system" and given.get("text") is None:
        fields = {name: given[name] for name in _SYSTEM & set(given)}
        for name in ("channels", "tools"):
            if isinstance(fields.get(name), list):
                fields[name] = tuple(fields[name])
        return dataclasses.replace(chat, system_message=System(**_typed(fields)))
    if given["role"] == "developer":
        tools = tuple(_tool_from(tool) for tool in given.get("tools") or ())
        return chat.developer(_text({"text": "", **given}), tools)
    fields = {name: given[name] for name in _MESSAGE & set(given) if given[name] is not None}
    _text(given)
    made = Message(**_typed(fields))
    if made.role == "system" and chat == Chat(system_message=None):  # of unusual text: it still comes first
        return Chat(system_message=made)
    return dataclasses.replace(chat, messages=(*chat.messages, made))


def _tool_from(given: Any) -> Tool:
    named = isinstance(given, Mapping) and set(given) <= {"name", "typescript", "schema"}
    if not named or not all(isinstance(given.get(name), str) for name in ("name", "typescript")):
        raise TypeError(f"a tool has a name, typescript and perhaps a schema, got {given!r:.80}")
    if not isinstance(given.get("schema"), Mapping | None) or not _is_flat(given, DEEPEST_SCHEMA):
        raise TypeError(f"a tool's schema is an object, nested {DEEPEST_SCHEMA} deep at most")
    return Tool(**given)


def _typed(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    for name, value in fields.items():
        if name == "complete":
            fits, expected = isinstance(value, bool), "true or false"
        elif name in ("channels", "tools"):
            words = isinstance(value, tuple) and all(isinstance(each, str) for each in value)
            fits, expected = value is None or words, "a list of words"
        else:
            fits, expected = isinstance(value, str | None), "words"
        if not fits:
            raise TypeError(f"{name}: expected {expected}, got {_shown(value)}")
    return fields


def _shown(value: Any) -> str:
    try:
        return repr(value)[:80]
    except RecursionError:
        return "lists within lists without end"


def _is_flat(value: Any, depth: int) -> bool:
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return depth > 0 and all(_is_flat(each, depth - 1) for each in inner)


def _text(given: Mapping[str, Any]) -> str:
    text = given.get("text")
    if not isinstance(text, str) or len(text) > LONGEST_PROMPT:
        raise TypeError(f"text: expected words, at most {LONGEST_PROMPT} characters, got {text!r:.80}")
    return text


def prompt_as_dict(given: Input) -> dict[str, Any]:
    """A prompt as plain data: text, messages or tokens."""
    if isinstance(given, str):
        return {"text": given}
    return {"messages": as_list(given)} if isinstance(given, Chat) else {"tokens": list(given)}


def prompt_from_dict(given: Mapping[str, Any]) -> Input:
    """What :func:`prompt_as_dict` made.

    Raises:
        ValueError: for anything else.
    """
    if isinstance(given.get("messages"), list | tuple):
        return from_list(given["messages"])
    if isinstance(given.get("text"), str):
        return given["text"]
    tokens = given.get("tokens")
    if isinstance(tokens, list | tuple) and all(type(token) is int for token in tokens):
        return tuple(tokens)
    raise ValueError(f"a prompt is an object with text, messages or tokens: got {', '.join(map(str, given))[:80]!r}")


def prompt_code(given: Input) -> str:
    """A prompt as Python, after the imports of code.py."""
    if isinstance(given, str):
        return repr(given)
    return chat_code(given) if isinstance(given, Chat) else f"torch.tensor([{list(given)}])"


def chat_code(chat: Chat) -> str:
    """The calls that make a chat."""
    if isinstance(chat.system_message, System):
        first, messages = "wb.Chat()", chat.all_messages
    else:
        first, messages = f"wb.Chat(system_message={chat.system_message!r})", chat.messages
    calls = [_call(message) for message in messages if message != Chat().system_message]
    if len(calls) < 2:
        return first + "".join(calls)
    return "\n    ".join([f"({first}", *calls]) + "\n)"


def _call(message: Any) -> str:
    if isinstance(message, System):
        return f".system({_arguments(message, System())})"
    if isinstance(message, Developer):
        tools = f", tools=[{', '.join(f'wb.{tool!r}' for tool in message.tools)}]" if message.tools else ""
        return f".developer({message.instructions!r}{tools})"
    if message == Message("user", message.text):
        return f".user({message.text!r})"
    called = _assistant(message) if message.role == "assistant" else _tool(message) if message.role == "tool" else None
    return called or f"._add({message!r})"


def _assistant(message: Message) -> str | None:
    given = {name: getattr(message, name) for name in ("channel", "recipient", "content_type", "complete")}
    if message.channel is None or not _makes(lambda: Chat().assistant(message.text, **given), message):
        return None
    said = "".join(f", {name}={value!r}" for name, value in given.items() if value not in (None, True))
    return f".assistant({message.text!r}{said})"


def _tool(message: Message) -> str | None:
    if not _makes(lambda: Chat().tool(str(message.name), message.text, message.channel), message):  # pyright: ignore
        return None
    return f".tool({message.name!r}, {message.text!r}, channel={message.channel!r})"


def _makes(make: Callable[[], Chat], message: Message) -> bool:
    try:
        return make().messages == (message,)
    except HarmonyError:
        return False


def _arguments(message: Any, default: Any) -> str:
    names = [part.name for part in dataclasses.fields(message)]
    given = [(name, getattr(message, name)) for name in names if getattr(message, name) != getattr(default, name)]
    return ", ".join(f"{name}={value!r}" for name, value in given)
