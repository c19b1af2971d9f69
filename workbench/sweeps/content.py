"""A short name for what something is: the same in every process and on every machine, another for anything else."""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import math
import sys
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import fields, is_dataclass
from pathlib import PurePath
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

DIGITS = 32


class NoContent(ValueError):
    """What cannot be told apart by its content, so that results could not be found again under its name."""


def key(*things: Any) -> str:
    """32 hex digits of SHA-256 over the content of some values: numbers, text, arrays, tensors, specs, functions.

    Raises:
        NoContent: for a value whose content cannot be read (an open file, an object without fields).
    """
    digest = hashlib.sha256()
    for thing in things:
        digest.update(json.dumps(content(thing), sort_keys=True, ensure_ascii=True, allow_nan=False).encode())
        digest.update(b"\0")
    return digest.hexdigest()[:DIGITS]


def content(thing: Any) -> Any:
    """A value as JSON that says what it is; large arrays by their digest."""
    if thing is None or isinstance(thing, bool | str):
        return thing
    if isinstance(thing, int | np.integer):
        return int(thing)
    if isinstance(thing, float | np.floating):
        return float(thing) if math.isfinite(thing) else {"float": repr(float(thing))}
    if isinstance(thing, bytes):
        return {"bytes": hashlib.sha256(thing).hexdigest()}
    if isinstance(thing, PurePath):
        return {"path": str(thing)}
    for read in (_array, _of_dict, _of_list, _function, _fields):
        found = read(thing)
        if found is not None:
            return found
    raise NoContent(
        f"a {type(thing).__name__} has no content to tell it by: {thing!r:.80}; expected numbers, text, arrays, "
        "tensors, lists and dicts of them, interventions, prompt pairs, chats, or a function of a file"
    )


def _array(thing: Any) -> Any:
    if hasattr(thing, "detach"):
        thing = thing.detach().cpu()
        if str(thing.dtype) == "torch.bfloat16":  # numpy has none; its bits are these
            return {"bfloat16": _array(thing.view(_half_of(thing)))}
        thing = thing.numpy()
    if hasattr(thing, "dims") and hasattr(thing, "coords"):
        return {"labelled": json.loads(json.dumps(thing.to_dict(data=False), default=str)), "of": _array(thing.values)}
    if not isinstance(thing, np.ndarray):
        return None
    if thing.dtype == object:
        return {"shape": list(thing.shape), "objects": [content(each) for each in thing.ravel().tolist()]}
    digest = hashlib.sha256(np.ascontiguousarray(thing).tobytes()).hexdigest()
    return {"array": digest, "shape": list(thing.shape), "dtype": thing.dtype.str}


def _half_of(thing: Any) -> Any:
    import importlib

    return importlib.import_module("torch").int16


def _of_dict(thing: Any) -> Any:
    if not isinstance(thing, Mapping):
        return None
    return {"dict": sorted(([content(name), content(value)] for name, value in thing.items()), key=json.dumps)}


def _of_list(thing: Any) -> Any:
    if isinstance(thing, range):
        return [thing.start, thing.stop, thing.step, "range"]
    if isinstance(thing, set | frozenset):
        return {"set": sorted((content(each) for each in thing), key=json.dumps)}
    return [content(each) for each in thing] if isinstance(thing, list | tuple) else None


def _function(thing: Any) -> Any:
    """By its source, what it closes over and the globals that it reads: an edited function is another one."""
    if isinstance(thing, functools.partial):
        return {"partial": content(thing.func), "args": content(thing.args), "keywords": content(thing.keywords)}
    if isinstance(thing, BuiltinFunctionType):
        return {"installed": f"{thing.__module__}.{thing.__qualname__}"}
    if isinstance(thing, MethodType):
        return {"method": content(thing.__func__), "of": content(thing.__self__)}
    if isinstance(thing, type):
        return _class(thing)
    if not isinstance(thing, FunctionType):
        return None
    if _by_name(thing):  # its version tells what it does
        return {"installed": f"{thing.__module__}.{thing.__qualname__}"}
    inner = getattr(thing, "__wrapped__", None)
    if inner is not None and installed(thing.__globals__.get("__name__")):  # a package's decorator: torch.no_grad()
        return {"decorated by": f"{thing.__globals__['__name__']}.{thing.__code__.co_qualname}", "of": content(inner)}
    if thing in _ENTERED.get():  # it calls itself, or a function that calls it
        return {"function": thing.__qualname__}
    token = _ENTERED.set((*_ENTERED.get(), thing))
    try:
        return {
            "function": thing.__qualname__,
            "source": source(thing),
            "closed over": [content(_in(cell)) for cell in thing.__closure__ or ()],
            "defaults": content(thing.__defaults__ or ()),
            "keyword defaults": content(thing.__kwdefaults__ or {}),
            "reads": {name: _read(thing, name) for name in _globals(thing.__code__) if name in thing.__globals__},
        }
    finally:
        _ENTERED.reset(token)


# Functions whose content is being read just now, the outer ones first.
_ENTERED: ContextVar[tuple[FunctionType, ...]] = ContextVar("entered", default=())


def _globals(code: CodeType) -> list[str]:
    """Names that a function's code, and that of functions inside it, may take from its module."""
    inner = [name for each in code.co_consts if isinstance(each, CodeType) for name in _globals(each)]
    return sorted({*code.co_names, *inner})


def _read(function: FunctionType, name: str) -> Any:
    value = function.__globals__[name]
    if isinstance(value, ModuleType):
        return {"module": value.__name__}
    try:
        return content(value)
    except NoContent as error:
        raise NoContent(
            f"{function.__qualname__} reads the global {name!r}, and so its results cannot be told from those with "
            f"another one: {error} Pass it as an argument, or make it inside the function"
        ) from error


def _class(thing: type) -> Any:
    name = f"{thing.__module__}.{thing.__qualname__}"
    return {"installed": name} if _by_name(thing) else {"class": name, "source": source(thing)}


def _by_name(thing: Any) -> bool:
    """Whether it is found in an installed module under its own name (and was not made inside a function)."""
    found: Any = sys.modules.get(thing.__module__) if installed(thing.__module__) else None
    for part in thing.__qualname__.split("."):
        found = getattr(found, part, None)
    return found is thing


@functools.cache
def installed(module: str | None) -> bool:
    """Whether a module belongs to Python, to an installed package or to the workbench, and not to who uses them."""
    top = (module or "__main__").partition(".")[0]
    if top in sys.stdlib_module_names or top == "workbench":
        return top != "__main__"
    file = getattr(sys.modules.get(top), "__file__", None)
    return file is not None and ("site-packages" in PurePath(file).parts or "dist-packages" in PurePath(file).parts)


def _in(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # the name was never given a value
        return None


def source(function: Callable[..., Any]) -> str:
    """The text of a function or class, or where there is none (typed into a prompt), a function's instructions."""
    try:
        return inspect.getsource(function)
    except (OSError, TypeError):
        code = getattr(function, "__code__", None)
        if code is None:
            return ""
        return hashlib.sha256(code.co_code + repr(code.co_consts).encode() + repr(code.co_names).encode()).hexdigest()


def _fields(thing: Any) -> Any:
    if hasattr(thing, "as_dict") and hasattr(thing, "kind"):  # an intervention
        return {"spec": content(thing.as_dict())}
    if is_dataclass(thing) and not isinstance(thing, type):
        named = {field.name: getattr(thing, field.name) for field in fields(thing) if field.compare}
        return {"class": type(thing).__qualname__, "fields": content(named)}
    return None
