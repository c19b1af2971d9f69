"""The atlas that a view reads: opened when it is needed, each question asked once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from workbench.atlases import AtlasError, atlas
from workbench.atlases.contexts import Context, contexts
from workbench.atlases.queries import Atlas
from workbench.atlases.reading import of_like_load

REMEMBERED = 400  # answers
BY = ("domain", "language", "role", "channel")
HOW = 'wb.atlas(model, texts, "my-atlas")'


class NoAtlas(ValueError):
    """There is none to look at; the message says how one is made."""


class Source:
    """An atlas, and what it was asked.

    Attributes:
        serial: counts the atlases that were looked at.
    """

    def __init__(self) -> None:
        self.serial = 0
        self._lock = threading.RLock()
        self._given: Atlas | None = None
        self._folder: str | None = None
        self._known: OrderedDict[Hashable, Future[Any]] = OrderedDict()

    def use(self, given: Atlas | None) -> None:
        """Look at this one, and forget what was known of another."""
        with self._lock:
            self._given, self._folder = given, None if given is None else str(given.folder)
            self._known.clear()
            self.serial += 1

    def of(self, folder: str | None) -> Atlas:
        """The atlas of a folder, opened if it is not.

        Raises:
            NoAtlas: no folder is chosen.
            AtlasError: there is no atlas, or it cannot be read.
        """
        if folder is None:
            raise NoAtlas(f"no atlas is open: {HOW} makes one, bench.atlas = wb.atlas.open(…) shows it here")
        with self._lock:
            if self._given is None or self._folder != folder:
                if not (Path(folder).expanduser() / "atlas.json").is_file():
                    raise AtlasError(f"there is no atlas in {folder!r} (any more): choose another folder")
                self.use(atlas.open(folder))
                self._folder = folder
            assert self._given is not None
            return self._given

    def again(self) -> None:
        """Open it anew when it is next needed: parts may have come, or gone."""
        self.use(None)

    def memo(self, given: Atlas, key: Hashable, make: Callable[[], Any]) -> Any:
        """What ``make`` gives, made once: who asks meanwhile waits for it."""
        whole = (id(given), key)
        with self._lock:
            there = self._known.get(whole)
            mine = there is None
            if there is None:
                there = self._known[whole] = Future()
                while len(self._known) > REMEMBERED:
                    self._known.popitem(last=False)
            else:
                self._known.move_to_end(whole)
        if mine:
            try:
                there.set_result(make())
            except Exception as error:
                with self._lock:
                    self._known.pop(whole, None)  # the next one tries again
                there.set_exception(error)
        return there.result()

    # ------------------------------------------------------------ what is asked

    def load(self, given: Atlas) -> xr.Dataset:
        """Tokens of each expert."""
        return self.memo(given, "load", given.load)

    def groups(self, given: Atlas) -> list[str]:
        """By what its tokens can be told apart: those of ``BY`` that something is said of."""

        def ask() -> list[str]:
            columns = ", ".join(f"count({name}) as {name}" for name in BY)
            found = given.sql(f"select {columns} from routes where layer = 0").iloc[0]
            return [name for name in BY if int(found[name]) > 0]

        return self.memo(given, "groups", ask)

    def specialisation(self, given: Atlas, by: str) -> xr.Dataset:
        """Of all experts."""
        return self.memo(given, ("specialisation", by), lambda: given.specialisation(by))

    def together(self, given: Atlas, layer: int) -> xr.Dataset:
        """Which experts of a layer serve the same tokens."""
        return self.memo(given, ("together", layer), lambda: given.coactivation(layer))

    def top(self, given: Atlas, layer: int, expert: int, n: int, order: str, once: bool) -> pd.DataFrame:
        """Where it fires hardest, or anywhere."""
        key, few = ("top", layer, expert, n, order, once), 1 if once else None
        return self.memo(given, key, lambda: given.top(layer, expert, n, order, few))

    def contexts(self, given: Atlas, top: tuple[Any, ...], before: int, after: int) -> list[Context]:
        """The text round what :meth:`top` gives for these arguments."""
        layer, expert = top[:2]

        def read() -> list[Context]:
            return contexts(given, self.top(given, *top), layer, expert, before, after)

        return self.memo(given, ("contexts", top, before, after), read)

    def context(
        self, given: Atlas, top: tuple[Any, ...], place: tuple[int, int], before: int, after: int
    ) -> Context | None:
        """One of them, with as much round it as is wanted; None if it is not among them."""
        found = self.top(given, *top)
        row = found.query("document == @place[0] and position == @place[1]")
        if not len(row):
            return None
        layer, expert = top[:2]
        key = ("context", layer, expert, place, before, after)
        return self.memo(given, key, lambda: contexts(given, row, layer, expert, before, after)[0])

    def control(self, given: Atlas, layer: int, expert: int) -> int | None:
        """The other expert of the layer whose load is closest."""
        return of_like_load(self.load(given), layer, expert) if given.n_experts > 1 else None

    def busiest(self, given: Atlas, layer: int) -> int:
        """The expert of a layer with the most tokens."""
        return int(np.argmax(self.load(given)["count"].sel(layer=layer).values))
