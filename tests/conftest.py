"""Settings for every test: shapes and types are checked at run time, nothing asks the network.

One process may run the tests, or several at once (pytest-xdist): they have the seed in common, share the cores, and the
tables that they measured are put together.
"""

import gc
import os
import random
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import Any

# Before torch and numpy: each of several processes computes with its part of the cores, more would wait for each other.
if "PYTEST_XDIST_WORKER_COUNT" in os.environ:
    per_process = (os.cpu_count() or 1) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, per_process)))

import jaxtyping
import pytest
from hypothesis import settings

from tests.checked import quick
from tests.tables import Table

# Before the first import of workbench: from then on every jaxtyping shape and every annotation is checked at each call.
jaxtyping.jaxtyped = quick(jaxtyping.jaxtyped)
jaxtyping.install_import_hook("workbench", "beartype.beartype")

# A test that would need a hub says so at once, here and in the kernels that run the notebooks.
os.environ["HF_HUB_OFFLINE"] = "1"
# The user's own Jupyter and IPython settings are neither read nor changed.
PRIVATE = tempfile.TemporaryDirectory(prefix="workbench-tests-")
for variable in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"):
    os.environ[variable] = str(Path(PRIVATE.name) / variable.lower())
os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"
# Nor do the runs of tests, and of the kernels they start, leave records among the user's own.
os.environ["WORKBENCH_RECORDS"] = str(Path(PRIVATE.name) / "records.sqlite")

# A first call builds tables and compiles: a deadline would measure that.
settings.register_profile("workbench", deadline=None, print_blob=True)
settings.load_profile("workbench")

SEED = pytest.StashKey[int]()
TABLES = pytest.StashKey[dict[str, Table]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seed", type=int, help="the seed of the `seed` fixture; fresh for each run unless given")


def pytest_configure(config: pytest.Config) -> None:
    given = getattr(config, "workerinput", {}).get("seed", config.getoption("--seed"))
    config.stash[SEED] = random.SystemRandom().randrange(2**31) if given is None else given
    config.stash[TABLES] = {}


def pytest_report_header(config: pytest.Config) -> str:
    return f"seed: {config.stash[SEED]} (the same run again: --seed={config.stash[SEED]})"


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, Any, Any]:
    """What is imported and collected stays to the end: the garbage collector need not look through it at every turn."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if named := [item.nodeid for item in items if " object at 0x" in item.nodeid]:
        raise pytest.UsageError(
            f"{named[0]} is named by an address, which is another in each process: give its parameter a name (ids=…)"
        )


# ---------------------------------------------------------------- between the processes
@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """A process is about to start: it gets the seed of the run."""
    node.workerinput["seed"] = node.config.stash[SEED]


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["tables"] = [vars(table) for table in session.config.stash[TABLES].values()]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """A process has ended: what it measured joins the tables."""
    tables = node.config.stash[TABLES]
    for data in getattr(node, "workeroutput", {}).get("tables", []):
        tables.setdefault(data["title"], Table(**data | {"rows": {}})).add(Table(**data))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for table in config.stash[TABLES].values():
        if table.rows:
            terminalreporter.section(table.title)
            for line in table.lines():
                terminalreporter.write_line(line)


# ---------------------------------------------------------------- fixtures
@pytest.fixture(scope="session")
def seed(request: pytest.FixtureRequest) -> int:
    """A seed drawn fresh for this run; the header of the run prints it, and --seed gives it back."""
    return request.config.stash[SEED]


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def tables(request: pytest.FixtureRequest) -> dict[str, Table]:
    """By title, what is shown when the run ends: a fixture adds its table here."""
    return request.config.stash[TABLES]
