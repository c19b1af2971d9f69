"""Which cells are measured together, and in what order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from threading import Event

from workbench.sweeps.grid import Cell

Cancel = Event | Callable[[], bool] | None
PATIENCE = 16  # batches that fit, before larger ones are tried again after memory ran out


def batched(
    cells: Iterable[Cell],
    batch: int = 16,
    cost: Callable[[Cell], float | int] | None = None,
    most: float | int | None = None,
    together: Callable[[Cell], Hashable] | None = None,
) -> Iterator[list[Cell]]:
    """Neighbouring cells in batches, made one at a time.

    Args:
        batch: most cells in one.
        cost, most: what a cell costs, and the most that a batch may; a cell that costs more goes alone.
        together: cells are batched only with neighbours for which this gives the same (say, their prompt).
    """
    now: list[Cell] = []
    spent, key = 0.0, None
    for cell in cells:
        price = 0.0 if cost is None else float(cost(cell))
        its = None if together is None else together(cell)
        full = len(now) >= batch or (most is not None and spent + price > most)
        if now and (full or its != key):
            yield now
            now, spent = [], 0.0
        now.append(cell)
        spent, key = spent + price, its
    if now:
        yield now


class Plan:
    """The batches that are still to be measured: parts of failed ones first, and none after a cancel.

    An iterator that goes on giving batches after it has ended, if a failed one was put back meanwhile. After a batch
    that did not fit in memory, all are cut to half its cells; after a row that did fit, they may grow again.
    """

    def __init__(self, batches: Iterator[list[Cell]], cancel: Cancel) -> None:
        self._batches, self._parts = batches, deque[list[Cell]]()
        self._cancel = cancel.is_set if isinstance(cancel, Event) else cancel
        self._fitted = 0
        self._again: set[tuple[int, ...]] = set()
        self.cancelled = False
        self.limit: int | None = None

    def __iter__(self) -> Plan:
        return self

    def __next__(self) -> list[Cell]:
        if self.stopped():
            raise StopIteration
        batch = self._parts.popleft() if self._parts else next(self._batches)
        if self.limit is not None and len(batch) > self.limit:
            self._parts.appendleft(batch[self.limit :])
            batch = batch[: self.limit]
        return batch

    def stopped(self) -> bool:
        """Whether it was cancelled, by now."""
        if self._cancel is not None and self._cancel():
            self.cancelled = True
        return self.cancelled

    def split(self, batch: list[Cell]) -> None:
        """Put the halves of a failed batch in front of everything else."""
        middle = len(batch) // 2
        self._parts.extendleft([batch[middle:], batch[:middle]])

    def did_not_fit(self, batch: list[Cell]) -> None:
        """Memory ran out: smaller batches from here on, beginning with the halves of this one."""
        half = max(1, len(batch) // 2)
        self.limit = half if self.limit is None else min(self.limit, half)
        self._fitted = 0
        self.split(batch)

    def fitted(self, batch: list[Cell]) -> None:
        """A batch was measured; after ``PATIENCE`` as large as is allowed, twice as large ones are tried."""
        if self.limit is None or len(batch) < self.limit:
            return
        self._fitted += 1
        if self._fitted >= PATIENCE:
            self.limit, self._fitted = 2 * self.limit, 0

    def once_more(self, batch: list[Cell]) -> bool:
        """Put a batch of one cell back, the first time that this is asked of it."""
        index = batch[0].index
        if index in self._again:
            return False
        self._again.add(index)
        self._parts.appendleft(batch)
        return True

    @property
    def more(self) -> bool:
        """Whether parts of failed batches wait."""
        return bool(self._parts) and not self.cancelled
