"""A sweep that was stopped, on whatever it ran, goes on where it was, and ends as one that was not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

import pytest
import xarray as xr

import workbench as wb
from workbench import prompts
from workbench.experiments import metric_of
from workbench.sweeps import Grid, sweep
from workbench.sweeps.executors import ExecutorError

GRID = Grid(layer=range(4), head=range(8))


def plain(cells):
    return [cell["layer"] * 10.0 + cell["head"] for cell in cells]


def ablated(model, cells):
    """The loss of a text without a head."""
    found = []
    for cell in cells:
        run = wb.run(model, "Mia went to the park and Tom", [wb.AblateHead(cell["layer"], cell["head"], "zero")])
        found.append(float(run.logits[0, -1].logsumexp(-1)))
    return found


def doubtful(cells):
    if any(cell["head"] == 3 for cell in cells):
        raise ValueError("no head 3")
    return plain(cells)


@pytest.fixture(scope="module")
def processes():
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        yield pool


def test_a_second_sweep_measures_nothing_and_gives_the_same(tmp_path):
    new = []
    first = sweep(plain, GRID, journal=tmp_path, progress=False).to_xarray()
    second = sweep(plain, GRID, journal=tmp_path, progress=False, on_result=lambda *_: new.append(1)).to_xarray()
    xr.testing.assert_identical(first, second)
    assert new == []


def test_a_larger_grid_finds_the_cells_of_the_smaller_one(tmp_path):
    sweep(plain, Grid(layer=range(2), head=range(8)), journal=tmp_path, progress=False)
    new = []
    sweep(plain, GRID, journal=tmp_path, progress=False, on_result=lambda cell, _: new.append(cell["layer"]))
    assert sorted(set(new)) == [2, 3] and len(new) == 16


def test_changed_code_begins_anew_and_says_so(tmp_path):
    def measure_with(offset):
        def measure(cells):
            return [offset for _ in cells]

        return measure

    sweep(measure_with(1.0), GRID, journal=tmp_path, progress=False)
    with pytest.warns(UserWarning, match="code that was changed"):
        other = sweep(measure_with(2.0), GRID, journal=tmp_path, progress=False).to_xarray()
    assert float(other.value.min()) == 2.0


def test_another_model_begins_anew(tmp_path, nano_copy):
    first = sweep(ablated, Grid(layer=[1], head=range(2)), model="nano", journal=tmp_path, progress=False).to_xarray()
    with pytest.warns(UserWarning, match="of another model"):
        other = sweep(
            ablated, Grid(layer=[1], head=range(2)), model=nano_copy, journal=tmp_path, progress=False
        ).to_xarray()
    assert not first.value.equals(other.value)


@pytest.fixture
def nano_copy(tmp_path):
    """A checkpoint that differs from nano in one weight."""
    model = wb.load("nano")
    model.unembed.weight.data = model.unembed.weight.data * 1.01
    wb.save_pretrained(model, tmp_path / "copy")
    return tmp_path / "copy"


def test_threads_and_processes_give_what_this_process_gives(processes):
    here = sweep(ablated, GRID, model="nano", batch=4, progress=False).to_xarray()
    spread = sweep(ablated, GRID, model="nano", batch=4, executor=processes, progress=False).to_xarray()
    xr.testing.assert_allclose(here, spread, rtol=1e-5)
    with ThreadPoolExecutor(2) as threads:
        xr.testing.assert_identical(sweep(plain, GRID, executor=threads, progress=False).to_xarray(),
                                    sweep(plain, GRID, progress=False).to_xarray())  # fmt: skip


def keyed(cells):
    """A measure that keeps its values by cell, as one may."""
    found = dict(zip(cells, plain(cells), strict=True))
    assert len(found) == len(cells)
    return [found[cell] for cell in cells]


def test_cells_are_told_apart_in_a_worker_too(processes):
    found = sweep(keyed, GRID, batch=8, executor=processes, progress=False)
    assert not found.failures
    xr.testing.assert_identical(found.to_xarray(), sweep(plain, GRID, progress=False).to_xarray())


def test_a_metric_of_edited_prompts_is_the_same_on_workers(processes):
    pairs = prompts.pairs(wb.load("nano"), "indirect object", n=4, seed=1)
    grid = Grid(layer=[0, 1], expert=range(3), prompt=pairs)
    here, spread = (
        sweep(metric_of(spec=without), grid, model="nano", batch=8, executor=executor, progress=False).to_xarray()
        for executor in (None, processes)
    )
    xr.testing.assert_allclose(here, spread, rtol=1e-5)
    assert float(here.value.std()) > 0.5


def without(cell):
    return wb.AblateExpert(cell["layer"], cell["expert"], "zero")


def test_a_cell_that_raises_in_a_worker_is_reported_and_the_others_are_measured(processes):
    found = sweep(doubtful, GRID, batch=4, executor=processes, progress=False)
    assert found.done == 28 and {failure.cell["head"] for failure in found.failures.values()} == {3}
    assert all("no head 3" in str(failure) for failure in found.failures.values())


def test_a_pool_that_breaks_with_its_worker_costs_no_finished_cell(tmp_path):
    fatal = Fatal(str(tmp_path / "died"))
    with (
        ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool,
        pytest.raises(ExecutorError, match="new exec"),
    ):
        sweep(fatal, GRID, batch=4, executor=pool, journal=tmp_path / "journal", progress=False)
    whole = sweep(fatal, GRID, batch=4, journal=tmp_path / "journal", progress=False)
    xr.testing.assert_identical(whole.to_xarray().value, sweep(plain, GRID, progress=False).to_xarray().value)


class Fatal:
    """Kills the process that it first runs in."""

    def __init__(self, flag):
        self.flag, self.parent = flag, os.getpid()

    def __call__(self, cells):
        assert os.path.exists(self.flag) or os.getpid() != self.parent, "a worker was to be killed, not the tests"
        if not os.path.exists(self.flag):
            open(self.flag, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        return plain(cells)

    kind = "fatal"

    def as_dict(self):
        return {"flag": self.flag}


def test_a_measure_that_cannot_travel_is_refused_in_words(processes):
    lock = __import__("threading").Lock()
    with pytest.raises(TypeError, match=r"cannot be sent to a worker.*model=…"):
        sweep(lambda cells: [lock for _ in cells], GRID, executor=processes, progress=False)


SLOW = """
import sys, time
from workbench.sweeps import Grid, sweep

def slow(cells):
    time.sleep(0.01)
    return [cell["i"] * 0.5 for cell in cells]

if __name__ == "__main__":
    found = sweep(slow, Grid(i=range(300)), batch=4, journal=sys.argv[1], progress=False,
                  on_result=lambda cell, value: print(cell["i"], flush=True))
    print("whole", float(found.to_xarray().value.sum()), flush=True)
"""


def test_a_process_that_is_killed_again_and_again_repeats_nothing_that_it_said_was_done(tmp_path):
    script = tmp_path / "slow.py"
    script.write_text(SLOW)
    seen, environment = [], os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    for attempt in range(12):
        command = [sys.executable, script, tmp_path / "journal"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line.strip())
            if len(lines) >= 30 + 7 * attempt and not line.startswith("whole"):
                os.kill(process.pid, signal.SIGKILL)
                break
        rest = process.stdout.read().split("\n")
        process.stdout.close()
        process.wait()
        lines += [line for line in rest if line and not line.startswith("whole")]
        whole = [line for line in (*lines, *rest) if line.startswith("whole")]
        seen += [int(line) for line in lines if line.isdigit()]
        if whole:
            break
        time.sleep(0.01)
    assert whole and float(whole[0].split()[1]) == sum(range(300)) * 0.5
    assert len(seen) == len(set(seen))  # no cell was said twice
