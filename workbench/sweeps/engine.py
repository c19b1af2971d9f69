"""The sweep itself: measure every cell of a grid once, and lose nothing on the way."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from concurrent.futures import Executor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from workbench.provenance import recording
from workbench.sweeps.executors import OnExecutor
from workbench.sweeps.grid import Cell, Grid
from workbench.sweeps.memory import make_room, ran_out
from workbench.sweeps.plan import Cancel, Plan, batched
from workbench.sweeps.results import Interrupted, Results
from workbench.sweeps.runner import Measure, Runner, in_process
from workbench.sweeps.study import Kept, OfModel, OfThisModel, name_of_measure, of_model, parts_of

Batches = Callable[[Iterator[Cell]], Iterable[list[Cell]]]


def sweep_iter(
    measure: Measure,
    grid: Grid,
    *,
    batch: int = 16,
    cost: Callable[[Cell], float | int] | None = None,
    most: float | int | None = None,
    together: Callable[[Cell], Hashable] | None = None,
    batches: Batches | None = None,
    cancel: Cancel = None,
    results: Results | None = None,
    runner: Runner = in_process,
    kept: Kept | None = None,
) -> Iterator[tuple[Cell, Any]]:
    """:func:`sweep` as a generator: (cell, value) as they are measured, a failed cell's error as its value.

    Give ``results`` to keep them. Stop asking, or close the generator, to stop the sweep: what was given is recorded.
    """
    results = _checked(grid, results, batch, cost, most)
    if batches is None:
        made = batched(results.unfinished(), batch, cost, most, together)
    else:
        made = iter(batches(results.unfinished()))
    plan = Plan(made, cancel)
    return _measured(measure, plan, results, runner, kept)


def _measured(
    measure: Measure, plan: Plan, results: Results, runner: Runner, kept: Kept | None
) -> Iterator[tuple[Cell, Any]]:
    results.cancelled = False
    while True:
        for cells, values in runner(measure, plan):
            if not isinstance(values, Exception):
                plan.fitted(cells)
                results.record(cells, values)
                found = [(cell, results[cell]) for cell in cells]
                if kept is not None:
                    kept.keep(results, cells)
                yield from found
            elif not _again(plan, cells, values):
                results.fail(cells[0], values)
                yield cells[0], values
        # A runner that keeps several batches under way may have met the end of the plan before one of them failed.
        if not plan.more:
            break
    results.cancelled = plan.cancelled


def _again(plan: Plan, cells: list[Cell], error: Exception) -> bool:
    """Whether a batch that failed is tried again: in halves, and a single cell once, if only memory ran out."""
    if not ran_out(error):
        if len(cells) > 1:
            plan.split(cells)
        return len(cells) > 1
    make_room()
    if len(cells) > 1:
        plan.did_not_fit(cells)
        return True
    return plan.once_more(cells)


def sweep(
    measure: Callable[..., Any],
    grid: Grid,
    *,
    model: Any = None,
    executor: Executor | None = None,
    journal: str | Path | None = None,
    batch: int = 16,
    cost: Callable[[Cell], float | int] | None = None,
    most: float | int | None = None,
    together: Callable[[Cell], Hashable] | None = None,
    batches: Batches | None = None,
    progress: bool = True,
    cancel: Cancel = None,
    on_result: Callable[[Cell, Any], None] | None = None,
    results: Results | None = None,
    runner: Runner = in_process,
) -> Results:
    """Measure every cell of a grid.

    Args:
        measure: a list of cells → a value for each: a number, a DataArray, or a dict of these by name. With ``model``:
            (the model, a list of cells) → the same.
        model: "nano", a folder, a Recipe, or a model that ``wb.load`` made. Each worker loads it once.
        executor: any ``concurrent.futures.Executor``, as Dask's ``client.get_executor()``; this process if None.
        journal: a folder that keeps every finished cell, so that a sweep that was killed goes on where it was. It keeps
            cells by what they are (the model's fingerprint, the measure's code, the values of the cell): a larger grid
            finds those of a smaller one again.
        batch: most cells in one call.
        cost, most: what a cell costs, and the most that one call may cost (tokens, say). A cell beyond it goes alone.
        together: only cells for which this gives the same go into one call, if they are neighbours in the grid. With
            ``lambda cell: cell["prompt"]`` a measure has one prompt at a time, whose beginning it can run once. By
            default what the measure itself says, if it has a ``together``.
        batches: instead of these four, a function of the cells that are left that gives each of them once, in lists
            that are measured together, in any order.
        progress: show a bar with the rate and the time left.
        cancel: an Event, or a function that gives true, to stop before the next call.
        on_result: called with each cell and its value (or its error) as soon as it is there.
        results: of an earlier sweep over the same axes: finished cells are not measured again, failed ones are. It is
            filled in place, and returned.
        runner: who calls the measure; this process by default.

    Returns:
        The Results. A call that raises is repeated in halves, down to the cells that raise alone: those are in
        ``results.failures`` with their errors, and all the others are measured. After a call that ran out of memory,
        all later ones are smaller too, until they have fitted for a while; a single cell is tried once more.

    Raises:
        ValueError: for results of other axes, a batch below 1, ``cost`` without ``most`` or the other way round; if
            the measure gives something else than a value for each cell.
        Interrupted: a KeyboardInterrupt that carries the results.
        JournalError: the journal cannot be read, or not be written any more; what it holds is safe.
    """
    results = _checked(grid, results, batch, cost, most)
    together = together or getattr(measure, "together", None)
    measure = measure if model is None else of_model(measure, model)
    kept = None if journal is None else Kept(journal, measure)
    if kept is not None:
        kept.restore(results)
    made = sweep_iter(
        measure,
        grid,
        batch=batch,
        cost=cost,
        most=most,
        together=together,
        batches=batches,
        cancel=cancel,
        results=results,
        runner=runner if executor is None else OnExecutor(executor),
        kept=kept,
    )
    try:
        # What an experiment sweeps inside itself leaves no record of its own.
        with (
            _recorded(measure, grid, executor, journal)
            if model is not None or journal is not None
            else nullcontext() as record
        ):
            _watch(made, results, progress, on_result)
            if record is not None:
                record.note(done=results.done, failed=len(results.failures), cancelled=results.cancelled)
    except KeyboardInterrupt as stopped:
        raise Interrupted(results) from stopped
    finally:
        if kept is not None:
            kept.close()
    return results


def _watch(
    made: Iterator[tuple[Cell, Any]], results: Results, progress: bool, on_result: Callable[[Cell, Any], None] | None
) -> None:
    """Go through a sweep with a bar."""
    total = len(results.grid) if progress else None  # counting a filtered grid asks the filter of every cell
    with tqdm(total=total, initial=results.done, desc="sweep", unit="cell", disable=not progress) as bar:
        for cell, value in made:
            bar.update()
            if results.failures:
                bar.set_postfix(failed=len(results.failures), refresh=False)
            if on_result is not None:
                on_result(cell, value)


def _recorded(
    measure: Any, grid: Grid, executor: Executor | None, journal: str | Path | None
) -> AbstractContextManager[Any]:
    """One record of the whole sweep; its runs leave none. What an experiment sweeps inside itself is no sweep here."""
    if journal is None and not isinstance(measure, OfModel | OfThisModel):
        return nullcontext()
    inner, fingerprint = parts_of(measure)
    recipe = asdict(measure.recipe) if isinstance(measure, OfModel) else None
    about = {
        "measure": name_of_measure(inner),
        "grid": {axis: len(values) for axis, values in grid.axes.items()},
        "executor": None if executor is None else type(executor).__name__,
        "journal": None if journal is None else str(Path(journal).resolve()),
    }
    return recording("sweep", about=about, fingerprint=fingerprint, recipe=recipe)


def _checked(
    grid: Grid,
    results: Results | None,
    batch: int,
    cost: Callable[[Cell], float | int] | None,
    most: float | int | None,
) -> Results:
    if batch < 1:
        raise ValueError(f"batch={batch}: expected at least 1 cell a call")
    if (cost is None) != (most is None):
        raise ValueError("cost and most belong together: what a cell costs, and the most that one call may")
    if results is None:
        return Results(grid)
    if not results.grid.same_axes(grid):
        raise ValueError(
            f"results are of {results.grid!r} and the sweep is over {grid!r}, with other axes or labels: expected "
            "those of an earlier sweep over the same"
        )
    results.grid = grid
    return results
