"""What the golden tests share: the form of our model, and the table of figures at the end of the run."""

import pytest

from tests.forms import FORMS, held_as
from tests.golden.measured import Measured

form = held_as(*FORMS)
MEASURED = pytest.StashKey[Measured]()


@pytest.fixture(scope="session")
def measured(request: pytest.FixtureRequest) -> Measured:
    """Where a test records the figure it found."""
    return request.config.stash.setdefault(MEASURED, Measured())


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    lines = config.stash.get(MEASURED, Measured()).lines()
    if lines:
        terminalreporter.section("parity, as measured in this run (largest over all trials)")
        for line in lines:
            terminalreporter.write_line(line)
