"""The counts of a run, shown at its end: WORKBENCH_FUZZ=N sets how many inputs there are in all."""

from __future__ import annotations

import os

import pytest

from tests.fuzz.many import VERDICTS
from tests.tables import Table

FEWEST = 2100
TITLE = "inputs that were made up or damaged, by kind"


@pytest.fixture(scope="session")
def number() -> int:
    return int(os.environ.get("WORKBENCH_FUZZ", FEWEST))


@pytest.fixture(scope="session")
def counted(tables: dict[str, Table]) -> Table:
    return tables.setdefault(TITLE, Table(TITLE, list(VERDICTS), 0, ",.0f"))
