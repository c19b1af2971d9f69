"""What views with long work share: they keep the newest of what they found, and show it while more is found."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from typing import Any, Generic, TypeVar

import numpy as np

from workbench.widgets.jobs import Jobs

Key = TypeVar("Key", bound=Hashable)
Made = TypeVar("Made")
Told = tuple[dict[str, Any], Mapping[str, np.ndarray]]


class Kept(Generic[Key, Made]):
    """The newest few of what was made, by what it was made for. Safe from any thread."""

    def __init__(self, most: int) -> None:
        self._most, self._all, self._lock = most, OrderedDict[Key, Made](), threading.Lock()

    def of(self, key: Key, make: Callable[[], Made]) -> Made:
        """What there is for a key, or is made for it now; of two that make it at once the first one's stays."""
        with self._lock:
            if key in self._all:
                self._all.move_to_end(key)
                return self._all[key]
        made = make()  # not under the lock: it may wait for the model
        with self._lock:
            made = self._all.setdefault(key, made)
            while len(self._all) > self._most:
                self._all.popitem(last=False)
            return made

    def all(self) -> list[Made]:
        """Everything that is kept, oldest first."""
        with self._lock:
            return list(self._all.values())


class Progress:
    """Streams to a view what is known, while a job finds more of it; and at the end, however that comes.

    ``with Progress(session, "ablation", "totals", tell) as show: …; show()``

    Args:
        tell: what is known now, as words and arrays; None where nobody wants it any more.
        every: seconds between two calls of it, where to say it all takes time.
    """

    def __init__(self, session: Jobs, view: str, key: str, tell: Callable[[], Told | None], every: float = 0.0) -> None:
        self._session, self._place, self._tell, self._every = session, (view, key), tell, every
        self._last = 0.0

    def __call__(self, now: bool = False) -> None:
        """Show it, if it is time to.

        Args:
            now: in any case.
        """
        moment = time.monotonic()
        if (now or moment - self._last >= self._every) and (told := self._tell()) is not None:
            self._last = moment
            self._session.stream(*self._place, *told)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *problem: object) -> None:
        self(now=True)
        self._session.flush(*self._place)
