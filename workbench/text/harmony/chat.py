"""A conversation as frozen data, built one message at a time."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date as Date
from typing import Any, Literal, get_args

from workbench.text.harmony.typescript import tool_type
from workbench.text.template import as_date

Role = Literal["system", "developer", "user", "assistant", "tool"]
Channel = Literal["analysis", "commentary", "final"]
Reasoning = Literal["low", "medium", "high"]
Builtin = Literal["browser", "python"]

ROLES: tuple[str, ...] = get_args(Role)
CHANNELS: tuple[str, ...] = get_args(Channel)
REASONING: tuple[str, ...] = get_args(Reasoning)
BUILTINS: tuple[str, ...] = get_args(Builtin)


class HarmonyError(ValueError):
    """A conversation that harmony cannot say, or tokens that are no harmony conversation."""


def _full_name(name: str) -> str:
    return name if "." in name or name in BUILTINS else f"functions.{name}"


def _one_of(what: str, given: str, known: Sequence[str]) -> None:
    if given not in known:
        close = difflib.get_close_matches(str(given)[:80], known, n=1)
        hint = f"; closest is {close[0]!r}" if close else ""
        raise HarmonyError(f"{what} {given!r:.80} is unknown{hint}; known are {', '.join(known)}")


@dataclass(frozen=True)
class System:
    """Harmony's system message. None is "what this checkpoint's own template says"; "" or () leaves the line out.

    Attributes:
        identity: the first line, such as "You are nano."
        reasoning: how much the model thinks before it answers.
        date: "YYYY-MM-DD", or None for no date line.
        cutoff: the knowledge cutoff, such as "2024-06".
        channels: the channels that the model is told of.
        tools: the built-in tools that it is told of, whose description is in the checkpoint's template.
    """

    identity: str | None = None
    reasoning: str = "medium"
    date: str | None = None
    cutoff: str | None = None
    channels: tuple[str, ...] | None = None
    tools: tuple[str, ...] = ()

    role = "system"

    def __post_init__(self) -> None:
        _one_of("reasoning", self.reasoning, REASONING)
        for channel in self.channels or ():
            _one_of("channel", channel, CHANNELS)
        for tool in self.tools:
            _one_of("built-in tool", tool, BUILTINS)
        as_date(self.date)


@dataclass(frozen=True)
class Tool:
    """A function that the model may call. Two tools are equal when the model reads the same text for them.

    Attributes:
        name: the function's name, without "functions.".
        typescript: what the model reads: comment lines and `type name = (_: {…}) => any;`.
        schema: the JSON schema it was made from, {"name", "description", "parameters"}; None for a parsed one.
    """

    name: str
    typescript: str
    schema: Mapping[str, Any] | None = field(default=None, compare=False)

    @classmethod
    def from_schema(cls, schema: Mapping[str, Any]) -> Tool:
        """From {"name", "description", "parameters"}, or the same inside {"type": "function", "function": …}.

        Raises:
            HarmonyError: there is no name.
        """
        function: Mapping[str, Any] = schema.get("function", schema)
        if not function.get("name"):
            raise HarmonyError(f"a tool is a dict of name, description and parameters, and this has no name: {schema}")
        text = tool_type(function["name"], function.get("description") or "", function.get("parameters"))
        return cls(function["name"], text, dict(function))


@dataclass(frozen=True)
class Developer:
    """Harmony's developer message: instructions (what other formats call the system prompt), and function tools."""

    instructions: str = ""
    tools: tuple[Tool, ...] = ()

    role = "developer"


@dataclass(frozen=True)
class Message:
    """One message.

    Attributes:
        role: who writes; see ROLES.
        text: the body, exactly as it stands between `<|message|>` and the closing token.
        channel: see CHANNELS, or None.
        recipient: whom it is for, such as "functions.get_weather", or "assistant" for a tool's result.
        name: the tool that writes, such as "functions.get_weather".
        content_type: "json" for the arguments of a function call, "code" for Python's, else None.
        complete: False for a last message that is still being written, without its closing token.
    """

    role: str
    text: str
    channel: str | None = None
    recipient: str | None = None
    name: str | None = None
    content_type: str | None = None
    complete: bool = True

    def __post_init__(self) -> None:
        _one_of("role", self.role, ROLES)
        if self.channel is not None:
            _one_of("channel", self.channel, CHANNELS)


@dataclass(frozen=True)
class Chat:
    """A conversation. Every method returns a new Chat with one message more; this one stays as it is.

    >>> chat = Chat().system(reasoning="low").developer("Answer in French.").user("Where is Mia?")

    Attributes:
        system_message: a System, a Message of unusual text, or None for no system message at all.
        messages: all others, in order.
    """

    system_message: System | Message | None = System()
    messages: tuple[Developer | Message, ...] = ()

    def system(
        self,
        identity: str | None = None,
        reasoning: Reasoning = "medium",
        date: Date | str | None = None,
        cutoff: str | None = None,
        channels: Sequence[Channel] | None = None,
        tools: Sequence[Builtin] = (),
    ) -> Chat:
        """Set the system message; see `System`. Raises HarmonyError or ValueError for a value that is not known."""
        day = as_date(date)
        chosen = None if channels is None else tuple(channels)
        ordered = tuple(tool for tool in BUILTINS if tool in tools) + tuple(t for t in tools if t not in BUILTINS)
        message = System(identity, reasoning, None if day is None else day.isoformat(), cutoff, chosen, ordered)
        return replace(self, system_message=message)

    def developer(self, instructions: str = "", tools: Sequence[Tool | Mapping[str, Any]] = ()) -> Chat:
        """Add the developer's instructions and function tools (JSON schemas, or `Tool`)."""
        made = tuple(tool if isinstance(tool, Tool) else Tool.from_schema(tool) for tool in tools)
        return self._add(Developer(instructions, made))

    def user(self, text: str) -> Chat:
        """Add what the user says."""
        return self._add(Message("user", text))

    def assistant(
        self,
        text: str,
        channel: Channel = "final",
        recipient: str | None = None,
        content_type: str | None = None,
        complete: bool = True,
    ) -> Chat:
        """Add what the model says.

        Args:
            text: its words.
            channel: "final" answers the user, "analysis" is its thinking, "commentary" calls tools and announces that.
            recipient: the tool that is called; see `call` for functions.
            content_type: the kind of text a tool gets, such as "code".
            complete: False leaves the message open, so that the model goes on writing it.
        """
        if recipient is not None and channel == "final":
            raise HarmonyError(f"a final message is for the user, not for {recipient!r}; use channel='commentary'")
        return self._add(Message("assistant", text, channel, recipient, None, content_type, complete))

    def call(self, name: str, arguments: Any) -> Chat:
        """Add a call of a function tool. A string stands as it is, any other arguments are written as JSON."""
        text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
        return self._add(Message("assistant", text, "commentary", _full_name(name), None, "json"))

    def tool(self, name: str, result: Any, channel: Channel = "commentary") -> Chat:
        """Add a tool's result. A string stands as it is, anything else is written as JSON."""
        text = result if isinstance(result, str) else json.dumps(result, ensure_ascii=False)
        return self._add(Message("tool", text, channel, "assistant", _full_name(name)))

    @property
    def all_messages(self) -> tuple[System | Developer | Message, ...]:
        """The system message, if there is one, and all others: the order that `label` counts in."""
        first = () if self.system_message is None else (self.system_message,)
        return (*first, *self.messages)

    def _add(self, message: Developer | Message) -> Chat:
        if self.messages and isinstance(self.messages[-1], Message) and not self.messages[-1].complete:
            raise HarmonyError("the last message is still open (complete=False), so nothing can follow it")
        return replace(self, messages=(*self.messages, message))
