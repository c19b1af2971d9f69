"""A measured process: one subject, which does what it is told on stdin and answers on stdout, a JSON line each.

Not meant to be called by hand: ``tests/bench/common/rounds.py`` starts it.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

from tests.bench.common.memory import peak_of, peaks

LONG = 1.0  # seconds; longer work is warmed up once, shorter work at each turn
TURN = 0.4  # seconds that short work is repeated for at a turn
MOST = 20  # repetitions at a turn


class Worker:
    """Holds the subject between commands."""

    def __init__(self, kind: str) -> None:
        start = time.perf_counter()
        self.module = importlib.import_module(f"tests.bench.common.subjects.{kind}")
        self.imported = time.perf_counter() - start
        self.subject: Any = None
        self._seconds: dict[str, float] = {}

    def load(self, **how: Any) -> dict[str, Any]:
        start = time.perf_counter()
        with peaks() as peak:
            self.subject = self.module.Subject(**how)
            seconds = time.perf_counter() - start
        return {"seconds": seconds, "import_seconds": self.imported, **peak, **self.subject.about()}

    def time(self, work: str, warm: bool = True, **how: Any) -> dict[str, Any]:
        """Seconds of one repetition or more; warmed up first: long work once, short work each time."""
        run, key = self._run(work, how), json.dumps([work, how])
        gc.collect()
        if not warm:
            return _turn(run, 1)
        if self._seconds.get(key, 0.0) < LONG:
            self._seconds[key] = _clock(run)[0]
        return _turn(run, max(1, min(MOST, int(TURN / max(self._seconds[key], 1e-6)))))

    def memory(self, work: str, **how: Any) -> dict[str, Any]:
        run = self._run(work, how)
        gc.collect()
        return dict(peak_of(run))

    def answer(self, work: str, file: str, **how: Any) -> dict[str, Any]:
        """Store what the work computes, for comparison with the others."""
        import numpy as np

        np.save(file, np.asarray(self._run(work, how)()))
        return {}

    def ask(self, question: str, **how: Any) -> dict[str, Any]:
        """Anything else that a subject can tell."""
        return getattr(self.subject, question)(**how)

    def _run(self, work: str, how: dict[str, Any]) -> Callable[[], Any]:
        return getattr(self.subject, work)(**how)


def _turn(run: Callable[[], Any], repeats: int) -> dict[str, Any]:
    """Seconds of each repetition, and processor seconds, all threads together, of one on average."""
    start = time.process_time()
    seconds = [_clock(run)[1] for _ in range(repeats)]
    return {"seconds": seconds, "processor_seconds": (time.process_time() - start) / repeats}


def _clock(run: Callable[[], Any]) -> tuple[float, float]:
    """(seconds that the call took, seconds that it counts: its own figure where it returns one)."""
    start = time.perf_counter()
    result = run()
    took = time.perf_counter() - start
    return took, result if isinstance(result, float) else took


def main(kind: str) -> None:
    # Libraries print what they like: the answers go out on a descriptor of their own.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)
    worker = None
    for line in sys.stdin:
        command = json.loads(line)
        try:
            worker = worker or Worker(kind)
            answer = getattr(worker, command.pop("do"))(**command)
        except Exception as error:
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}".splitlines()[0][:300]}
        answers.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
