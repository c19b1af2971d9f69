"""The same work many times in a row in a process of its own, and what of memory, objects and handles has grown.

``python -m tests.robust.leaks FOLDER runs=1000 texts=100 bench=300`` prints one line of JSON. With
WORKBENCH_ROBUST=full Python's own memory is counted too, which takes twice as long.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import sys
import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import torch
from transformer_lens.hook_points import HookPoint

import workbench as wb
from tests.robust.works import EDITS, SITE, small
from workbench.activations import Run
from workbench.model import HookedGptOss
from workbench.provenance import flush

TEXT = "Mia lives in the park. Tom and Mia went to the store."


def counts() -> dict[str, float]:
    """What this process holds now."""
    flush()
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)  # what is free is given back, so that it does not count as held
    process, things = psutil.Process(), gc.get_objects()
    kinds = {"tensors": torch.Tensor, "hook points": HookPoint, "runs": Run, "models": HookedGptOss}
    held: dict[str, float] = {name: sum(issubclass(type(t), kind) for t in things) for name, kind in kinds.items()}
    held["hooks"] = sum(len(t.fwd_hooks) + len(t._forward_hooks) for t in things if type(t) is HookPoint)
    files = process.num_fds() if hasattr(process, "num_fds") else process.num_handles()
    return held | {
        "MB": process.memory_info().rss / 1e6,
        "Python MB": tracemalloc.get_traced_memory()[0] / 1e6,
        "threads": threading.active_count(),
        "files": files,
    }


def measured(once: Callable[[int], Any], warm_up: int, n: int) -> dict[str, Any]:
    """Counts after the first few and after n more times."""
    for i in range(warm_up):
        once(i)
    before = counts()
    for i in range(n):
        once(warm_up + i)
    return {"n": n, "before": before, "after": counts()}


def runs(folder: Path, n: int) -> dict[str, Any]:
    """Edited runs, each with other edits than the one before."""
    model, tokens = small(folder)
    sources = {"clean": wb.run(model, tokens.flip(1))}
    return measured(lambda i: wb.run(model, tokens, EDITS[: i % 6], sources=sources), 100, n)


def texts(folder: Path, n: int) -> dict[str, Any]:
    """Texts generated step by step, every third one dropped midway, every fourth ended by an error in a hook."""
    model, tokens = small(folder)

    def fail(x: Any, hook: Any) -> None:
        raise MemoryError

    def once(i: int) -> None:
        text = model.generate(tokens, 8, temperature=1.0, seed=i, fwd_hooks=[(SITE, fail)] if i % 4 == 3 else ())
        if i % 3:
            try:
                text.finish()
            except MemoryError:
                return
        elif i % 4 != 3:
            next(text)

    return measured(once, 20, n)


def bench(folder: Path, n: int) -> dict[str, Any]:
    """A Bench whose interventions come and go; its history keeps the specs of each state, and no runs."""
    from workbench.widgets import Bench

    view = Bench(wb.load("nano"), TEXT)

    def once(i: int) -> None:
        number = view.add(wb.AblateExpert(i % 4, i % 8, "zero"))
        if i % 3 == 0:
            view.undo()
        elif i % 3 == 1:
            view.session.remove(number)
        else:
            view.session.toggle(number)
            view.interventions = ()
        view.session.wait(60)

    made = measured(once, 40, n)
    return made | {"history": len(view.session.history.entries)}


KINDS = {"runs": runs, "texts": texts, "bench": bench}

if __name__ == "__main__":
    if os.environ.get("WORKBENCH_ROBUST") == "full":
        tracemalloc.start()
    asked = [each.split("=") for each in sys.argv[2:]]
    print(json.dumps({kind: KINDS[kind](Path(sys.argv[1]) / kind, int(n)) for kind, n in asked}))
