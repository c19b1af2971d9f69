"""Rendering a checkpoint's chat template: Jinja in a sandbox, with a bound on work, time and size, and no clock.

A chat template is a program from the internet. It runs in Jinja's immutable sandbox, with the settings and helpers
that transformers gives it, so that the text is the same; what it does is bounded operation by operation (sandbox.py,
meter.py). The date is a parameter: a template that asks for today's gets the date it was given, or `DateNeeded` is
raised.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date as Date
from datetime import datetime
from functools import lru_cache
from typing import Any

import jinja2

from workbench.text.meter import MAX_CHARS, Meter
from workbench.text.sandbox import environment

MAX_SOURCE = 100_000  # characters of a template; the longest in use have 30,000
_LONGEST_REFUSAL = 500  # characters of a template's own words


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
        TemplateError: the template is broken, refuses the conversation, or exceeds a bound of meter.py: steps, seconds,
            or the size of what it builds.
    """
    day = as_date(date)

    def strftime_now(form: str) -> str:
        if day is None:
            raise DateNeeded("this chat template prints the date; pass one: date='2025-08-05'")
        if len(form) > 200:
            raise TemplateError("the chat template asks for a date in more than 200 characters")
        return datetime(day.year, day.month, day.day).strftime(form)

    program = _compiled(template)
    Meter.begin()
    try:
        return _join(program.generate({**variables, "strftime_now": strftime_now}))
    except TemplateError:
        raise
    except RecursionError as error:
        raise TemplateError("the chat template calls itself without end") from error
    except Exception as error:  # a template is foreign code: whatever it raises is its refusal
        why = str(error)[:_LONGEST_REFUSAL]
        raise TemplateError(f"the chat template refused the conversation: {why}") from error


def as_date(date: Date | str | None) -> Date | None:
    """A date given as such or as "YYYY-MM-DD". Raises ValueError for anything else."""
    if date is None or isinstance(date, Date):
        return date
    try:
        return Date.fromisoformat(date)
    except (TypeError, ValueError):
        raise ValueError(f"date {date!r:.80} is not a date; give a datetime.date or 'YYYY-MM-DD'") from None


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
    if len(template) > MAX_SOURCE:
        raise TemplateError(f"the chat template has {len(template):,} characters, more than {MAX_SOURCE:,}")
    Meter.begin()  # what is constant is computed here
    try:
        return _environment().from_string(template)
    except jinja2.TemplateSyntaxError as error:
        raise TemplateError(f"the chat template is not valid Jinja: line {error.lineno}: {error.message}") from error
    except RecursionError as error:
        raise TemplateError("the chat template is nested too deeply to compile") from error
    except Exception as error:  # of Jinja's inside, or Python's compiler: too many blocks, a number too long
        why = str(error)[:_LONGEST_REFUSAL]
        raise TemplateError(f"the chat template cannot be compiled: {why}") from error


_environment = lru_cache(maxsize=1)(environment)
