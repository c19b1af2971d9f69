"""The native library, built once a session from the sources under test."""

import pytest

from workbench.model.engines import native
from workbench.model.engines.native import build
from workbench.model.engines.native.library import ISAS, load


@pytest.fixture(scope="session", autouse=True)
def library(tmp_path_factory):
    """The library's file. A machine without a C compiler says so; one that has a compiler must compile."""
    try:
        build.compiler()
    except build.BuildError as error:
        pytest.skip(f"nothing native to test: {error}")
    path = build.compile_library(tmp_path_factory.mktemp("native"))
    patch = pytest.MonkeyPatch()
    patch.setenv("WORKBENCH_NATIVE_LIBRARY", str(path))
    load.cache_clear()
    yield path
    patch.undo()
    load.cache_clear()


@pytest.fixture(params=ISAS[1:])
def isa(request):
    """Every instruction set that this machine has, worst first."""
    if request.param not in native.isas():
        pytest.skip(f"this machine has no {request.param}")
    return request.param


@pytest.fixture
def unhooked():
    """Arguments reach the engine as they would in a user's program, where nobody checks annotations."""
    import jaxtyping

    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
