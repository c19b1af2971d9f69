"""Rendering a checkpoint's chat template: Jinja in a sandbox, with a bound on work and size, and no clock.

A chat template is a program from the internet. It runs in Jinja's immutable sandbox, with the settings and helpers
that transformers gives it, so that the text is the same. Loops, recursion and growing strings stop at a bound (not
every filter does: one call can still ask for a lot of memory). The date is a parameter: a template that asks for
today's gets the date it was given, or `DateNeeded` is raised.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterable, Mapping, Sized
from datetime import date as Date
from datetime import datetime
from functools import lru_cache
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

MAX_STEPS = 500_000  # loop turns and macro calls in one rendering
MAX_CHARS = 16_000_000  # of the text, and of any string that the template builds with +, * or ~

_WIDE_FORMAT = re.compile(r"%[^a-zA-Z%]*(\d{5,}|\*)")  # "%99999999d", "%*d"

_work = threading.local()


class TemplateError(ValueError):
    """The chat template could not render this conversation."""


class DateNeeded(TemplateError):
    """The chat template prints the date and none was given."""


def render_template(template: str, variables: Mapping[str, Any], date: Date | str | None = None) -> str:
    """The text of a conversation.

    Args:
        template: Jinja source, as in `chat_template.jinja`.
        variables: what the template sees: messages, tools, add_generation_prompt, …
        date: what `strftime_now` answers, a `datetime.date` or "YYYY-MM-DD". Never today's unless you pass it.

    Raises:
        DateNeeded: the template asks for the date and `date` is None.
        TemplateError: the template is broken, refuses the conversation, or exceeds MAX_STEPS or MAX_CHARS.
    """
    day = as_date(date)

    def strftime_now(form: str) -> str:
        if day is None:
            raise DateNeeded("this chat template prints the date; pass one: date='2025-08-05'")
        return datetime(day.year, day.month, day.day).strftime(form)

    _work.steps = 0
    try:
        chunks = _compiled(template).generate({**variables, "strftime_now": strftime_now})
        return _join(chunks)
    except TemplateError:
        raise
    except RecursionError as error:
        raise TemplateError("the chat template calls itself without end") from error
    except Exception as error:  # a template is foreign code: whatever it raises is its refusal
        raise TemplateError(f"the chat template refused the conversation: {error}") from error


def as_date(date: Date | str | None) -> Date | None:
    """A date given as such or as "YYYY-MM-DD". Raises ValueError for anything else."""
    if date is None or isinstance(date, Date):
        return date
    try:
        return Date.fromisoformat(date)
    except (TypeError, ValueError):
        raise ValueError(f"date {date!r} is not a date; give a datetime.date or 'YYYY-MM-DD'") from None


def _join(chunks: Iterable[str]) -> str:
    parts: list[str] = []
    size = 0
    for chunk in chunks:
        size += len(chunk)
        if size > MAX_CHARS:
            raise TemplateError(f"the chat template writes more than {MAX_CHARS:,} characters")
        parts.append(chunk)
    return "".join(parts)


@lru_cache(maxsize=16)
def _compiled(template: str) -> jinja2.Template:
    try:
        return _environment().from_string(template)
    except jinja2.TemplateSyntaxError as error:
        raise TemplateError(f"the chat template is not valid Jinja: line {error.lineno}: {error.message}") from error
    except RecursionError as error:
        raise TemplateError("the chat template is nested too deeply to compile") from error


@lru_cache(maxsize=1)
def _environment() -> _Sandbox:
    sandbox = _Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols])
    sandbox.filters["tojson"] = _to_json  # pyright: ignore[reportUnknownMemberType]
    sandbox.globals["raise_exception"] = _raise_exception  # pyright: ignore[reportUnknownMemberType]
    return sandbox


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # Jinja's own filter escapes <, > and & for HTML; chat templates expect plain JSON.
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


class _Generation(Extension):
    """`{% generation %} … {% endgeneration %}` marks what the assistant wrote; here it only shows its content."""

    tags = {"generation"}  # noqa: RUF012  (Jinja declares it so)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, plus a count of steps and a bound on the strings that operators build."""

    intercepted_binops = frozenset(["+", "*", "**", "%"])

    def _generate(self, source: nodes.Template, *args: Any, **kwargs: Any) -> str:
        return super()._generate(_Bounds(self).visit(source), *args, **kwargs)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if operator == "**" or _is_large(operator, left, right):  # before it is computed
            raise jinja2.TemplateError(f"it computes a value that is too large, with {operator}")
        return self.bounded(super().call_binop(context, operator, left, right))

    @property
    def step(self) -> None:
        # A property, because a call would pass through the sandbox's checks each time.
        _work.steps += 1
        if _work.steps > MAX_STEPS:
            raise jinja2.TemplateError(f"it takes more than {MAX_STEPS:,} steps")

    def concat(self, parts: Iterable[str]) -> str:
        # What Jinja joins the output of macros and {% set %} blocks with.
        return self.bounded("".join(parts))

    def bounded(self, value: Any) -> Any:
        if isinstance(value, Sized) and len(value) > MAX_CHARS:
            raise jinja2.TemplateError(f"it builds a value of more than {MAX_CHARS:,} characters")
        return value


def _is_large(operator: str, left: Any, right: Any) -> bool:
    if operator == "%":
        return isinstance(left, str) and _WIDE_FORMAT.search(left) is not None
    repeated, times = (left, right) if isinstance(left, Sized) else (right, left)
    repeats = operator == "*" and isinstance(repeated, Sized) and isinstance(times, int)
    return repeats and len(repeated) * times > MAX_CHARS


class _Bounds(NodeTransformer):
    """Puts `environment.step` into each loop and macro, and `environment.bounded(…)` around each `~`."""

    def __init__(self, environment: jinja2.Environment) -> None:
        self.environment = environment

    def visit_For(self, node: nodes.For) -> nodes.Node:
        return self._counted(node)

    def visit_Macro(self, node: nodes.Macro) -> nodes.Node:
        return self._counted(node)

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        bounded = nodes.EnvironmentAttribute("bounded")
        return nodes.Call(bounded, [node], [], None, None, lineno=node.lineno).set_environment(self.environment)

    def _counted(self, node: Any) -> nodes.Node:
        self.generic_visit(node)
        # EnvironmentAttribute is no name, so a template cannot shadow it.
        node.body.insert(0, nodes.ExprStmt(nodes.EnvironmentAttribute("step"), lineno=node.lineno))
        return node
