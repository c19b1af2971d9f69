"""Threads: torch's own, the library's pool, calls from several Python threads, and forks."""

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from tests.engines.native.cases import random_case
from workbench.model.engines import native

ROOT = Path(__file__).resolve().parents[3]

# In a fresh Python: the engine without the packages around it, whose own imports take seconds.
START = """
import os, signal, sys, threading, types
import torch
for name in ("workbench", "workbench.model", "workbench.model.engines"):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [os.path.join(os.environ["PYTHONPATH"], *name.split("."))]
from tests.engines.native.cases import random_case
from workbench.model.engines import native
"""

FORK = """
case = random_case(0, [5, 60], 352, 200, torch.bfloat16)
expected = native.grouped_linear(*case.args, threads=1)

def right(threads):
    return torch.equal(native.grouped_linear(*case.args, threads=threads), expected)

def fork_beside_calls(threads):
    busy, calls = True, 0
    def keep_calling():
        nonlocal calls
        while busy:
            assert right(threads)
            calls += 1
    thread = threading.Thread(target=keep_calling)
    thread.start()
    for _ in range(5):
        child = os.fork()
        if child == 0:
            signal.alarm(20)
            os._exit(0 if all(right(threads) for _ in range(5)) else 1)
        assert os.waitpid(child, 0)[1] == 0
    busy = False
    thread.join()
    assert right(threads)
    return calls > 0

torch.set_num_threads(2)
assert fork_beside_calls(2)  # torch's own threads
assert fork_beside_calls(3)  # the library's pool
print("children agreed")
"""

OS_THREADS = """
from workbench.model.engines.native.library import library
torch.set_num_threads(2)
case = random_case(0, [5, 60], 352, 2000, torch.bfloat16)
alone = native.grouped_linear(*case.args, threads=1)
torch.ones(1 << 22).add_(1)
before = len(os.listdir("/proc/self/task"))

def started_by(threads):
    assert torch.equal(native.grouped_linear(*case.args, threads=threads), alone)
    return len(os.listdir("/proc/self/task")) - before

print(started_by(2), started_by(4))
library().wb_use_team(None, None)
print(started_by(2), started_by(5))
"""


def run(code, library):
    """What a fresh Python prints, which has the engine, the tests and the library at hand."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "WORKBENCH_NATIVE_LIBRARY": str(library)}
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", START + code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\n")[:-1]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_fork_beside_running_calls_leaves_parent_and_child_able_to_call(library):
    assert run(FORK, library) == ["children agreed"]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="counts threads in /proc, which only Linux has")
def test_calls_by_torchs_number_of_threads_start_none_and_others_start_a_pool(library):
    lent, own = run(OS_THREADS, library)
    assert "OpenMP" in torch.__config__.parallel_info()
    assert lent == "0 3"
    assert own == "3 4"  # the pool of before, and one more


def test_calls_from_several_python_threads_do_not_disturb_each_other():
    cases = [random_case(seed, [seed, 40 - seed, 1], 160, 90, torch.bfloat16) for seed in range(1, 7)]
    expected = [native.grouped_linear(*case.args, threads=1) for case in cases]
    start = threading.Barrier(len(cases))

    def call(case):
        start.wait()
        return [native.grouped_linear(*case.args, threads=2) for _ in range(20)]

    with ThreadPoolExecutor(len(cases)) as pool:
        for results, right in zip(pool.map(call, cases), expected, strict=True):
            assert all(torch.equal(result, right) for result in results)


def test_more_threads_than_work_or_cores_is_fine():
    case = random_case(0, [1], 32, 1, torch.float32)
    expected = native.grouped_linear(*case.args, threads=1)
    assert torch.equal(native.grouped_linear(*case.args, threads=64), expected)


def test_the_pools_workers_sleep_between_calls():
    case = random_case(0, [40], 352, 500, torch.bfloat16)
    native.grouped_linear(*case.args, threads=torch.get_num_threads() + 1)  # not torch's team, whose threads spin
    before = os.times()
    threading.Event().wait(0.5)
    after = os.times()
    assert after.user + after.system - before.user - before.system < 0.1


def test_scratch_can_be_given_back_and_is_had_again():
    case = random_case(0, [40], 64, 50, torch.bfloat16)
    expected = native.grouped_linear(*case.args)
    native.release_scratch()
    assert torch.equal(native.grouped_linear(*case.args), expected)
