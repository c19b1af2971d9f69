"""The sweep that is killed: python sweeping.py JOURNAL MEASURED OUT N [nano]. It loads no torch, unless asked for nano.

It prints "ready", and the number of each cell when the sweep has given it. MEASURED is a file with a line for each cell
that was measured, on the disk before the measure returns. OUT gets the dataset.
"""

from __future__ import annotations

import os
import sys
import time

import numpy as np
import xarray as xr

from workbench.sweeps import Grid, sweep

SECONDS = 0.004  # that a cell takes
HEADS = 8


class Counting:
    """Writes down what it measures; part of no result, so none of what tells a study apart."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __call__(self, cells) -> None:
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(file, "".join(f"{number(cell)}\n" for cell in cells).encode())
        os.fsync(file)
        os.close(file)

    kind = "counting"

    def as_dict(self) -> dict[str, str]:
        return {}


def number(cell) -> int:
    return cell["row"] * HEADS + cell["head"]


def value_of(row: int, head: int) -> dict:
    random = np.random.default_rng([row, head])
    return {"value": float(random.normal()), "many": xr.DataArray(random.normal(size=3).astype(np.float32), dims="of")}


def numbers(counting: Counting):
    def measure(cells):
        time.sleep(SECONDS * len(cells))
        values = [value_of(cell["row"], cell["head"]) for cell in cells]
        counting(cells)
        return values

    return measure


def of_nano(counting: Counting):
    def measure(model, cells):
        import workbench as wb

        found = []
        for cell in cells:
            spec = wb.AblateHead(cell["row"] % 4, cell["head"], "zero")
            run = wb.run(model, "Mia went to the park and " + "then " * (cell["row"] // 4), [spec])
            found.append(float(run.logits[0, -1].logsumexp(-1)))
        counting(cells)
        return found

    return measure


def main(journal: str, measured: str, out: str, rows: str, *of_model: str) -> None:
    grid = Grid(row=range(int(rows)), head=range(HEADS))
    counting = Counting(measured)
    chosen = {}
    if of_model:
        from workbench.checkpoints import recipe_of

        chosen = {"model": recipe_of(of_model[0])}  # loaded before "ready"
    measure = of_nano(counting) if of_model else numbers(counting)
    print("ready", flush=True)
    found = sweep(
        measure,
        grid,
        **chosen,
        batch=3,
        journal=journal if journal != "none" else None,
        progress=False,
        on_result=lambda cell, value: print(number(cell), flush=True),
    )
    found.to_xarray().to_netcdf(out)


if __name__ == "__main__":
    main(*sys.argv[1:])
