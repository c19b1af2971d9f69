"""A scheduler that was there before the sweep, by its address: what it pins, and what happens when it is killed."""

from __future__ import annotations

import os
import threading
import time
from contextlib import ExitStack

import dask
import pytest
import xarray as xr
from distributed import Client

from tests.scale.clusters import QUIET, command, free_port
from tests.scale.measures import ROWS, numbers
from workbench.sweeps import Grid, sweep
from workbench.sweeps.executors import ExecutorError


@pytest.fixture
def both_workers():
    """Not of the shared cluster, which these do without."""


@pytest.fixture(scope="module")
def undisturbed():
    return sweep(numbers, ROWS, batch=4, progress=False).to_xarray()


class Place:
    """A scheduler and workers as commands, on one port."""

    def __init__(self, stack: ExitStack) -> None:
        self.stack, self.port = stack, free_port()
        self.address = f"tcp://127.0.0.1:{self.port}"

    def scheduler(self):
        return self.stack.enter_context(
            command("scheduler", "--host", "127.0.0.1", "--port", str(self.port), "--no-dashboard")
        )

    def worker(self, *options: str):
        return self.stack.enter_context(
            command("worker", self.address, "--no-nanny", "--nthreads", "1", "--no-dashboard", *options)
        )

    def client(self, timeout: float = 120) -> Client:
        return self.stack.enter_context(Client(self.address, timeout=timeout, set_as_default=False))


@pytest.fixture
def place():
    with dask.config.set(QUIET), ExitStack() as stack:
        yield Place(stack)


def where(cells):
    """The process of each cell, and when it began and ended."""
    begun = time.time()
    time.sleep(0.02)
    return [{"process": os.getpid(), "begun": begun, "ended": time.time()} for _ in cells]


def test_a_model_a_device_by_the_resources_of_the_workers(place):
    place.scheduler()
    place.worker("--resources", "GPU=1", "--nthreads", "4", "--name", "device")
    place.worker("--name", "none")
    client = place.client()
    client.wait_for_workers(2, timeout=180)
    named = {worker["name"]: address for address, worker in client.scheduler_info(n_workers=-1)["workers"].items()}
    device = client.run(os.getpid, workers=[named["device"]])
    pinned = client.get_executor(resources={"GPU": 1})
    made = sweep(where, Grid(i=range(12)), batch=1, executor=pinned, progress=False).to_xarray()
    assert {int(process) for process in made.process.values} == set(device.values())
    # Four threads and one device: one batch after the other.
    order = made.sortby("begun")
    assert (order.begun.values[1:] >= order.ended.values[:-1]).all()


def test_a_scheduler_that_is_killed_and_started_again_at_its_address_costs_nothing(place, undisturbed, tmp_path):
    scheduler, worker = place.scheduler(), place.worker()
    client = place.client()
    client.wait_for_workers(1, timeout=180)
    told = []

    def start_again():
        assert (
            worker.wait(120) is not None
        )  # Dask's workers end with their scheduler: whoever began them begins them again
        place.scheduler()
        place.worker()

    def kill(cell, value):
        told.append(cell.index)
        if len(told) == 8:
            scheduler.kill()
            starting.start()

    starting = threading.Thread(target=start_again)
    made = sweep(
        numbers, ROWS, batch=4, executor=client.get_executor(), journal=tmp_path, progress=False, on_result=kill
    )
    starting.join()
    xr.testing.assert_identical(made.to_xarray(), undisturbed)
    assert len(told) == len(set(told)) == len(ROWS)


def test_a_scheduler_that_goes_for_good_ends_the_sweep_in_words(place):
    scheduler = place.scheduler()
    place.client()  # waits until it is there
    client = place.client(timeout=5)  # how long it looks for a scheduler that it lost
    killing = threading.Timer(0.5, scheduler.kill)
    killing.start()
    with pytest.raises(ExecutorError, match=r"client is clos.*its scheduler is gone.*same journal="):
        sweep(numbers, ROWS, executor=client.get_executor(), progress=False)
    killing.join()
