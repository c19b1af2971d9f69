"""Measures for clusters; what they leave in files tells what happened in the workers. No torch without a model."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import xarray as xr

import workbench as wb
from workbench.sweeps import Grid

ROWS = Grid(row=range(12), head=range(8))
NANO = Grid(prompt=["Mia went to the park.", "Tom and Mia met in the red house"], layer=range(4), head=[0, 5])


def numbers(cells):
    """A number and an array for each cell, of its own values alone."""
    time.sleep(0.01 * len(cells))
    chance = [np.random.default_rng([cell["row"], cell["head"]]) for cell in cells]
    return [{"value": c.normal(), "many": xr.DataArray(c.normal(size=3).astype("f4"), dims="of")} for c in chance]


def ablated(model, cells):
    """The loss of a prompt without a head; the whole batch in one pass."""
    import torch

    found = []
    for cell in cells:
        run = wb.run(model, cell["prompt"], [wb.AblateHead(cell["layer"], cell["head"], "zero")])
        found.append({"loss": run.logits[0, -1].logsumexp(-1), "threads": torch.get_num_threads()})
    return found


def doubtful(cells):
    if any(cell["head"] == 3 and cell["row"] == 2 for cell in cells):
        raise LookupError("no head 3 in row 2")
    return [cell["row"] * 10.0 + cell["head"] for cell in cells]


class Slow:
    """The first process to come here is a slow machine: it takes two seconds for each batch."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)

    def __call__(self, cells):
        try:
            with open(os.path.join(self.folder, "slow"), "x") as file:
                file.write(str(os.getpid()))
        except FileExistsError:
            pass
        slow = Path(self.folder, "slow").read_text() == str(os.getpid())
        if slow:
            time.sleep(2)
        with open(os.path.join(self.folder, "batches"), "a") as file:
            file.write("slow\n" if slow else "quick\n")
        return numbers(cells)


def loads() -> int:
    """How often this process has loaded a checkpoint from disk, from here on; call it once before and once after."""
    from workbench.checkpoints import once

    if not hasattr(once.load, "times"):
        real = once.load

        def counted(*given, **how):
            counted.times += 1
            return real(*given, **how)

        counted.times = 0
        once.load = counted
    return once.load.times


def read_experts(model, cells):
    """The sum over every packed byte, the number of these bytes, and the process that read them."""
    packed = [block for name, block in model.named_buffers() if name.endswith(("_blocks", "_scales"))]
    time.sleep(0.3)  # long enough for the other worker to take the next
    total = float(sum(int(block.sum()) for block in packed))
    return [{"total": total, "packed": sum(block.numel() for block in packed), "process": os.getpid()} for _ in cells]
