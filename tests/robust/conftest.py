"""A small model, everything about it that must stay as it is, and how long these tests may be.

WORKBENCH_ROBUST=full makes the long form: thousands of interrupts, ten thousand runs.
"""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from torch import Tensor

from tests.robust.found import AsFound
from tests.robust.interrupting import Work
from tests.robust.works import small, works
from tests.small import as_in_a_notebook
from tests.tables import Table
from workbench.model import HookedGptOss

__all__ = ["as_in_a_notebook"]
FULL = os.environ.get("WORKBENCH_ROBUST") == "full"


@pytest.fixture(scope="session")
def full() -> bool:
    """Whether this is the long form."""
    return FULL


@pytest.fixture(scope="session")
def subject(tmp_path_factory: pytest.TempPathFactory) -> tuple[HookedGptOss, Tensor]:
    """A small model and a row of tokens."""
    return small(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="session")
def model(subject: tuple[HookedGptOss, Tensor]) -> HookedGptOss:
    return subject[0]


@pytest.fixture(scope="session")
def tokens(subject: tuple[HookedGptOss, Tensor]) -> Tensor:
    return subject[1]


@pytest.fixture(scope="session")
def work(model: HookedGptOss, tokens: Tensor, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Work]:
    """Every kind of work, by name; each was done once, so that nothing is imported when it is interrupted."""
    made = works(model, tokens, Path(tmp_path_factory.mktemp("works")))
    for piece in made.values():
        piece()
    return made


@pytest.fixture
def found(model: HookedGptOss, tokens: Tensor, can_be_interrupted: None) -> AsFound:
    """The model and the process as they are now."""
    return AsFound(model, tokens)


@pytest.fixture(autouse=True)
def can_be_interrupted() -> Iterator[None]:
    """SIGINT raises KeyboardInterrupt, also where whoever runs the tests ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def draw(seed: int) -> random.Random:
    """Random numbers of this run's seed."""
    return random.Random(seed)


@pytest.fixture(scope="session")
def counts(tables: dict[str, Table]) -> Table:
    """What was tried, for the end of the run."""
    table = Table("Robustness: interrupts", ["tried", "came", "wrong"], perfect=0.0, form=".0f")
    return tables.setdefault(table.title, table)
