"""Sweeps on a cluster of this machine: what a second worker brings, and what a cell costs besides its measure.

python -m tests.bench.bench_sweep [--quick]

Two Dask workers of one thread each take turns with one of them, at ablations of nano. The cost of a cell is measured
with cells that sleep for 20 ms and say how long they slept: what is left of a worker's time is what a cell costs, so
that other work on the machine matters less.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import dask
import torch
from distributed import Client, LocalCluster

import workbench as wb
from tests.bench.common.options import Options, main
from tests.bench.common.results import Demand, Part
from workbench.checkpoints import Recipe, recipe_of
from workbench.sweeps import Grid, sweep
from workbench.sweeps.study import OfModel
from workbench.sweeps.workers import alone, packed, pickler

CELL = 0.020  # seconds that a cell of the second part takes
TEXT = "Mia went to the park and Tom went to the house. Mia is in the park. Tom is in the"
ONE, TWO = "one worker", "two workers"
LOOP, SERIAL, CLUSTER = "no sweep: a loop", "this process, journal", "two Dask workers, journal"


def ablated(model: Any, cells: list[Any]) -> list[float]:
    """The last token's free energy without a head and without an expert, a pass for each cell."""
    found = []
    for cell in cells:
        specs = [wb.AblateHead(cell["layer"], cell["head"], "zero"), wb.AblateExpert(cell["layer"], cell["expert"])]
        found.append(float(wb.run(model, TEXT, specs).logits[0, -1].logsumexp(-1)))
    return found


def slept(cells: list[Any]) -> list[float]:
    """The seconds that each cell's measure really took."""
    found = []
    for _ in cells:
        start = time.perf_counter()
        time.sleep(CELL)
        found.append(time.perf_counter() - start)
    return found


def run(options: Options) -> list[Part]:
    """Two parts: speed, and cost."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with cluster() as client:
            return [speed(client, options), cost(client, options)]
    finally:
        torch.set_num_threads(threads)


@contextmanager
def cluster() -> Iterator[Client]:
    """Two worker processes of one thread, as Dask makes them by default."""
    with (
        dask.config.set({"temporary-directory": tempfile.gettempdir(), "logging.distributed": "error"}),
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50) as made,
        Client(made) as client,
    ):
        yield client


def speed(client: Client, options: Options) -> Part:
    """The same sweep on one worker and on both, in turns."""
    part = Part("sweep-workers", "a sweep of ablations of nano on Dask workers of one thread", [ONE, TWO])
    options.say(part.title)
    recipe, batch = recipe_of("nano"), 16
    model = wb.load("nano")
    grid = Grid(
        layer=range(model.config.n_layers),
        head=range(model.config.n_heads),
        expert=range(4 if options.quick else model.config.n_experts),
    )
    first = next(iter(client.scheduler_info(n_workers=-1)["workers"]))
    executors = {ONE: client.get_executor(workers=[first]), TWO: client.get_executor()}
    work = f"{len(grid)} cells in batches of {batch}"
    for turn in range(1 + (options.rounds or (3 if options.quick else 7))):
        for subject, executor in _in_turns(executors, turn):
            start, before = time.perf_counter(), processor(client)
            sweep(ablated, grid, model=recipe, batch=batch, executor=executor, progress=False)
            if turn:  # the first is to load the model
                part.cell(work, 0, subject).rounds.append([time.perf_counter() - start])
                part.cell(work, 0, subject).processor.append(processor(client) - before)
    ratios = part.cell(work, 0, ONE).ratios(part.cell(work, 0, TWO))
    part.notes.append(_processor(part, work, 1.0, "s for the sweep"))
    part.notes.append(f"one ÷ two, round by round: {', '.join(f'{ratio:.2f}' for ratio in ratios)}")
    part.notes.append(travels(recipe, grid, batch))
    part.demands.append(Demand("two workers over one", statistics.median(ratios), 1.7))
    return part


def travels(recipe: Recipe, grid: Grid, batch: int) -> str:
    """The bytes of a batch on its way to a worker."""
    task = len(packed(OfModel(ablated, recipe)).measure)
    one, many = (len(pickler()([alone(cell) for cell in list(grid)[:n]])) for n in (1, batch))
    return f"what travels: {task} bytes of measure and recipe, {one} of one cell, {many} of {batch} cells"


def cost(client: Client, options: Options) -> Part:
    """Seconds besides the measure, for each cell of 20 ms."""
    part = Part("sweep-cost", "what a cell of 20 ms costs besides its measure", [LOOP, SERIAL, CLUSTER])
    options.say(part.title)
    grid, rounds = Grid(i=range(500)), options.rounds or (3 if options.quick else 7)
    work = f"{len(grid)} cells, one a batch, each"
    with tempfile.TemporaryDirectory() as folder:
        subjects: dict[str, Callable[[int], float]] = {
            LOOP: lambda turn: besides(lambda: [slept([cell])[0] for cell in grid], 1),
            SERIAL: lambda turn: besides(partial(_swept, grid, Path(folder, f"serial-{turn}")), 1),
            CLUSTER: lambda turn: besides(
                partial(_swept, grid, Path(folder, f"cluster-{turn}"), client.get_executor()), 2
            ),
        }
        for turn in range(1 + rounds):
            for subject, measure in _in_turns(subjects, turn):
                before = processor(client)
                seconds = measure(turn)
                if turn:
                    part.cell(work, 0, subject).rounds.append([seconds])
                    part.cell(work, 0, subject).processor.append((processor(client) - before) / len(grid))
        part.notes.append(f"journal: {_journal_bytes(Path(folder), len(grid)):.0f} bytes a cell")
    part.notes.append(_processor(part, work, 1e6, "µs for a cell"))
    for subject in (SERIAL, CLUSTER):
        share = 100 * (part.median(work, 0, subject) or 0.0) / CELL
        part.demands.append(Demand(f"{subject}: of a cell of 20 ms", share, 5.0, at_least=False, unit=" %"))
    return part


def processor(client: Client) -> float:
    """Seconds of processor time so far, of this process (the scheduler is in it) and of the workers."""
    return sum(os.times()[:2]) + sum(client.run(_own_processor).values())


def _own_processor() -> float:
    return sum(os.times()[:2])


def _processor(part: Part, work: str, factor: float, unit: str) -> str:
    """In words; other work on the machine changes it little."""
    found = {name: statistics.median(part.cell(work, 0, name).processor) * factor for name in part.subjects}
    return "processor time of all processes, " + ", ".join(f"{name}: {n:.3g} {unit}" for name, n in found.items())


def besides(work: Callable[[], list[float]], workers: int) -> float:
    """Seconds of a worker's time for each cell in which nothing was measured."""
    start = time.perf_counter()
    measured = work()
    return (workers * (time.perf_counter() - start) - sum(measured)) / len(measured)


def _swept(grid: Grid, journal: Path, executor: Any = None) -> list[float]:
    found = sweep(slept, grid, batch=1, journal=journal, executor=executor, progress=False)
    return [value for _, value in found]


def _journal_bytes(folder: Path, n: int) -> float:
    (segment,) = next(folder.glob("serial-*")).glob("*/*.cells")
    return segment.stat().st_size / n


def _in_turns(subjects: dict[str, Any], turn: int) -> list[tuple[str, Any]]:
    """In the order given, and every other round in the opposite one."""
    return list(subjects.items())[:: -1 if turn % 2 else 1]


if __name__ == "__main__":
    main(run, __doc__)
