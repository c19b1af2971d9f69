"""What a checkpoint's chat template makes of a chat, message by message, believed only where it says the same.

The chat is put into transformers' messages and rendered; the text is parsed back, and compared.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from workbench.text.harmony.chat import Chat, Developer, HarmonyError, Message, System, Tool
from workbench.text.harmony.content import without_defaults
from workbench.text.harmony.parse import parse
from workbench.text.harmony.scan import scan
from workbench.text.template import TemplateError
from workbench.text.tokenizer import Tokenizer

Entry = dict[str, Any]

_ANY_DAY = "2001-02-03"  # a chat without a date gets its system message from us; the rest needs some date to render


def through_template(chat: Chat, tokenizer: Tokenizer, add_generation_prompt: bool) -> list[list[int] | None]:
    """The template's ids of each message, None where it says something else.

    Raises:
        TemplateError: the template cannot say any of it.
    """
    system = chat.system_message if isinstance(chat.system_message, System) else System()
    tools, entries = _entries(chat.messages)
    day = system.date or _ANY_DAY
    goes_on = add_generation_prompt or _ends_thinking(chat.messages, 1)  # then an answer before it is not the end
    ids = tokenizer.encode(tokenizer.apply_chat_template(entries, tools, goes_on, day, **_options(system)))
    spoken = _spoken(ids, tokenizer)
    if chat.system_message is None and spoken and spoken[0][0].role == "system":
        spoken = spoken[1:]
    wanted = [without_defaults(m, tokenizer) if isinstance(m, System) else m for m in chat.all_messages]
    # A template has no place for thinking that nothing follows (yet).
    unsaid = len(wanted) - len(spoken) if _ends_thinking(chat.messages, len(wanted) - len(spoken)) else 0
    if len(spoken) + unsaid != len(wanted):
        raise TemplateError(f"the template makes {len(spoken)} messages of these {len(wanted)}")
    written = zip(spoken, wanted, strict=False)
    same = [part if _without_types(said) == _without_types(message) else None for (said, part), message in written]
    return same + [None] * unsaid


def _spoken(ids: list[int], tokenizer: Tokenizer) -> list[tuple[System | Developer | Message, list[int]]]:
    """Each message in the template's ids, with its own ids."""
    try:
        says = parse(ids, tokenizer)
    except HarmonyError as error:
        raise TemplateError(f"the template's text is not harmony: {error}") from None
    starts = [draft.first for draft in scan(ids, tokenizer).drafts] + [len(ids)]
    parts = [ids[start:stop] for start, stop in pairwise(starts)]
    return list(zip(says.all_messages, parts, strict=False))  # the last part may be the generation prompt


def _ends_thinking(messages: Sequence[Developer | Message], count: int) -> bool:
    return 0 < count <= len(messages) and all(is_thinking(message) for message in messages[-count:])


def _options(system: System) -> Entry:
    given = {"model_identity": system.identity, "knowledge_cutoff": system.cutoff, "current_date": system.date}
    options: Entry = {name: value for name, value in given.items() if value is not None}
    if system.tools:
        options["builtin_tools"] = list(system.tools)
    return options | {"reasoning_effort": system.reasoning}


def _without_types(message: System | Developer | Message) -> System | Developer | Message:
    """Templates spell a tool's types each in their own way; which tools there are is what must agree."""
    if not isinstance(message, Developer):
        return message
    return replace(message, tools=tuple(Tool(tool.name, "") for tool in message.tools))


def _entries(messages: Sequence[Developer | Message]) -> tuple[list[Mapping[str, Any]] | None, list[Entry]]:
    """Function tools, and the messages in transformers' form."""
    tools: list[Mapping[str, Any]] = []
    entries: list[Entry] = []
    thinking: list[str] = []
    for message in messages:
        if isinstance(message, Developer):
            tools += [_schema(tool) for tool in message.tools]
            entries += [{"role": "developer", "content": message.instructions}] if message.instructions else []
        elif is_thinking(message):
            thinking.append(message.text)
        else:
            entries.append(_entry(message) | ({"thinking": "\n".join(thinking)} if thinking else {}))
            thinking = []
    return tools or None, entries


def _schema(tool: Tool) -> Mapping[str, Any]:
    if tool.schema is None:
        raise TemplateError(f"tool {tool.name!r} has no JSON schema to give to the template")
    return {"type": "function", "function": tool.schema}


def _entry(message: Message) -> Entry:
    if message.role == "tool":
        return {
            "role": "tool",
            "name": (message.name or "").removeprefix("functions."),
            "content": _value(message.text),
        }
    if message.role == "assistant" and message.recipient is not None:
        function = {"name": message.recipient.removeprefix("functions."), "arguments": _value(message.text)}
        return {"role": "assistant", "tool_calls": [{"type": "function", "function": function}]}
    return {"role": message.role, "content": message.text}


def _value(text: str) -> Any:
    """The JSON value whose usual spelling is this text, else the text: templates write values as JSON."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if json.dumps(value, ensure_ascii=False) == text else text


def is_thinking(message: Developer | Message) -> bool:
    """Whether this is the model's own thinking, said to nobody."""
    if not isinstance(message, Message) or message.recipient is not None:
        return False
    return message.role == "assistant" and message.channel == "analysis"
