"""Which engine a call goes through, and what calls and threads have in common: nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.engines.numbers import PAIRS, Packed
from tests.forms import EAGER, NATIVE, through
from workbench.model import engines
from workbench.model.engines import engine_name

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def nothing_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with through(NATIVE):  # it is there
        monkeypatch.delenv("WORKBENCH_ENGINE")


# ---------------------------------------------------------------- the choice
def test_bfloat16_and_float32_on_the_cpu_go_native_and_everything_else_eager() -> None:
    chosen = {dtype: engine_name(CPU, dtype) for dtype in (torch.bfloat16, torch.float32, torch.float16, torch.float64)}
    assert list(chosen.values()) == ["native", "native", "eager", "eager"]
    assert engine_name("cuda", torch.bfloat16) == engine_name("meta", torch.bfloat16) == "eager"


def test_the_environment_and_use_choose_and_use_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_ENGINE", "eager")
    assert engine_name(CPU, torch.float32) == "eager"
    with engines.use("native"):
        assert engine_name(CPU, torch.float32) == "native"
        with engines.use("eager"):
            assert engine_name(CPU, torch.float32) == "eager"
        assert engine_name(CPU, torch.float32) == "native"
    monkeypatch.setenv("WORKBENCH_ENGINE", "")  # as good as not set
    assert engine_name(CPU, torch.float32) == "native"


def test_use_ends_with_its_block_however_that_ends() -> None:
    with pytest.raises(ZeroDivisionError), engines.use("eager"):
        _ = 1 / 0
    assert engine_name(CPU, torch.float32) == "native"


def test_use_says_nothing_to_other_threads() -> None:
    with ThreadPoolExecutor(1) as other:
        with engines.use("eager"):
            assert other.submit(engine_name, CPU, torch.float32).result() == "native"

        def inside() -> str:
            with engines.use("eager"):
                start.wait()
                return engine_name(CPU, torch.float32)

        start = threading.Barrier(2)
        there = other.submit(inside)
        start.wait()
        assert engine_name(CPU, torch.float32) == "native" and there.result() == "eager"


def test_an_unknown_engine_is_refused_with_the_known_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"engines\.use: 'fast' is no engine; expected one of \['native', 'eager'\]"):
        engines.use("fast").__enter__()
    monkeypatch.setenv("WORKBENCH_ENGINE", "fast")
    with pytest.raises(ValueError, match="WORKBENCH_ENGINE: 'fast' is no engine"):
        engine_name(CPU, torch.float32)


# A program of its own: the library is looked for once in a process.
WITHOUT = """
import os, warnings, torch
from workbench.model import engines
blocks, scales = torch.full((2, 8, 1, 16), 0x22, dtype=torch.uint8), torch.full((2, 8, 1), 127, dtype=torch.uint8)
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    for engine in ("eager", "native", ""):  # quiet where eager was asked for
        os.environ["WORKBENCH_ENGINE"] = engine
        for dtype in (torch.float64, torch.float32, torch.bfloat16):
            rows = torch.ones(3, 32, dtype=dtype, requires_grad=True)
            products = engines.packed_linear(rows, [1, 2], blocks, scales)
            products.sum().backward()
            assert (products == 32).all() and (rows.grad == 8).all()
        print(len(seen))
try:
    with engines.use("native"): ...
except RuntimeError as error:
    print(error)
print(seen[0].message)
"""


def test_a_missing_library_is_said_once_and_torch_does_the_work(root: Path, tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere.so"
    environment = os.environ | {"WORKBENCH_NATIVE_LIBRARY": str(nowhere), "PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, "-c", WITHOUT], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    quiet, once, still_once, refused, warned = done.stdout.splitlines()
    assert (quiet, once, still_once) == ("0", "1", "1")
    assert refused.startswith(f"the native engine is not available: {nowhere} is not there")
    assert str(nowhere) in warned and "WORKBENCH_ENGINE=eager" in warned


# ---------------------------------------------------------------- threads
@pytest.mark.parametrize("form", [EAGER, NATIVE])
def test_threads_multiply_at_once_as_one_after_another(form: str, seed: int) -> None:
    """Other shapes and types in each: what they share, the buffers, must not be shared."""
    shapes = [([5, 0, 9], 96, 40), ([1, 1, 1], 32, 300), ([0, 40, 2], 256, 64), ([3, 3, 0], 64, 8)]
    dtypes = [dtype for engine, dtype in PAIRS if form.endswith(engine)]
    work = [Packed.random(*shape, dtypes[i % len(dtypes)], seed + i) for i, shape in enumerate(shapes)]
    with through(form):
        alone = [forward_and_backward(packed) for packed in work]
        start = threading.Barrier(len(work))

        def often(number: int) -> bool:
            start.wait()
            results = [forward_and_backward(work[number]) for _ in range(40)]
            return all(torch.equal(a, b) for result in results for a, b in zip(result, alone[number], strict=True))

        with ThreadPoolExecutor(len(work)) as pool:
            assert list(pool.map(often, range(len(work)))) == [True] * len(work)


def forward_and_backward(packed: Packed) -> tuple[Tensor, Tensor]:
    rows = packed.rows.clone().requires_grad_()
    made = packed.linear(rows)
    (gradient,) = torch.autograd.grad(made.sum(), rows)
    return made.detach(), gradient
