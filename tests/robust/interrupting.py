"""Ctrl-C at every place where Python can meet it, and after so many microseconds.

Python looks for signals when a function begins, after a call, and at a loop's turn. ``at_place`` sends SIGINT at the
n-th such place of a piece of work, so that all of them can be tried; ``after`` sends it when a timer says so, as a
user would.
"""

from __future__ import annotations

import dis
import signal
import sys
from collections.abc import Callable
from functools import cache
from types import CodeType, FrameType
from typing import Any

Work = Callable[[], Any]
LOOKS = ("CALL", "JUMP_BACKWARD")  # after these instructions Python looks for signals


class Places:
    """Counts the places of a piece of work where Python looks for signals, and sends SIGINT at one of them.

    Attributes:
        seen: how many were passed.
        where: the function and line of the one at which the signal was sent; None before.
    """

    def __init__(self, number: int | None = None, inside: str | None = None) -> None:
        self.number, self.inside = number, inside
        self.seen, self.where = 0, None
        self._before: dict[int, tuple[CodeType, int]] = {}

    def trace(self, frame: FrameType, event: str, _: Any) -> Any:
        """For ``sys.settrace``."""
        if event == "call":
            if self.inside is not None and self.inside not in frame.f_code.co_filename:
                return None
            frame.f_trace_opcodes, frame.f_trace_lines = True, False
            self._place(frame)
            return self.trace
        if event == "opcode":
            before = self._before.get(id(frame))
            self._before[id(frame)] = (frame.f_code, frame.f_lasti)
            if before is not None and before[0] is frame.f_code and _looks(frame.f_code, before[1], frame.f_lasti):
                self._place(frame)
        elif event == "return":
            self._before.pop(id(frame), None)
        return self.trace

    def _place(self, frame: FrameType) -> None:
        self.seen += 1
        if self.seen == self.number:
            sys.settrace(None)
            code = frame.f_code
            self.where = f"{code.co_filename}:{frame.f_lineno} {code.co_qualname}"
            signal.raise_signal(signal.SIGINT)


@cache
def _instructions(code: CodeType) -> tuple[dict[int, str], list[Any]]:
    table = dis._parse_exception_table(code)  # type: ignore[attr-defined]
    return {each.offset: each.opname for each in dis.get_instructions(code)}, table


@cache
def _looks(code: CodeType, before: int, now: int) -> bool:
    """Whether Python looks for signals between these two, and an error raised at the second is caught as there.

    It would be raised at the end of the first one: where the second is in another ``try``, a trace cannot tell.
    """
    names, table = _instructions(code)
    return names.get(before, "").startswith(LOOKS) and _caught(table, before) == _caught(table, now)


def _caught(table: list[Any], offset: int) -> int | None:
    return next((entry.target for entry in table if entry.start <= offset < entry.end), None)


def places(work: Work, inside: str | None = None) -> int:
    """How many places a piece of work has: all, or those in files whose path has ``inside`` in it."""
    counter = Places(None, inside)
    sys.settrace(counter.trace)
    try:
        work()
    finally:
        sys.settrace(None)
    return counter.seen


def at_place(work: Work, number: int, inside: str | None = None) -> tuple[bool, str | None]:
    """Do the work with SIGINT at its n-th place: whether it was interrupted, and where the signal came."""
    sender = Places(number, inside)
    try:
        sys.settrace(sender.trace)
        work()
    except KeyboardInterrupt:
        return True, sender.where
    finally:
        sys.settrace(None)
    return False, sender.where


def after(work: Work, seconds: float) -> bool:
    """Do the work with SIGINT after so many seconds: whether it was interrupted."""
    armed = [True]

    def ring(*_: object) -> None:
        if armed:
            signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGALRM, ring)
    try:
        try:
            signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-6))
            work()
        finally:
            armed.clear()  # what rings from here on is too late to be caught
    except KeyboardInterrupt:
        return True
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    return False
