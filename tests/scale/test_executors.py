"""What a sweep makes of an executor's answers, with executors that give one answer each; and with those of Python."""

from __future__ import annotations

import asyncio
import pickle
import threading
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from types import SimpleNamespace

import pytest
import torch
import xarray as xr

from tests.scale.measures import NANO, ROWS, ablated, numbers
from workbench import provenance
from workbench.checkpoints import recipe_of
from workbench.sweeps import Grid, sweep
from workbench.sweeps.cluster import follow
from workbench.sweeps.executors import LOST, ExecutorError
from workbench.sweeps.workers import LATER, VALUES, WorkerError, measured, packed

GRID = Grid(i=range(6))


def plain(cells):
    return [cell["i"] * 0.5 for cell in cells]


class Answering(Executor):
    """Runs what it is given at once, unless ``answer`` of its number gives something else to do with the future."""

    def __init__(self, answer):
        self.answer, self.asked = answer, 0

    def submit(self, function, /, *arguments, **how):
        future: Future = Future()
        self.asked += 1
        instead = self.answer(self.asked)
        if instead is None:
            future.set_result(function(*arguments, **how))
        elif isinstance(instead, BaseException):
            future.set_exception(instead)
        else:
            instead(future)
        return future


def cancelled(future):
    future.cancel()
    future.set_running_or_notify_cancel()


class KilledWorker(Exception):
    """As Dask calls it."""


def given(answer, **options):
    executor = Answering(answer)
    return sweep(plain, GRID, executor=executor, progress=False, **{"batch": 2} | options), executor


def test_a_batch_that_is_cancelled_or_lost_on_its_way_is_sent_again():
    for loss in (cancelled, OSError("no way")):
        made, executor = given(lambda n, loss=loss: loss if n in (1, 3) else None)
        assert [value for _, value in made] == [0, 0.5, 1, 1.5, 2, 2.5] and executor.asked == 5


def test_a_batch_that_is_lost_every_time_is_the_executors_fault_if_cancelled_and_else_a_failure_of_its_cells():
    with pytest.raises(ExecutorError, match=f"lost {LOST + 1} times.*what is finished is kept"):
        given(lambda n: cancelled)
    made, _ = given(lambda n: OSError("no way"))
    assert made.done == 0 and len(made.failures) == 6 and "no way" in str(made.failures[0,])


def test_a_batch_that_killed_its_workers_is_tried_in_parts_at_once():
    made, executor = given(lambda n: KilledWorker("it") if n == 1 else None)
    assert made.done == 6 and executor.asked == 5  # the pair, its halves, and the two other pairs


def test_a_cell_that_was_beside_a_killer_is_tried_alone_before_it_is_blamed():
    made, executor = given(lambda n: KilledWorker("it") if n in (2, 3) else None, batch=1)
    assert made.done == 6 and executor.asked == 8


def test_what_a_broken_executor_had_finished_is_taken():
    finished = []
    with pytest.raises(ExecutorError, match="Make a new executor"):
        given(lambda n: BrokenExecutor("died") if n == 2 else None, on_result=lambda cell, _: finished.append(cell))
    assert {cell["i"] for cell in finished} >= {0, 1}


def test_an_executor_that_was_shut_down_is_said():
    pool = ThreadPoolExecutor(1)
    pool.shutdown()
    with pytest.raises(ExecutorError, match="takes no more work: cannot schedule new futures after shutdown"):
        sweep(plain, GRID, executor=pool, progress=False)


def test_an_error_that_cannot_travel_comes_as_its_text():
    class Holding(Exception):
        def __init__(self):
            self.lock = threading.Lock()

    def measure(cells):
        raise Holding

    made = sweep(measure, Grid(i=range(1)), executor=ThreadPoolExecutor(1), progress=False)
    error = made.failures[0,].error
    assert isinstance(error, WorkerError) and "Holding" in str(error)


def test_runs_of_a_worker_leave_no_records_of_their_own():
    with ThreadPoolExecutor(1) as pool:
        made = sweep(lambda cells: [float(provenance.on()) for _ in cells], GRID, executor=pool, progress=False)
    assert [value for _, value in made] == [0.0] * 6


def test_of_several_batches_in_a_task_those_that_would_be_late_come_back_unmeasured():
    task, batches = packed(plain), [pickle.dumps([cell]) for cell in GRID]
    answers, _ = measured(task, batches, seconds=0.0)
    assert [kind for kind, _ in answers] == [VALUES] + [LATER] * 5
    answers, _ = measured(task, batches)
    assert [pickle.loads(found) for _, found in answers] == [[cell["i"] * 0.5] for cell in GRID]


@pytest.mark.parametrize("status", ["pending", "cancelled"])
def test_an_error_on_the_way_back_from_dask_ends_the_wait(status):
    class Client:
        async def gather(self, sent, asynchronous):
            raise OSError("the worker that had it is gone")

    found = Future()
    asyncio.run(follow(Client(), SimpleNamespace(status=status), found))
    assert found.done() and found.cancelled() == (status == "cancelled")


def test_cells_are_made_when_there_is_room_for_them_and_not_before():
    made, ahead = [], []
    grid = Grid(i=range(40)).where(lambda cell: not made.append(cell["i"]))
    with ThreadPoolExecutor(2) as pool:
        sweep(plain, grid, batch=1, executor=pool, progress=False, on_result=lambda *_: ahead.append(len(made)))
    assert ahead[0] <= 2 * 2 + 2  # two for each worker, and what the batching looks ahead


@pytest.mark.parametrize("threads", [1, 2])
def test_processes_with_as_many_threads_as_they_are_given_give_the_bits_of_this_process(threads):
    """The initializer is how a pool's processes learn how many threads they may use."""
    recipe, grid, before = recipe_of("nano"), Grid({**NANO.axes, "layer": [1, 3]}), torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        here = sweep(ablated, grid, model=recipe, batch=4, progress=False).to_xarray()
        with ThreadPoolExecutor(2, initializer=torch.set_num_threads, initargs=(threads,)) as pool:
            found = sweep(ablated, grid, model=recipe, batch=4, executor=pool, progress=False).to_xarray()
    finally:
        torch.set_num_threads(before)
    assert set(here.threads.values.ravel()) == {threads}
    xr.testing.assert_identical(found, here)


def test_processes_give_what_this_process_gives():
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        made = sweep(numbers, ROWS, batch=8, executor=pool, progress=False).to_xarray()
    xr.testing.assert_identical(made, sweep(numbers, ROWS, batch=8, progress=False).to_xarray())
