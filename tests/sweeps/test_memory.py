"""A sweep that runs out of memory measures what fits, in parts that fit, and says what does not."""

from __future__ import annotations

import pytest
import torch
import xarray as xr

from workbench.model.memory import NotEnoughMemory
from workbench.sweeps import Grid, sweep
from workbench.sweeps.memory import ran_out

GRID = Grid(i=range(100))


class Device:
    """Has room for so many cells at once, and remembers what it was asked for."""

    def __init__(self, room, error=MemoryError):
        self.room, self.error, self.asked = room, error, []

    def __call__(self, cells):
        self.asked.append(len(cells))
        if len(cells) > self.room:
            raise self.error("CUDA out of memory. Tried to allocate 20.00 MiB")
        return [cell["i"] * 2.0 for cell in cells]


@pytest.mark.parametrize("room", (1, 3, 7, 15))
def test_every_cell_is_measured_whatever_fits_at_once(room):
    device = Device(room)
    found = sweep(device, GRID, batch=16, progress=False)
    assert found.done == 100 and not found.failures
    assert found.to_xarray().value.values.tolist() == [2.0 * i for i in range(100)]


def test_after_a_batch_that_did_not_fit_the_next_ones_are_smaller_at_once():
    device = Device(5)
    sweep(device, GRID, batch=16, progress=False)
    assert device.asked[:4] == [16, 8, 4, 4]  # halved until it fits, and not begun at 16 again
    assert sum(n > 5 for n in device.asked) <= 2 + len(device.asked) // 16


def test_when_there_is_room_again_batches_grow_again():
    device = Device(2)
    seen = []

    def freed(cell, value):
        seen.append(cell)
        if len(seen) == 40:
            device.room = 16

    sweep(device, Grid(i=range(400)), batch=16, progress=False, on_result=freed)
    assert device.asked[-2] == 16


def test_a_single_cell_is_tried_once_more_and_then_reported_and_the_others_are_measured():
    asked = []

    def measure(cells):
        asked.extend(cell["i"] for cell in cells)
        if any(cell["i"] == 13 for cell in cells):
            raise MemoryError("no room for 13")
        return [1.0 for _ in cells]

    found = sweep(measure, Grid(i=range(20)), batch=4, progress=False)
    (failure,) = found.failures.values()
    assert failure.cell["i"] == 13 and "no room for 13" in str(failure)
    assert found.done == 19
    assert asked.count(13) == 4  # with three others, with one, alone, alone again


def test_a_cell_that_fits_the_second_time_is_no_failure():
    tries = []

    def measure(cells):
        tries.append(len(cells))
        if len(tries) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return [1.0]

    found = sweep(measure, Grid(i=[0]), progress=False)
    assert found.done == 1 and not found.failures and tries == [1, 1]


@pytest.mark.parametrize(
    "error",
    (
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:119] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"
        ),
    ),
)
def test_each_way_of_saying_that_memory_ran_out_is_understood(error):
    assert ran_out(error)


def test_torch_says_what_we_listen_for():
    """The allocator's own words, asked of it."""
    with pytest.raises(RuntimeError) as raised:
        torch.empty(2**62, dtype=torch.uint8)
    assert ran_out(raised.value)


def test_our_own_refusal_is_one_and_a_wrong_shape_is_none():
    assert issubclass(NotEnoughMemory, MemoryError)
    with pytest.raises(RuntimeError) as raised:
        torch.ones(2) @ torch.ones(3)
    assert not ran_out(raised.value)


def test_memory_that_runs_out_in_batches_gives_the_values_of_an_undisturbed_sweep():
    calm = sweep(Device(100), GRID, batch=16, progress=False).to_xarray()
    xr.testing.assert_identical(calm, sweep(Device(3), GRID, batch=16, progress=False).to_xarray())
