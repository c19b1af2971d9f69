"""The table of scores at the end of the run."""

import pytest

from tests.planted.scores import Scores
from tests.tables import Table


@pytest.fixture(scope="session")
def scores(tables: dict[str, Table]) -> Scores:
    """Where a test records how well a method found what was planted."""
    table = Scores()
    tables[table.title] = table
    return table
