"""The texts of harmony's system and developer messages, and back.

What a checkpoint says by default (who it is, its cutoff, its channels, its built-in tools) is read from its own chat
template, rendered on an empty conversation, so nano says "You are nano." and gpt-oss says its own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from workbench.text.harmony.chat import BUILTINS, CHANNELS, Developer, HarmonyError, Message, System, Tool
from workbench.text.template import TemplateError, render_template
from workbench.text.tokenizer import Tokenizer

_CUTOFF, _DATE, _REASONING = "Knowledge cutoff: ", "Current date: ", "Reasoning: "
_CHANNELS = re.compile(r"# Valid channels: (.*)\. Channel must be included for every message\.")
_CALLS = "\nCalls to these tools must go to the commentary channel: 'functions'."
_TOOLS_BEGIN = "# Tools\n\n## functions\n\nnamespace functions {\n\n"
_TOOLS_END = "} // namespace functions"
_INSTRUCTIONS = "# Instructions\n\n"
_SYSTEM_BEGIN, _SYSTEM_END = "<|start|>system<|message|>", "<|end|>"
_ANY_DAY = "2001-02-03"


@dataclass(frozen=True)
class Defaults:
    """What a checkpoint's system message says when it is not told otherwise."""

    identity: str = "You are ChatGPT, a large language model trained by OpenAI."
    cutoff: str = "2024-06"
    channels: tuple[str, ...] = CHANNELS


def defaults(tokenizer: Tokenizer) -> Defaults:
    """Read from the checkpoint's chat template; the harmony library's own for a checkpoint without one."""
    return Defaults() if tokenizer.chat_template is None else _template_defaults(tokenizer.chat_template)


@lru_cache(maxsize=16)
def _template_defaults(template: str) -> Defaults:
    text = _system_text(template)
    if text is None:
        return Defaults()
    identity, cutoff, _ = _split_head(text.partition("\n\n" + _REASONING)[0])
    channels = _CHANNELS.search(text)
    return Defaults(identity, cutoff, tuple(channels[1].split(", ")) if channels else ())


@lru_cache(maxsize=16)
def _system_text(template: str, builtin_tools: tuple[str, ...] = ()) -> str | None:
    """The system message that a template writes on an empty conversation; None if it writes none."""
    variables: dict[str, Any] = {"messages": [{"role": "user", "content": ""}], "tools": None}
    if builtin_tools:
        variables["builtin_tools"] = list(builtin_tools)
    try:
        text = render_template(template, variables, _ANY_DAY)
    except TemplateError:
        return None
    begin, end = text.find(_SYSTEM_BEGIN), text.find(_SYSTEM_END)
    return text[begin + len(_SYSTEM_BEGIN) : end] if 0 <= begin < end else None


def system_text(system: System, tokenizer: Tokenizer, has_functions: bool) -> str:
    """The body of harmony's system message. `has_functions`: a developer message defines function tools."""
    own = defaults(tokenizer)
    identity = own.identity if system.identity is None else system.identity
    cutoff = own.cutoff if system.cutoff is None else system.cutoff
    channels = own.channels if system.channels is None else system.channels
    head = [identity] if identity else []
    head += [_CUTOFF + cutoff] if cutoff else []
    head += [_DATE + system.date] if system.date else []
    sections = ["\n".join(head)] if head else []
    sections.append(_REASONING + system.reasoning)
    sections += [_builtin_text(system.tools, tokenizer)] if system.tools else []
    if channels:
        line = f"# Valid channels: {', '.join(channels)}. Channel must be included for every message."
        sections.append(line + (_CALLS if has_functions else ""))
    return "\n\n".join(sections)


def _builtin_text(names: Sequence[str], tokenizer: Tokenizer) -> str:
    """The tools section of the system message, in the words of the checkpoint's own template."""
    text = _system_text(tokenizer.chat_template, tuple(names)) if tokenizer.chat_template else None
    section = "" if text is None else text[max(text.find("# Tools\n\n"), 0) : max(text.find("\n\n# Valid channels"), 0)]
    for name in names:
        if f"## {name}\n" not in section:
            raise HarmonyError(f"this checkpoint's chat template has no built-in tool {name!r}; leave it out of tools=")
    return section


def parse_system(text: str, tokenizer: Tokenizer, has_functions: bool) -> System | Message:
    """The system message as data. What equals the checkpoint's default is None. Unusual text stays a Message."""
    head, _, rest = text.rpartition(_REASONING) if text.startswith(_REASONING) else text.partition("\n\n" + _REASONING)
    identity, cutoff, date = _split_head(head)
    channels = _CHANNELS.search(rest)
    try:
        system = System(
            identity=identity,
            reasoning=rest.partition("\n\n")[0],
            date=date or None,
            cutoff=cutoff,
            channels=tuple(channels[1].split(", ")) if channels else (),
            tools=tuple(name for name in BUILTINS if f"## {name}\n" in rest),
        )
        if system_text(system, tokenizer, has_functions) == text:
            return without_defaults(system, tokenizer)
    except ValueError:
        pass  # a word that harmony does not know: the text says more than a System can
    return Message("system", text)


def without_defaults(system: System, tokenizer: Tokenizer) -> System:
    """The same system message, with None for what the checkpoint says by default."""
    own = defaults(tokenizer)
    return replace(
        system,
        identity=None if system.identity == own.identity else system.identity,
        cutoff=None if system.cutoff == own.cutoff else system.cutoff,
        channels=None if system.channels == own.channels else system.channels,
    )


def _split_head(head: str) -> tuple[str, str, str]:
    """Identity, cutoff and date of the lines before the reasoning line; "" for one that is missing."""
    lines, found = head.split("\n"), {_CUTOFF: "", _DATE: ""}
    for prefix in (_DATE, _CUTOFF):
        if lines and lines[-1].startswith(prefix):
            found[prefix] = lines.pop().removeprefix(prefix)
    return "\n".join(lines), found[_CUTOFF], found[_DATE]


def developer_text(developer: Developer) -> str:
    """The body of harmony's developer message."""
    sections = [_INSTRUCTIONS + developer.instructions] if developer.instructions else []
    if developer.tools:
        types = "".join(f"{tool.typescript}\n\n" for tool in developer.tools)
        sections.append(_TOOLS_BEGIN + types + _TOOLS_END)
    return "\n\n".join(sections)


def parse_developer(text: str) -> Developer | Message:
    """The developer message as data; unusual text stays a Message.

    gpt-oss' template ends instructions with an empty line, so one such line is not part of them.
    """
    instructions, tools = text, ""
    if text.endswith(_TOOLS_END) and _TOOLS_BEGIN in text:
        instructions, _, tools = text.partition(_TOOLS_BEGIN)
    developer = Developer(
        instructions.removeprefix(_INSTRUCTIONS).removesuffix("\n\n"),
        tuple(_parse_tool(part) for part in re.findall(r"(.*?=> any;)\n\n", tools, re.DOTALL)),
    )
    same = developer_text(developer) in (text, text.removesuffix("\n\n"))
    return developer if same else Message("developer", text)


def _parse_tool(text: str) -> Tool:
    name = re.search(r"^type (.+?) = \(", text, re.MULTILINE)
    return Tool(name[1] if name else "", text)
