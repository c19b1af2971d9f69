"""A sweep on a Dask cluster is the sweep of one process, whatever happens to the cluster meanwhile."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from contextlib import suppress

import pytest
import torch
import xarray as xr
from distributed import Client
from safetensors.torch import load_file, save_file

from tests.scale.clusters import pids
from tests.scale.measures import NANO, ROWS, Slow, ablated, doubtful, loads, numbers
from workbench.checkpoints import Recipe, recipe_of
from workbench.sweeps import Grid, sweep
from workbench.sweeps.executors import ExecutorError
from workbench.sweeps.study import OfModel
from workbench.sweeps.workers import alone, packed, pickler


@pytest.fixture(scope="module")
def undisturbed():
    return sweep(numbers, ROWS, batch=4, progress=False).to_xarray()


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def spread(measure, grid, client, **options):
    return sweep(measure, grid, executor=client.get_executor(), progress=False, **options)


def once(action):
    """As on_result: the action when the first result is there."""
    left = [action]
    return lambda cell, value: left and left.pop()()


@pytest.mark.usefixtures("one_thread")
def test_two_workers_give_the_bits_of_one_process_and_load_the_model_once_each(client):
    recipe = recipe_of("nano")
    client.run(loads)
    made = spread(ablated, NANO, client, model=recipe, batch=2).to_xarray()
    spread(ablated, Grid({**NANO.axes, "layer": [0]}), client, model=recipe, batch=2)
    here = sweep(ablated, NANO, model=recipe, batch=2, progress=False).to_xarray()
    xr.testing.assert_identical(made, here)
    assert set(client.run(loads).values()) == {1}
    assert float(made.threads.max()) == 1  # two workers of one thread do not want four cores


def test_a_worker_that_is_killed_comes_back_and_costs_nothing(client, undisturbed):
    victim = next(iter(pids(client).values()))
    made = spread(numbers, ROWS, client, batch=4, on_result=once(lambda: os.kill(victim, signal.SIGKILL)))
    xr.testing.assert_identical(made.to_xarray(), undisturbed)
    assert not made.failures
    assert victim not in pids(client).values()


def test_a_slow_worker_holds_up_its_own_batches_only(client, undisturbed, tmp_path):
    made = spread(Slow(tmp_path), ROWS, client, batch=4).to_xarray()
    batches = (tmp_path / "batches").read_text().split()
    xr.testing.assert_identical(made, undisturbed)
    # Half of the 24 would be its share. What was sent to it beside a slow batch, the other worker measured.
    assert len(batches) == 24 and 1 <= batches.count("slow") <= 8


def test_all_workers_restarted_in_the_middle_cost_nothing(client, undisturbed):
    def restart():
        with suppress(TimeoutError):  # on a busy machine one may come late
            client.restart(timeout=20, wait_for_workers=False)

    made = spread(numbers, ROWS, client, batch=4, on_result=once(restart))
    xr.testing.assert_identical(made.to_xarray(), undisturbed)
    assert not made.failures


def test_a_worker_with_other_weights_under_the_same_name_is_refused_and_no_cell_fails(client, tmp_path, root):
    folder = tmp_path / "model"
    shutil.copytree(root / "data" / "nano", folder)
    recipe = recipe_of(folder)
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if name.endswith("sinks"))
    save_file(weights | {name: weights[name] + 1}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ExecutorError, match=r"cannot begin.*another model here.*same checkpoint"):
        spread(ablated, NANO, client, model=recipe)


def test_a_checkpoint_that_a_worker_does_not_have_is_said_at_once(client):
    with pytest.raises(ExecutorError, match=r"cannot begin.*nowhere"):
        spread(ablated, NANO, client, model=Recipe("/nowhere/at/all", fingerprint="0" * 64))


NOTEBOOK = """
import dataclasses

@dataclasses.dataclass(frozen=True)
class Setting:
    factor: float

class OnlyHere(Exception):
    pass

offset = 0.5

def measure(cells):
    if any(cell["head"] == 7 for cell in cells):
        raise OnlyHere("head 7")
    return [cell["setting"].factor * cell["head"] + offset for cell in cells]
"""


def test_a_measure_a_setting_and_an_error_of_a_notebook_travel(client):
    notebook = {"__name__": "__main__"}
    exec(NOTEBOOK, notebook)
    grid = Grid(setting=[notebook["Setting"](factor) for factor in (1.0, 2.0)], head=range(8))
    made = spread(notebook["measure"], grid, client, batch=4)
    assert made.to_xarray().value.values[1, :7].tolist() == [2.0 * head + 0.5 for head in range(7)]
    assert {cell.index for cell in (failure.cell for failure in made.failures.values())} == {(0, 7), (1, 7)}
    assert all(isinstance(failure.error, notebook["OnlyHere"]) for failure in made.failures.values())


def test_a_bad_cell_is_reported_with_its_own_error_and_all_others_are_measured(client):
    made = spread(doubtful, ROWS, client, batch=8)
    assert made.done == len(ROWS) - 1 and set(made.failures) == {(2, 3)}
    error = made.failures[2, 3].error
    assert type(error) is LookupError and error.args == ("no head 3 in row 2",)
    assert "in a worker: process" in error.__notes__[0]


def test_a_cell_that_kills_every_worker_is_reported_and_all_others_are_measured(client):
    def fatal(cells):
        if any(cell["head"] == 1 for cell in cells):
            os.kill(os.getpid(), signal.SIGKILL)
        return [cell["head"] for cell in cells]

    client.cluster.scheduler.allowed_failures, before = 0, client.cluster.scheduler.allowed_failures
    try:
        made = spread(fatal, Grid(head=range(4)), client, batch=1)
    finally:
        client.cluster.scheduler.allowed_failures = before
    assert [cell["head"] for cell, _ in made] == [0, 2, 3]
    assert "KilledWorker" in str(made.failures[(1,)])


def test_a_client_that_is_closed_ends_the_sweep_in_words_and_the_journal_goes_on(client, undisturbed, tmp_path):
    other, new = Client(client.scheduler.address, set_as_default=False), []
    with pytest.raises(ExecutorError, match=r"no more work|was lost.*same journal="):
        spread(numbers, ROWS, other, batch=4, journal=tmp_path, on_result=once(other.close))
    made = spread(
        numbers, ROWS, client, batch=4, journal=tmp_path, on_result=lambda cell, value: new.append(cell.index)
    )
    assert 0 < len(new) < len(ROWS)
    xr.testing.assert_identical(made.to_xarray(), undisturbed)


def test_a_sweep_that_is_cancelled_leaves_nothing_on_the_cluster(client):
    stop = threading.Event()
    made = spread(numbers, ROWS, client, batch=4, cancel=stop, on_result=lambda cell, value: stop.set())
    assert made.cancelled and 0 < made.done < len(ROWS)
    deadline = time.monotonic() + 10
    while any(client.processing().values()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(client.processing().values())


def test_short_batches_share_a_task_and_are_still_measured_one_by_one(client, monkeypatch):
    def sizes(cells):
        return [{"cells": len(cells), "first": cells[0]["i"]}] * len(cells)

    tasks, real = [], client.submit
    monkeypatch.setattr(
        client, "submit", lambda do, task, batches, **how: tasks.append(len(batches)) or real(do, task, batches, **how)
    )
    made = spread(sizes, Grid(i=range(201)), client, batch=2).to_xarray()
    assert made.cells.values.tolist() == [2] * 200 + [1]
    assert made["first"].values.tolist() == [i - i % 2 for i in range(201)]
    assert sum(tasks) == 101 and len(tasks) < 101 and tasks[0] == 1


def test_what_travels_is_small():
    task = packed(OfModel(ablated, recipe_of("nano")))
    cells = pickler()([alone(cell) for cell in list(NANO)[:16]])
    assert len(task.measure) < 1000 and len(cells) < 2000
