"""The table of scores at the end of the run."""

import pytest

from tests.planted.scores import Scores

SCORES = pytest.StashKey[Scores]()


@pytest.fixture(scope="session")
def scores(request: pytest.FixtureRequest) -> Scores:
    """Where a test records how well a method found what was planted."""
    return request.config.stash.setdefault(SCORES, Scores())


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    lines = config.stash.get(SCORES, Scores()).lines()
    if lines:
        terminalreporter.section("planted truth: AUROC of each method (worst prompt), faithfulness of the circuit")
        for line in lines:
            terminalreporter.write_line(line)
