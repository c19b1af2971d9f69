"""jaxtyping's check of every call, in a fraction of its time.

``jaxtyping.jaxtyped`` binds the signature in Python, checks the parameters, calls, and checks parameters and result;
and for a function that is made inside another it prepares all that anew each time. On models as small as the tests'
this takes longer than the models do. Here the type checker wraps the function itself: parameters, call, result, in one
scope of axis names; and functions of the same code share what was prepared.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Hashable
from functools import wraps
from types import CellType, FunctionType
from typing import Any, NamedTuple, get_type_hints

import jaxtyping
from beartype.roar import BeartypeCallHintViolation

Decorator = Callable[..., Any]
JAXTYPED = jaxtyping.jaxtyped
LATER = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR


def quick(jaxtyped: Decorator) -> Decorator:
    """A stand-in for ``jaxtyping.jaxtyped``, which the import hook puts on every function and class. What is not a
    plain function is left to the real one."""
    known: dict[Hashable, Template | None] = {}

    @wraps(jaxtyped)
    def stand_in(*given: Any, **options: Any) -> Any:
        typechecker = options.get("typechecker")
        if given or typechecker is None:
            return jaxtyped(*given, **options)

        def decorate(thing: Any) -> Any:
            if isinstance(thing, type) and dataclasses.is_dataclass(thing):
                made = vars(thing).get("__init__")
                if made and not hasattr(made, "__wrapped__"):  # else it is inherited or our own, and has its checks
                    thing.__init__ = decorate(made)
                return thing
            if not _is_plain(thing):
                return jaxtyped(thing, typechecker=typechecker)
            key = (thing.__code__, thing.__module__, *map(str, thing.__annotations__.values()))
            if key not in known:
                known[key] = Template.of(thing, typechecker)
            template = known[key]
            return template.around(thing) if template else jaxtyped(thing, typechecker=typechecker)

        return decorate

    return stand_in


class Template(NamedTuple):
    """The checks of all functions that have one code."""

    wrapper: FunctionType
    place: str | None  # the type checker's wrapper calls what it has as the default of this parameter; None: no checks
    has_axes: bool

    @classmethod
    def of(cls, function: FunctionType, typechecker: Decorator) -> Template | None:
        """None if its wrapper cannot be shared. Of the function, its closure and its defaults nothing is kept alive."""
        code = function.__code__
        bare = FunctionType(code, function.__globals__, closure=tuple(CellType() for _ in code.co_freevars))
        bare.__module__, bare.__qualname__ = function.__module__, function.__qualname__
        bare.__annotations__ = {name: _resolved(hint, function) for name, hint in function.__annotations__.items()}
        has_axes = any("jaxtyping." in str(hint) for hint in bare.__annotations__.values())
        wrapper = typechecker(bare)
        if wrapper is bare:
            return cls(bare, None, has_axes)
        places = [name for name, value in (wrapper.__kwdefaults__ or {}).items() if value is bare]
        return cls(wrapper, places[0], has_axes) if len(places) == 1 else None

    def around(self, function: FunctionType) -> Callable[..., Any]:
        """The function with its checks."""
        if self.place is None:
            return function
        with_checks = FunctionType(self.wrapper.__code__, self.wrapper.__globals__, function.__name__)
        with_checks.__kwdefaults__ = {**self.wrapper.__kwdefaults__, self.place: function}
        has_axes, config = self.has_axes, jaxtyping.config

        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            __tracebackhide__ = True
            if config.jaxtyping_disable:
                return function(*args, **kwargs)
            try:
                if has_axes:
                    with JAXTYPED("context"):
                        return with_checks(*args, **kwargs)
                return with_checks(*args, **kwargs)
            except BeartypeCallHintViolation as error:
                raise jaxtyping.TypeCheckError(f"Type-check error: {error}") from None

        return call


def _is_plain(thing: Any) -> bool:
    """A function whose result is there when it returns, and whose axes do not depend on its arguments' values."""
    if not isinstance(thing, FunctionType) or thing.__code__.co_flags & LATER:
        return False
    return not any("{" in str(annotation) for annotation in thing.__annotations__.values())


def _resolved(hint: Any, function: FunctionType) -> Any:
    """A hint as a type; one that names what is imported for type checkers only says nothing."""

    def holder() -> None: ...

    holder.__annotations__ = {"it": hint}
    try:
        return get_type_hints(holder, function.__globals__, include_extras=True)["it"]
    except Exception:  # as in jaxtyping: whatever a name that is not there, or a wrong one, may raise
        return Any
