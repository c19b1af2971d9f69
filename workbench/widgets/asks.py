"""Answers to what the browser asks: on threads of their own, so that a long pass of the model does not hold them up."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import numpy as np

from workbench.widgets.worker import Cancelled, in_words

Answer = tuple[dict[str, Any], dict[str, np.ndarray]]
Reply = Callable[[dict[str, Any], Mapping[str, np.ndarray]], None]
READERS = 2


class Asks:
    """Answers asks; of one place on the screen only the newest."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self._newest: dict[Any, Any] = {}
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(READERS, "workbench reader")

    def put(self, message: Mapping[str, Any], answer: Callable[[], Answer]) -> None:
        """Answer a message when a reader is free, unless its place has asked something newer by then."""
        slot, id = message.get("slot"), message.get("id")
        if slot is not None:
            with self._lock:
                self._newest[slot] = id
        with suppress(RuntimeError):  # closed: nobody is there any more
            self._pool.submit(self._answer, {"did": "data", "id": id, "view": message.get("view")}, slot, answer)

    def _answer(self, head: dict[str, Any], slot: Any, answer: Callable[[], Answer]) -> None:
        if slot is not None and self._newest.get(slot) != head["id"]:
            self._reply({**head, "dropped": True}, {})
            return
        try:
            json, arrays = answer()
        except Cancelled:
            self._reply({**head, "dropped": True}, {})
        except Exception as error:  # whatever a view meets, its place on the screen says so
            self._reply({**head, "error": in_words(error)}, {})
        else:
            self._reply({**head, "json": json}, arrays)

    def close(self) -> None:
        """Answer no more."""
        self._pool.shutdown(wait=False, cancel_futures=True)
