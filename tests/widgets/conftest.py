"""A model and sessions to try views on, without a browser."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import workbench as wb
from workbench import prompts
from workbench.widgets import Bench


@pytest.fixture(scope="session")
def nano() -> wb.HookedGptOss:
    return wb.load("nano")


@pytest.fixture(scope="session")
def pair(nano: wb.HookedGptOss) -> prompts.Pair:
    return prompts.pairs(nano, "indirect object", n=1, seed=0)[0]


@pytest.fixture
def bench_of(nano: wb.HookedGptOss) -> Iterator[Callable[..., Bench]]:
    """Makes Benches, settled, that are closed after the test."""
    made: list[Bench] = []

    def make(prompt: Any, **options: Any) -> Bench:
        bench = Bench(options.pop("model", nano), prompt, **options)
        made.append(bench)
        bench.session.wait(60)
        return bench

    yield make
    for bench in made:
        bench.close()


@pytest.fixture
def bench(bench_of: Callable[..., Bench], pair: prompts.Pair) -> Bench:
    """On a pair of prompts."""
    return bench_of(pair)
