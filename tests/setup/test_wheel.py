"""What people install: the wheel and the sdist, built once here, and the wheel used away from the checkout."""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

OFFLINE = """
import socket
def refuse(*_): raise AssertionError("a connection was tried")
socket.socket.connect = socket.socket.connect_ex = refuse
"""


@pytest.fixture(scope="module")
def built(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one wheel and one sdist of the checkout."""
    folder = tmp_path_factory.mktemp("dist")
    build(root, folder)
    return folder


def build(tree: Path, folder: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(folder)]
    subprocess.run(command, cwd=tree, check=True, capture_output=True, timeout=300)


def wheel_names(folder: Path) -> set[str]:
    (wheel,) = folder.glob("*.whl")
    return set(zipfile.ZipFile(wheel).namelist())


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel unpacked into a fresh folder, as pip lays it out."""
    target = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--quiet", "--target", str(target)]
    subprocess.run([*command, *map(str, built.glob("*.whl"))], check=True, capture_output=True, timeout=300)
    return target


def run(code: str, installed: Path, cwd: Path) -> str:
    """The output of Python code that sees the installed wheel before any checkout."""
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    command = [sys.executable, "-c", OFFLINE + code]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def files_of(folder: Path, *suffixes: str) -> set[str]:
    found = (path for path in folder.rglob("*") if path.is_file() and path.name not in {".gitkeep", ".DS_Store"})
    hidden = {"__pycache__", ".ipynb_checkpoints"}
    names = {path.relative_to(folder) for path in found if not hidden & set(path.parts)}
    return {name.as_posix() for name in names if not suffixes or name.suffix in suffixes}


def test_the_wheel_holds_the_package_the_model_and_the_notebooks_and_nothing_else(built: Path, root: Path):
    code = {f"workbench/{name}" for name in files_of(root / "workbench")}
    model = {f"workbench/_data/nano/{name}" for name in files_of(root / "data/nano")}
    notebooks = {f"workbench/_notebooks/{name}" for name in files_of(root / "notebooks")}
    inside = {name for name in wheel_names(built) if ".dist-info/" not in name}
    assert inside == code | model | notebooks
    needed = {"py.typed", "_data/nano/model.safetensors", "_data/nano/tokenizer.json", "_notebooks/00_start.ipynb"}
    assert {f"workbench/{name}" for name in needed} <= inside


def test_the_wheel_fits_every_system_and_needs_no_compiler(built: Path):
    (wheel,) = built.glob("*.whl")
    assert wheel.name.endswith("-py3-none-any.whl")


def test_the_sdist_alone_builds_the_same_wheel(built: Path, tmp_path: Path):
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path / "source", filter="data")
    (tree,) = (tmp_path / "source").iterdir()
    build(tree, tmp_path / "dist")
    assert wheel_names(tmp_path / "dist") == wheel_names(built)
    assert (tree / "tests" / "conftest.py").exists()
    assert (tree / "constraints.txt").exists()


def test_the_installed_wheel_loads_nano_without_a_network_or_the_checkout(installed: Path, tmp_path: Path):
    code = "import workbench as wb; m = wb.load('nano'); print(wb.__file__, tuple(m(m.to_tokens('Mia')).shape)[-1])"
    file, d_vocab = run(code, installed, tmp_path).split()
    assert Path(file).is_relative_to(installed)
    assert int(d_vocab) > 100


def test_the_installed_wheel_copies_its_notebooks_into_the_users_folder(installed: Path, tmp_path: Path, root: Path):
    code = """
from workbench import cli
cli.wait = lambda command: print("serves", *command[3:]) or 0
cli.main(["lab", "--no-browser"])
"""
    shown = run(code, installed, tmp_path)
    copies = tmp_path / "workbench-notebooks"
    assert files_of(copies) == files_of(root / "notebooks")
    assert (copies / "00_start.ipynb").read_bytes() == (root / "notebooks" / "00_start.ipynb").read_bytes()
    assert f"serves --ServerApp.root_dir={copies.resolve()} --LabApp.default_url=/lab/tree/00_start.ipynb" in shown


def test_the_wheel_brings_the_workbench_command(built: Path):
    (wheel,) = built.glob("*.whl")
    (name,) = [name for name in wheel_names(built) if name.endswith("entry_points.txt")]
    assert "workbench = workbench.cli:main" in zipfile.ZipFile(wheel).read(name).decode()
