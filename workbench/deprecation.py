"""What goes, goes slowly: a name or an argument that is replaced works on until the version that it names.

Each place of a program that still uses it is told once, with what to write instead and when the old form is gone; the
tests fail as soon as ``workbench.__version__`` has come to that version and the old form is still there.

    @deprecated(since="0.2", gone_in="0.4", use="wb.run(…, sites=…)")
    def record_sites(…): ...

    @renamed_arguments(since="0.2", gone_in="0.4", n_tokens="max_new_tokens")
    def generate(self, tokens, *, max_new_tokens): ...

    __getattr__ = renamed_names(__name__, since="0.2", gone_in="0.4", Router="workbench.model.moe.TopKRouter")
"""

from __future__ import annotations

import functools
import inspect
import sys
import warnings
from collections.abc import Callable
from importlib import import_module
from typing import Any, TypeVar, no_type_check

Callee = TypeVar("Callee", bound=Callable[..., Any])


class GoingAway(FutureWarning):
    """Something that the program uses will be gone in a later version. (Python shows a FutureWarning to everybody.)"""


_told: set[tuple[str, int, str]] = set()


def deprecated(*, since: str, gone_in: str, use: str) -> Callable[[Callee], Callee]:
    """For a function, a method or a class that goes.

    Args:
        since: the version that told it first.
        gone_in: the version without it.
        use: what to write instead.
    """

    def decorate(callee: Callee) -> Callee:
        what = f"{callee.__qualname__} is deprecated since {since} and gone in {gone_in}; use {use}"
        if not inspect.isclass(callee):
            return _telling(callee, what)
        callee.__init__ = _telling(callee.__init__, what)
        return callee  # pyright: ignore[reportReturnType]

    return decorate


def _telling(function: Any, what: str) -> Any:
    @functools.wraps(function)
    @no_type_check  # a checker of calls would stand between us and the line that calls
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        _tell(what)
        return function(*args, **kwargs)

    return wrapper


def renamed_arguments(*, since: str, gone_in: str, **new_names: str) -> Callable[[Callee], Callee]:
    """For a function whose arguments have new names: ``old="new"``. The old ones are handed on under the new ones.

    Raises:
        TypeError: when the function is called, for an argument that is given under both names.
    """

    def decorate(function: Callee) -> Callee:
        name = function.__qualname__

        @functools.wraps(function)
        @no_type_check
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            for old in [old for old in new_names if old in kwargs]:
                new = new_names[old]
                if new in kwargs:
                    raise TypeError(f"{name} was given {old!r} and {new!r}, which is its new name; leave {old!r} out")
                _tell(f"{name}({old}=…) is deprecated since {since} and gone in {gone_in}; write {new}=…")
                kwargs[new] = kwargs.pop(old)
            return function(*args, **kwargs)

        return wrapper  # pyright: ignore[reportReturnType]

    return decorate


def renamed_names(module: str, *, since: str, gone_in: str, **homes: str) -> Callable[[str], Any]:
    """A module's ``__getattr__``, for names of it that live elsewhere now: ``Old="workbench.folder.New"``.

    Raises:
        AttributeError: when it is asked for a name that it never had.
    """

    @no_type_check
    def look_up(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        _tell(f"{module}.{name} is deprecated since {since} and gone in {gone_in}; use {homes[name]}")
        home, _, new = homes[name].rpartition(".")
        return getattr(import_module(home), new)

    return look_up


@no_type_check
def _tell(what: str) -> None:
    """Warn the program's own line that uses it, once."""
    frame = sys._getframe(1)
    while frame.f_back and frame.f_globals.get("__name__", "").startswith((__name__, "importlib", "_frozen_importlib")):
        frame = frame.f_back
    place = (frame.f_code.co_filename, frame.f_lineno, what)
    if place not in _told:
        _told.add(place)
        warnings.warn_explicit(what, GoingAway, *place[:2], module=frame.f_globals.get("__name__", "__main__"))
