"""Settings for every test: shapes and types are checked at run time, nothing asks the network."""

import os
import random
import tempfile
from pathlib import Path

import jaxtyping
import pytest
from hypothesis import settings

# Before the first import of workbench: from then on every jaxtyping shape and every annotation is checked at each call.
jaxtyping.install_import_hook("workbench", "beartype.beartype")

# A test that would need a hub says so at once, here and in the kernels that run the notebooks.
os.environ["HF_HUB_OFFLINE"] = "1"
# The user's own Jupyter and IPython settings are neither read nor changed.
PRIVATE = tempfile.TemporaryDirectory(prefix="workbench-tests-")
for variable in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"):
    os.environ[variable] = str(Path(PRIVATE.name) / variable.lower())
os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"

# A first call builds tables and compiles: a deadline would measure that.
settings.register_profile("workbench", deadline=None, print_blob=True)
settings.load_profile("workbench")

SEED = pytest.StashKey[int]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seed", type=int, help="the seed of the `seed` fixture; fresh for each run unless given")


def pytest_configure(config: pytest.Config) -> None:
    given = config.getoption("--seed")
    config.stash[SEED] = random.SystemRandom().randrange(2**31) if given is None else given


def pytest_report_header(config: pytest.Config) -> str:
    return f"seed: {config.stash[SEED]} (the same run again: --seed={config.stash[SEED]})"


@pytest.fixture(scope="session")
def seed(request: pytest.FixtureRequest) -> int:
    """A seed drawn fresh for this run; the header of the run prints it, and --seed gives it back."""
    return request.config.stash[SEED]


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return Path(__file__).resolve().parent.parent
