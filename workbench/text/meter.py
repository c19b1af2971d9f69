"""What one rendering of a chat template may cost: turns, time, and the size of what it builds."""

from __future__ import annotations

import threading
import time
from collections.abc import ItemsView, KeysView, Mapping, ValuesView
from typing import Any, cast

import jinja2

MAX_STEPS = 500_000  # loop turns, calls, filters and tests in one rendering
MAX_CHARS = 16_000_000  # of the text, and of any value that the template builds
MAX_BUILT = 400_000_000  # bytes of all values that it builds, the forgotten ones too
MAX_SECONDS = 2.0  # of this thread's own computing: a machine that is busy with other things does not count
MAX_BITS = 4096  # of a whole number

_VIEWS = (ItemsView, KeysView, ValuesView)
_HOLDERS = (list, tuple, set, frozenset, Mapping)
_LARGE = 1024  # characters from which a string that comes twice is known again
_PER_ITEM, _PER_LIST = 64, 64  # bytes

_here = threading.local()


class Meter:
    """Counts, and raises jinja2.TemplateError where a bound is passed.

    Every call, filter, test and comparison, and every value that an operator makes, passes here. Each of them is
    bounded in size before it is made, so that the clock is looked at often enough.
    """

    def __init__(self) -> None:
        self.steps = 0
        self.built = 0
        self.until = time.thread_time() + MAX_SECONDS
        self._known: dict[int, Any] = {}  # by id, held so that no other value gets the same
        self._weights: dict[int, tuple[Any, int]] = {}

    @classmethod
    def begin(cls) -> None:
        """A new rendering on this thread."""
        _here.meter = cls()

    def tick(self) -> None:
        """Something is about to be done."""
        self.steps += 1
        if self.steps > MAX_STEPS:
            raise jinja2.TemplateError(f"it takes more than {MAX_STEPS:,} steps")
        self.look()

    def look(self) -> None:
        """At the clock."""
        if time.thread_time() > self.until:
            raise jinja2.TemplateError(f"it takes more than {MAX_SECONDS:g} seconds")

    def refuse(self, size: int, what: str = "a value") -> None:
        """Refuse a value of so many characters before it is made."""
        if size > MAX_CHARS:
            raise jinja2.TemplateError(f"it builds {what} that is too large: more than {MAX_CHARS:,} characters")

    def made(self, value: Any, new: bool = True) -> Any:
        """A value that the template has made: given back if it is within bounds.

        Args:
            new: False where it may be one that was there before, which costs nothing a second time.
        """
        kind = cast("Any", type)(value)
        if issubclass(kind, str | bytes):
            self._made_text(value, new)
        elif issubclass(kind, (*_HOLDERS, *_VIEWS)):
            self.weight(value)
            self._charge(_PER_LIST + _PER_ITEM * len(value))
        elif issubclass(kind, int) and value.bit_length() > MAX_BITS:
            raise jinja2.TemplateError("it computes a number that is too large")
        return value

    def _made_text(self, value: str | bytes, new: bool) -> None:
        self.refuse(len(value))
        if not new and len(value) > _LARGE:
            if id(value) in self._known:
                return
            self._known[id(value)] = value
        self._charge(len(value) if value.isascii() else 4 * len(value))

    def _charge(self, n_bytes: int) -> None:
        self.built += n_bytes
        if self.built > MAX_BUILT:
            raise jinja2.TemplateError(f"it builds values of more than {MAX_BUILT:,} bytes")

    def weight(self, value: Any) -> int:
        """Characters and items that a value has when it is written out.

        A list of the same list twice, twice, twice, … is small in memory, and without end as text. What was weighed
        is known again: a template cannot change a list.
        """
        if isinstance(value, str | bytes):
            return 1 + len(value)
        # The class and not isinstance: of a generic class a type checker knows only half afterwards.
        kind = cast("Any", type)(value)
        holder: Any = value.mapping if issubclass(kind, _VIEWS) else value
        if not issubclass(cast("Any", type)(holder), _HOLDERS):
            return 1
        known = self._weights.get(id(holder))
        if known is not None:
            return known[1]
        items: list[Any] = [*holder, *holder.values()] if hasattr(holder, "values") else list(holder)
        total = 1 + sum(map(self.weight, items))
        self.refuse(total)
        self._weights[id(holder)] = holder, total
        return total


def meter() -> Meter:
    """Of the rendering that is under way on this thread."""
    return _here.meter
