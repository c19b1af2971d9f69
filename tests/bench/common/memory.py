"""How much memory one piece of work needs at its peak."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.bench.common.machine import process_bytes

EVERY = 0.002  # seconds between two looks at private memory, of which the kernel keeps no peak


@contextmanager
def peaks() -> Iterator[dict[str, int | None]]:
    """Fills a dict at the end of the block: ``resident``, the peak with mapped file pages, and ``private``, without.

    Linux only; None elsewhere. Not for timed runs: a thread looks every 2 ms.
    """
    found: dict[str, int | None] = {"resident": None, "private": None}
    if process_bytes("RssAnon") is None:
        yield found
        return
    _forget_peak()
    seen, stop = [0], threading.Event()
    watcher = threading.Thread(target=_watch, args=(seen, stop), daemon=True)
    watcher.start()
    try:
        yield found
    finally:
        stop.set()
        watcher.join()
        found["resident"], found["private"] = process_bytes("VmHWM"), seen[0]


def _watch(seen: list[int], stop: threading.Event) -> None:
    while True:
        seen[0] = max(seen[0], process_bytes("RssAnon") or 0)
        if stop.is_set():
            return
        time.sleep(EVERY)


def _forget_peak() -> None:
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # VmHWM starts again from what is held now
    except OSError:
        return


def peak_of(run: Callable[[], Any]) -> dict[str, int | None]:
    """Both peaks of one call."""
    with peaks() as found:
        run()
    return found
