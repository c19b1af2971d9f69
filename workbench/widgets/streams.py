"""What is pushed to the screen: at most twenty times a second for each place, and the newest wins."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable

from workbench.model.interrupts import finish_first

INTERVAL = 0.05  # seconds: faster than this nobody sees, and the browser would fall behind


class Streams:
    """Calls that replace one another. Safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[Hashable, Callable[[], None]] = {}
        self._last: dict[Hashable, float] = {}
        self._timers: dict[Hashable, threading.Timer] = {}

    def push(self, key: Hashable, send: Callable[[], None]) -> None:
        """Call ``send`` now, or when this key's turn comes, unless a newer one has taken its place by then."""
        if finish_first(lambda: self._is_its_turn(key, send)):
            self.flush(key)

    def _is_its_turn(self, key: Hashable, send: Callable[[], None]) -> bool:
        with self._lock:
            wait = self._last.get(key, 0.0) + INTERVAL - time.monotonic()
            self._waiting[key] = send
            if key in self._timers:
                return False
            if wait > 0:
                timer = self._timers[key] = threading.Timer(wait, self.flush, (key,))
                timer.daemon = True
                timer.start()
            return wait <= 0

    def flush(self, key: Hashable) -> None:
        """Call what waits for this key."""
        with self._lock:
            timer = self._timers.pop(key, None)
            if timer is not None:
                timer.cancel()
            send = self._waiting.pop(key, None)
            self._last[key] = time.monotonic()
        if send is not None:
            send()

    def close(self) -> None:
        """Forget what waits."""
        with self._lock:
            for timer in self._timers.values():
                timer.cancel()
            self._timers.clear()
            self._waiting.clear()
