"""Which cells are measured together, and in what order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from threading import Event

from workbench.sweeps.grid import Cell

Cancel = Event | Callable[[], bool] | None


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

    An iterator that goes on giving batches after it has ended, if a failed one was put back meanwhile.
    """

    def __init__(self, batches: Iterator[list[Cell]], cancel: Cancel) -> None:
        self._batches, self._parts = batches, deque[list[Cell]]()
        self._cancel = cancel.is_set if isinstance(cancel, Event) else cancel
        self.cancelled = False

    def __iter__(self) -> Plan:
        return self

    def __next__(self) -> list[Cell]:
        if self._cancel is not None and self._cancel():
            self.cancelled = True
        if self.cancelled:
            raise StopIteration
        return self._parts.popleft() if self._parts else next(self._batches)

    def split(self, batch: list[Cell]) -> None:
        """Put the halves of a failed batch in front of everything else."""
        middle = len(batch) // 2
        self._parts.extendleft([batch[middle:], batch[:middle]])

    @property
    def more(self) -> bool:
        """Whether parts of failed batches wait."""
        return bool(self._parts) and not self.cancelled
