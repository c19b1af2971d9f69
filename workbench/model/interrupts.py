"""Ctrl-C may come at any moment, and the model is left as it was found all the same.

Python raises KeyboardInterrupt between any two calls, also while hooks are being taken off. So hooks go on and off in
functions that are finished first; the interrupt is raised at their end. It waits for less than a millisecond, never for
a run, nor until another thread gives the lock back.
"""

from __future__ import annotations

import inspect
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import wraps
from types import CodeType, FrameType
from typing import Any, Generic, ParamSpec, TypeVar, no_type_check

import torch

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

_whole: set[CodeType] = set()  # the functions that are finished first
_waiting = False  # an interrupt came meanwhile
_usual: Any = None  # what an interrupt does where nobody stands in its way


def _on_interrupt(number: int, frame: FrameType | None) -> None:
    """The handler of SIGINT while hooks are on: wait for what must be finished, or do the usual."""
    global _waiting
    at = frame
    while at is not None:
        if at.f_code in _whole:
            _waiting = True
            return
        at = at.f_back
    _usual(number, frame)


@no_type_check  # nor with checks at run time: their wrapper would be interrupted before this begins
def _begin():
    """Stand in the way of interrupts; gives what ``_end`` puts back. Only the main thread is ever interrupted."""
    global _usual
    if threading.current_thread() is not threading.main_thread():
        return None
    before = signal.getsignal(signal.SIGINT)
    if not callable(before) or before is _on_interrupt:
        return None
    _usual = before
    signal.signal(signal.SIGINT, _on_interrupt)
    return before


def _end(before: Any, caller: FrameType | None) -> None:
    """Have interrupts do the usual again, and do what the one asked for that came meanwhile."""
    global _waiting
    # Whoever has put another handler there since then knows what to do with it.
    if before is not None and signal.getsignal(signal.SIGINT) is _on_interrupt:
        signal.signal(signal.SIGINT, before)
    if _waiting and threading.current_thread() is threading.main_thread():
        _waiting = False
        _on_interrupt(signal.SIGINT, caller)  # which waits on, where the caller must be finished too


@no_type_check
class Hooked(Generic[T]):
    """Hooks that are on in a block, with the lock that keeps other threads out: all of it, or nothing.

    Args:
        given: what the block gets.
        hooks: a block that has them on; or anything else whose beginning and end must be finished.
        lock: held while they are on; re-entrant. Without one, other threads are not kept out.
    """

    def __init__(self, given: T, hooks: AbstractContextManager[Any], lock: Any = None) -> None:
        self._given, self._hooks, self._lock = given, hooks, threading.RLock() if lock is None else lock
        self._held = self._on = False
        self._before: Any = None

    def __enter__(self) -> T:
        try:
            with self._lock:  # here it may have to wait for another thread
                self._put_on()
            _end(None, sys._getframe(1))
        except BaseException:
            self._take_off()
            _end(self._before, sys._getframe(1))
            raise
        return self._given

    def __exit__(self, *problem: object) -> None:
        try:
            self._take_off()
        finally:
            _end(self._before, sys._getframe(1))

    def _put_on(self) -> None:
        self._before = _begin()
        self._lock.acquire()  # a second time, so at once; the first is given back when this returns
        self._held = True
        self._hooks.__enter__()
        self._on = True

    def _take_off(self) -> None:
        try:
            if self._on:
                self._on = False
                self._hooks.__exit__(None, None, None)
        finally:
            if self._held:
                self._held = False
                self._lock.release()


@no_type_check
def _finished(work):
    return work()


def finish_first(work: Callable[[], R]) -> R:
    """Do something short that must not be left half-done; an interrupt that comes meanwhile is raised after it."""
    before = _begin()
    try:
        return _finished(work)
    finally:
        _end(before, sys._getframe(1))


_whole |= {function.__code__ for function in (_begin, _finished, Hooked._put_on, Hooked._take_off, Hooked.__exit__)}


def gradient_mode_kept(function: Callable[P, R]) -> Callable[P, R]:
    """The function ends in the gradient mode that it began in, also if torch's own clearing up is interrupted."""
    if inspect.isgeneratorfunction(function):
        raise TypeError(f"{function.__qualname__} is a generator, which runs in the mode of whoever asks it")

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        before = torch.is_grad_enabled()
        try:
            return function(*args, **kwargs)
        except BaseException:
            torch.set_grad_enabled(before)
            raise

    return call


def without_gradients(function: Callable[P, R]) -> Callable[P, R]:
    """``torch.no_grad()`` for a function, with :func:`gradient_mode_kept`."""
    return gradient_mode_kept(torch.no_grad()(function))
