"""The models that checks ask, loaded once in a process."""

from __future__ import annotations

from functools import cache

from workbench.checkpoints import load
from workbench.model import HookedGptOss


@cache
def nano() -> HookedGptOss:
    """The embedded model. Checks must leave it as it is: no hooks, no changed weights."""
    return load("nano")
