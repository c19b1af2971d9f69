"""What the golden tests share: the form of our model, and the table of figures at the end of the run."""

import pytest

from tests.forms import FORMS, held_as
from tests.golden.measured import Measured
from tests.tables import Table

form = held_as(*FORMS)


@pytest.fixture(scope="session")
def measured(tables: dict[str, Table]) -> Measured:
    """Where a test records the figure it found."""
    table = Measured()
    tables[table.title] = table
    return table
