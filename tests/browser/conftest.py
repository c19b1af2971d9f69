"""What the browser tests share: one browser, one JupyterLab, pages with a Bench."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.browser.benches import PROMPT, load_nano, make_bench
from tests.browser.chromium import Chromium
from tests.browser.harness import Page
from tests.browser.lab import Lab

HERE = Path(__file__).parent
CHROMIUM = Chromium()
LABS: dict[str | None, Lab] = {}  # by the version of ipykernel; None is the installed one


def stop() -> None:
    """End the servers and the browser; what is used again starts again."""
    for lab in LABS.values():
        lab.close()
    CHROMIUM.stop()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Any:
    # Playwright holds the thread's asyncio loop: the tests of other folders must find it free.
    try:
        return (yield)
    finally:
        if nextitem is None or HERE not in nextitem.path.parents:
            stop()


@pytest.fixture(scope="session")
def chromium() -> Iterator[Chromium]:
    """One browser for this folder's tests, started at its first use."""
    yield CHROMIUM
    stop()


@pytest.fixture
def page_of(chromium: Chromium) -> Iterator[Callable[..., Page]]:
    """`page_of(widget, theme="light", width=1000, …)`: a page, closed and judged at the test's end (see Page)."""
    with ExitStack() as pages:
        yield lambda *widgets, **options: pages.enter_context(Page(chromium.browser, *widgets, **options))


@pytest.fixture(scope="session")
def lab_of(chromium: Chromium) -> Callable[..., Lab]:
    """`lab_of("6.31.0")`: a JupyterLab whose kernels have that ipykernel. One runs at a time."""

    def lab_of(version: str | None = None) -> Lab:
        for other, running in LABS.items():
            if other != version:
                running.close()
        return LABS.setdefault(version, Lab(chromium, ipykernel=version))

    return lab_of


@pytest.fixture
def lab(lab_of: Callable[..., Lab]) -> Lab:
    """One JupyterLab for this folder's tests, with the installed ipykernel."""
    return lab_of()


@pytest.fixture(scope="session")
def nano() -> Any:
    """The model that comes with the workbench."""
    return load_nano()


@pytest.fixture
def bench_page(chromium: Chromium, nano: Any) -> Iterator[Callable[..., tuple[Any, Page]]]:
    """`bench, page = bench_page(prompt or pair, open=["tokens", "attention"], theme="dark", width=600)`."""
    with ExitStack() as made:

        def bench_page(what: Any = PROMPT, *, model: Any = None, open: list[str] | None = None, **options: Any) -> Any:
            bench = make_bench(nano if model is None else model, what, open)
            made.callback(bench.close)
            return bench, made.enter_context(Page(chromium.browser, bench, **options))

        yield bench_page
