"""Which engine a call goes through, and a way to ask for one."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from types import ModuleType

import torch

from workbench.model.engines import eager, native

ENGINES: dict[str, ModuleType] = {"native": native, "eager": eager}
_NATIVE_DTYPES = (torch.bfloat16, torch.float32)
_asked: ContextVar[str | None] = ContextVar("engine", default=None)


@contextmanager
def use(name: str) -> Iterator[None]:
    """Take one engine, "native" or "eager", in this thread until the block ends.

    Raises:
        ValueError: for another name.
        RuntimeError: for "native" where it was not built; the message says why.
    """
    _check_name(name, "engines.use")
    if name == "native" and not native.available():
        raise RuntimeError(f"the native engine is not available: {native.why_not()}")
    token = _asked.set(name)
    try:
        yield
    finally:
        _asked.reset(token)


def engine_name(device: torch.device | str, dtype: torch.dtype, warn: bool = True) -> str:
    """The engine that packed experts on this device and in this dtype go through.

    Args:
        warn: say once, where only the native library is missing, that it is.
    """
    asked = _asked.get() or os.environ.get("WORKBENCH_ENGINE") or None
    if asked is not None:
        _check_name(asked, "WORKBENCH_ENGINE")
    if asked == "eager" or torch.device(device).type != "cpu" or dtype not in _NATIVE_DTYPES:
        return "eager"
    if native.available():
        return "native"
    if warn:
        _warn_once(native.why_not())
    return "eager"


def _check_name(name: str, where: str) -> None:
    if name not in ENGINES:
        raise ValueError(f"{where}: {name!r} is no engine; expected one of {list(ENGINES)}")


@lru_cache(maxsize=1)
def _warn_once(why: str) -> None:
    warnings.warn(
        "packed experts run on torch operations, several times slower than the native engine, which is missing: "
        f"{why}. With a C compiler (Debian: apt-get install gcc; macOS: xcode-select --install), run "
        "`python -m workbench.model.engines.native.build`. WORKBENCH_ENGINE=eager keeps this quiet",
        stacklevel=2,
    )
