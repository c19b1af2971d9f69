"""The ranges in pyproject.toml, the exact versions in constraints.txt and the imports in the code tell one story."""

import ast
import re
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]
RUNTIME = [Requirement(line) for line in PROJECT["dependencies"]]
EXTRAS = [Requirement(line) for lines in PROJECT["optional-dependencies"].values() for line in lines]
BUILD = [Requirement(line) for line in PYPROJECT["build-system"]["requires"]]
# Needed at run time though no module of ours imports them: Jupyter and plotly load them, xarray and pandas the last.
LOADED_BY_OTHERS = {"anywidget", "ipykernel", "ipywidgets", "jupyterlab", "nbformat", "netcdf4", "pandas", "pyarrow"}
# OpenAI's own package wants Python 3.12 and much besides: the tests fetch it by themselves and use one folder of it.
# llama.cpp and its file format have an environment of their own, which the measured comparisons build.
FETCHED_BY_TESTS = {"gpt-oss", "gguf", "llama-cpp"}


def pins() -> dict[str, Requirement]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    requirements = [Requirement(line) for line in lines if line.strip() and not line.startswith("#")]
    return {canonicalize_name(requirement.name): requirement for requirement in requirements}


def pinned_version(requirement: Requirement) -> str:
    (only,) = requirement.specifier
    assert only.operator == "==", f"{requirement} is not exact"
    assert "*" not in only.version, f"{requirement} is not exact"
    return only.version


def imported_distributions(folder: Path) -> set[str]:
    """The distributions that the Python files of a folder import, wherever in the file."""
    names: set[str] = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module.partition(".")[0])
    known = dict(metadata.packages_distributions())
    outside = names - sys.stdlib_module_names - {"workbench", "tests", "docs"}
    known.setdefault("PIL", ["pillow"])  # known by another name, and not installed for the tests
    return {canonicalize_name(known[name][0] if name in known else name) for name in outside}


@pytest.mark.parametrize("requirement", RUNTIME + EXTRAS + BUILD, ids=lambda requirement: requirement.name)
def test_a_direct_dependency_is_pinned_inside_its_range(requirement: Requirement):
    pin = pins()[canonicalize_name(requirement.name)]
    assert requirement.specifier.contains(pinned_version(pin))


def test_every_constraint_is_one_exact_version_for_all_machines():
    for pin in pins().values():
        assert Version(pinned_version(pin)).local is None, f"{pin}: a build tag fits one kind of machine"
        assert pin.url is None
        assert not pin.extras


def test_torch_is_the_version_that_was_agreed():
    assert pinned_version(pins()["torch"]) == "2.13.0"


def test_the_tests_run_on_the_pinned_versions_of_the_direct_dependencies():
    names = [canonicalize_name(requirement.name) for requirement in RUNTIME]
    here = {name: metadata.version(name).partition("+")[0] for name in names}
    assert here == {name: pinned_version(pins()[name]) for name in names}


def test_everything_that_the_package_imports_is_a_declared_dependency():
    # Still pictures, `verify` and sweeps on a cluster import their extras' packages when they are called, never before.
    kinds = ("pictures", "verify", "scale")
    extras = [Requirement(line) for name in kinds for line in PROJECT["optional-dependencies"][name]]
    # And native/hatch_build.py runs in an installer's environment, which has what building needs.
    declared = {canonicalize_name(requirement.name) for requirement in RUNTIME + extras + BUILD}
    assert imported_distributions(ROOT / "workbench") <= declared


def test_every_declared_dependency_is_used():
    declared = {canonicalize_name(requirement.name) for requirement in RUNTIME}
    used = imported_distributions(ROOT / "workbench") | LOADED_BY_OTHERS
    assert declared <= used


def test_everything_that_the_tests_import_is_declared_for_them():
    test_only = [Requirement(line) for line in PROJECT["optional-dependencies"]["test"]]
    declared = {canonicalize_name(requirement.name) for requirement in RUNTIME + test_only}
    assert imported_distributions(ROOT / "tests") <= declared | FETCHED_BY_TESTS


def test_every_folder_of_views_is_under_the_contract_that_forbids_torch():
    contracts = {contract["id"]: contract for contract in PYPROJECT["tool"]["importlinter"]["contracts"]}
    views = {f"workbench.{name}" for name in ("results", "figures", "widgets") if (ROOT / "workbench" / name).is_dir()}
    assert set(contracts["no-torch-in-views"]["source_modules"]) == views


def test_python_3_11_to_3_13_are_promised_everywhere_alike():
    assert PROJECT["requires-python"] == ">=3.11,<3.14"
    listed = [line.rpartition(" ")[2] for line in PROJECT["classifiers"] if re.search(r"Python :: 3\.\d+$", line)]
    assert listed == ["3.11", "3.12", "3.13"]
    assert "(3, 11) <= sys.version_info[:2] < (3, 14)" in (ROOT / "Makefile").read_text(encoding="utf-8")
